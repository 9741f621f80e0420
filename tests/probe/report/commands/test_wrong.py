"""`report wrong`: wrong answers and hints as they stand in the scores, neighbours against a plain loop."""

import base64
import csv
import io
import re

import numpy as np
import pytest
from answering import rewrite
from features import Looks, make_features
from numpy.testing import assert_allclose
from PIL import Image
from probing import answered as probed
from reporting import answered, refused

from cache.features import open_features
from cache.task import BINARY, MISSING, MULTI_LABEL, REGRESSION
from probe.report.findings.hints import label_hints
from probe.report.findings.looks import class_looks, picture, thumbnail_png
from probe.report.findings.wrong import find_wrong
from probe.report.rows.contenders import contenders_of
from probe.report.rows.people import People
from probe.report.rows.stored import read_stored, stored_files
from probe.results import read_row, read_scores

N = 220
LOOKS = Looks(copies={200: 5}, twins={210: 9})
PATIENTS = np.array([f"p{i // 2:03d}" for i in range(N)])


@pytest.fixture
def toys(places):
    """A feature file with pictures: the folders of features and results."""
    make_features(places[0], looks=LOOKS, strength=0.7)
    return places


def the_contender(results):
    rows, problems = read_stored(results, stored_files(results))
    assert not problems
    (contender,) = contenders_of(rows)
    return contender


def scores_there(results):
    (path,) = stored_files(results)
    return read_scores(path, read_row(path))


# ---------------------------------------------------------------------------- wrong answers


def test_wrong_answers_are_those_of_the_scores(places, capsys):
    features, results = places
    make_features(features, looks=LOOKS, groups=PATIENTS, strength=0.7)
    probed(capsys, "--kind linear --choose val")
    found = find_wrong(the_contender(results), People(features), most=200)
    arrays, file = scores_there(results), open_features(next(features.glob("*/*.h5")))
    answer = arrays["test_scores"].argmax(axis=1)
    wrong = np.flatnonzero(answer != arrays["test_labels"])
    order = sorted(wrong, key=lambda i: -arrays["test_scores"][i].max())
    assert (found.n, found.n_wrong) == (60, len(wrong))
    assert len(wrong) > 5
    assert [w.sample.id for w in found.shown] == arrays["test_ids"][order].tolist()
    names = [str(name) for name in arrays["class_names"]]
    assert [w.answer for w in found.shown] == [names[answer[i]] for i in order]
    assert [w.truth for w in found.shown] == [names[arrays["test_labels"][i]] for i in order]
    for w in found.shown:
        place = file.ids.tolist().index(w.sample.id)
        assert (w.sample.patient, w.sample.row, w.sample.split) == (PATIENTS[place], place, "test")


def test_where_nothing_is_wrong_no_picture_is_written(places, capsys, tmp_path):
    make_features(places[0], looks=LOOKS, strength=9)
    probed(capsys, "--kind linear --choose val")
    out = answered(capsys, "wrong", "-o", tmp_path / "wrong.png")
    assert "none of 60 answers is wrong, on test. There is nothing to draw" in out
    assert not (tmp_path / "wrong.png").exists()


@pytest.mark.parametrize(
    ("asked", "learnt"),
    [
        ("--choose val", slice(0, 120)),
        ("--choose val --refit train+val", slice(0, 160)),
        ("--choose cv", slice(0, 160)),
        ("--choose cv --refit train", slice(0, 120)),
        ("--shots 5 --episodes 2", slice(0, 120)),
    ],
)
def test_neighbours_are_a_plain_loops(toys, capsys, asked, learnt):
    features, results = toys
    probed(capsys, f"--kind linear {asked}")
    found = find_wrong(the_contender(results), People(features), k=4)
    file = open_features(next(features.glob("*/*.h5")))
    x = file.array(-1, "cls").astype(np.float64)
    ids = file.ids.tolist()
    assert found.shown
    for w in found.shown:
        own = x[ids.index(w.sample.id)]
        cosines = x[learnt] @ own / np.linalg.norm(x[learnt], axis=1) / np.linalg.norm(own)
        nearest = np.argsort(-cosines)[:4]
        assert [near.id for near in w.sample.neighbours] == [ids[i] for i in nearest]
        assert_allclose([n.similarity for n in w.sample.neighbours], cosines[nearest], atol=1e-5)
        labels = [file.class_names[file.labels[i]] for i in nearest]
        assert [near.label for near in w.sample.neighbours] == labels


def test_patients_are_marked_and_no_sample_is_its_own_neighbour(places, capsys):
    features, results = places
    make_features(features, looks=LOOKS, groups=PATIENTS, strength=0.0)
    probed(capsys, "--kind knn --k 1 --choose cv")
    found = find_wrong(the_contender(results), People(features), split="val", most=200)
    assert found.split == "train and val, out of fold"
    assert found.shown
    for w in found.shown:
        assert w.sample.id not in [n.id for n in w.sample.neighbours]
        for n in w.sample.neighbours:
            assert n.is_same_patient == (PATIENTS[int(n.id)] == w.sample.patient)


def test_a_twin_of_a_test_sample_is_marked(places, capsys):
    features, results = places
    twins = {200: (5, "exact"), 201: (6, "exact"), 210: (9, "near"), 211: (10, "near")}
    copies = {a: b for a, (b, kind) in twins.items() if kind == "exact"}
    near = {a: b for a, (b, kind) in twins.items() if kind == "near"}
    make_features(features, looks=Looks(copies, near), strength=0.0)
    probed(capsys, "--kind linear --choose val")
    found = find_wrong(the_contender(results), People(features), most=200)
    marked = {
        int(w.sample.id): (int(n.id), n.twin)
        for w in found.shown
        for n in w.sample.neighbours
        if n.twin
    }
    shown = {int(w.sample.id) for w in found.shown}
    assert marked == {a: of for a, of in twins.items() if a in shown}
    assert {kind for _, kind in marked.values()} == {"exact", "near"}


def labels_missing(labels):
    """Every tenth label of each class unknown."""
    return np.where(np.arange(labels.size).reshape(labels.shape) % 10, labels, MISSING)


@pytest.mark.parametrize("kind", ["ridge", "knn --k 5", "linear"])
@pytest.mark.parametrize("task", [BINARY, MULTI_LABEL])
def test_confidence_of_each_task_and_type_of_score(places, capsys, kind, task):
    features, results = places
    n_classes = 2 if task == BINARY else 3
    names = ("a", "b", "c")[:n_classes]
    some = labels_missing if task == MULTI_LABEL and kind != "ridge" else None  # it needs all
    make_features(features, task=task, n_classes=n_classes, class_names=names, labels=some)
    probed(capsys, f"--kind {kind} --choose val")
    found, arrays = (
        find_wrong(the_contender(results), People(features), most=500),
        scores_there(results),
    )
    scores, labels = arrays["test_scores"], arrays["test_labels"]
    cut = 0 if kind == "ridge" else 0.5
    said = scores > cut if task == MULTI_LABEL else scores[:, 1] > cut
    is_wrong = (said != labels) & (labels != MISSING)
    assert found.n_wrong == is_wrong.sum()
    assert found.n == (labels != MISSING).sum()
    yes = scores if task == MULTI_LABEL else scores[:, 1]
    no = 2 * cut - scores if task == MULTI_LABEL else scores[:, 0]
    expected = np.where(said, yes, no)[is_wrong]
    assert_allclose([w.confidence for w in found.shown], sorted(expected, reverse=True), atol=1e-6)
    assert found.is_margin == (kind == "ridge")
    if task == MULTI_LABEL:
        assert {w.truth.removeprefix("no ") for w in found.shown} <= {"a", "b", "c"}
        assert all(
            {w.truth, w.answer} == {c, f"no {c}"} for w in found.shown for c in [w.truth[-1]]
        )


def test_folds_are_one_gallery_and_each_has_its_own_train(toys, capsys):
    features, results = toys
    probed(capsys, "--kind linear --split kfold:3 --choose val")
    contender = the_contender(results)
    assert contender.is_of_folds
    found = find_wrong(contender, People(features), most=500)
    assert found.n == N
    test_of = {of.row.posed.fold: set(of.scores()["test_ids"]) for of in contender.rows}
    for w in found.shown:
        assert w.sample.id in test_of[w.fold]
        assert not test_of[w.fold] & {near.id for near in w.sample.neighbours}


def test_trainings_and_episodes_answer_by_their_mean(toys, capsys):
    features, results = toys
    probed(capsys, "--kind knn --k 1 --shots 3 --episodes 4")
    found, arrays = find_wrong(the_contender(results), People(features)), scores_there(results)
    mean = arrays["test_scores"].mean(axis=0)
    assert found.n_wrong == (mean.argmax(axis=1) != arrays["test_labels"]).sum()
    assert "mean of all episodes" in found.notes[0]


def test_of_a_volume_the_middle_slice_is_shown(places, capsys):
    features, results = places
    rows = np.repeat(np.arange(N), 3)
    make_features(features, looks=Looks(twins={200: 5}), row_sample=rows, strength=0.0)
    probed(capsys, "--kind knn --k 1 --choose val")
    found = find_wrong(the_contender(results), People(features), most=200, k=1)
    assert all(w.sample.row == 3 * int(w.sample.id) + 1 for w in found.shown)
    assert all(n.row == 3 * int(n.id) + 1 for w in found.shown for n in w.sample.neighbours)
    assert {w.sample.id for w in found.shown if w.sample.neighbours[0].twin} <= {"00200"}
    assert "middle one" in found.notes[0]


@pytest.mark.parametrize(
    ("asked", "learnt"),
    [
        ("--split 60/20/20 --kind linear --choose val", "132 images of train,"),
        ("--split 60/20/20 --kind linear", "176 images of train and val,"),
        ("--kind linear --choose val --train-data there --test-data toys", "120 images of train,"),
    ],
)
def test_what_was_learnt_from_under_other_splits(toys, capsys, asked, learnt):
    make_features(toys[0], "there", looks=LOOKS, seed=8)
    data = "" if "there" in asked else " --data toys"
    probed(capsys, asked + data)
    out = answered(capsys, "wrong", "--most", "3")
    assert f"nearest of {learnt}" in out
    assert "no neighbours" not in out


def test_a_trained_encoder_saw_other_features(toys, capsys):
    _, results = toys
    probed(capsys, "--kind linear --choose val --name mine")
    (path,) = stored_files(results)
    row = read_row(path)
    rewrite(path, probe=row["probe"] | {"kind": "finetune", "mode": "full"}, marks=["a mark"])
    out = answered(capsys, "wrong", "--most", "2")
    assert "of train, as the encoder saw them before its training, by cosine" in out
    assert "a mark" in out


@pytest.mark.parametrize(("words", "split"), [(["--split", "val"], "val"), (["--labels"], "train")])
def test_train_and_val_of_external_data_are_its_own(toys, capsys, words, split):
    make_features(toys[0], "there", looks=LOOKS, seed=8, groups=PATIENTS, strength=0.7)
    probed(capsys, "--kind linear --choose val --train-data there --test-data toys")
    out = answered(capsys, "wrong", "--most", "40", *words)
    assert re.search(r"^00\d+ .*p\d\d\d", out, re.M)  # there, patients are known
    assert "no neighbours" not in out
    assert split in out


def test_where_val_is_not_kept_nobody_knows_train(toys, capsys):
    probed(capsys, "--split 60/20/20 --kind linear --shots 4 --episodes 2")
    out = " ".join(answered(capsys, "wrong", "--most", "3").split())
    assert "no neighbours: which samples of toys were learnt from isn't kept" in out


# ---------------------------------------------------------------------------- hints


@pytest.mark.parametrize("asked", ["--choose cv", "--choose val"])
def test_swapped_labels_are_hinted_at(places, capsys, asked):
    features, results = places
    swapped = [3, 50, 130, 170]

    def labels(drawn):
        drawn[swapped] = (drawn[swapped] + 1) % 3
        return drawn

    make_features(features, looks=Looks(), strength=3.0, labels=labels)
    probed(capsys, f"--kind linear {asked}")
    found = label_hints(the_contender(results), People(features))
    ids = open_features(next(features.glob("*/*.h5"))).ids
    assert {h.sample.id for h in found.shown[:4]} == set(ids[swapped].tolist())
    assert found.n == N
    assert found.n_hints == sum(pair.n for pair in found.pairs) >= 4
    labels = open_features(next(features.glob("*/*.h5"))).labels
    assert all(p.n_given == (labels == int(p.given[-1])).sum() for p in found.pairs)
    assert list(found.notes) == list(the_contender(results).marks)


def test_without_train_scores_hints_say_how_to_get_them(toys, capsys):
    probed(capsys, "--kind linear --shots 5 --episodes 2")
    out = answered(capsys, "wrong", "--labels")
    assert "hints are of test alone. `probe --choose cv` stores" in " ".join(out.split())


def test_hints_of_several_labels_are_each_labels_own(places, capsys):
    features, results = places
    make_features(features, task=MULTI_LABEL, class_names=("a", "b", "c"), labels=labels_missing)
    probed(capsys, "--kind linear --choose val")
    found = label_hints(the_contender(results), People(features), most=500)
    assert found.n == 3 * N * 9 // 10
    assert all({h.given, h.likely} == {h.given[-1], f"no {h.given[-1]}"} for h in found.shown)


# ---------------------------------------------------------------------------- the command


def test_a_table_a_csv_and_pictures(toys, capsys, folder):
    probed(capsys, "--kind linear --choose val")
    out = answered(capsys, "wrong", "--most", "4")
    assert re.search(r"toy, .*: \d+ of 60 answers are wrong \(\d+\.\d%\), on test; 4 shown", out)
    assert "Beside each the 3 nearest of 120 images of train, by cosine at layer 1, cls." in out
    answered(capsys, "wrong", "--most", "4", "-o", "w.png", "--csv", "w.csv")
    lines = list(csv.DictReader(io.StringIO((folder / "w.csv").read_text())))
    assert len(lines) == 4
    assert "nearest 3 similarity" in lines[0]
    with Image.open(folder / "w.png") as sheet:
        assert sheet.size > (1000, 400)


def test_html_stands_alone_and_escapes(places, capsys, folder):
    make_features(places[0], looks=LOOKS, strength=0.3, class_names=("<b>a", "b&c", "é"))
    probed(capsys, "--kind linear --choose val")
    answered(capsys, "wrong", "--most", "5", "-o", "w.html")
    text = (folder / "w.html").read_text()
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert len(images) == 5 * 4
    assert Image.open(io.BytesIO(base64.b64decode(images[0]))).size == (8, 8)
    assert "&lt;b&gt;a" in text
    assert "<b>a" not in text


def test_files_without_thumbnails_leave_gaps(places, capsys, folder):
    make_features(places[0], strength=0.3)
    probed(capsys, "--kind linear --choose val")
    out = answered(capsys, "wrong", "-o", "w.html", "--most", "3", "--nearest", "3")
    assert "no pictures: toy_32" in out
    assert "has no thumbnails; make it anew" in out
    assert (folder / "w.html").read_text().count("<i") == 3 * 4
    answered(capsys, "wrong", "-o", "w.png")


def test_without_features_the_answers_stay(toys, capsys, tmp_path):
    probed(capsys, "--kind linear --choose val")
    out = answered(capsys, "wrong", "--features", str(tmp_path / "nowhere"), "--most", "3")
    assert "no pictures and patients" in out
    assert re.search(r"^00[12]\d\d", out, re.M)


def test_other_labels_than_then_have_no_neighbours(toys, capsys):
    features, _ = toys
    probed(capsys, "--kind linear --shots 4 --episodes 2")
    next(features.glob("*/*.h5")).unlink()
    make_features(features, looks=LOOKS, labels=np.arange(N)[::-1] % 3)
    out = " ".join(answered(capsys, "wrong", "--most", "3").split())
    assert "no neighbours: " in out
    assert "has other labels, or another split, by now" in out


REFUSED = {
    "numbers": ("--kind ridge --choose val", [], "predicts numbers, which are never right or wrong"),
    "patients": ("--kind linear --aggregate patient", [], "measures patients"),
    "test unread": ("--kind linear --layer all", [], "none of the 2 answers that fit has read test; --split val"),
    "no val": ("--kind linear --shots 2 --episodes 2", ["--split", "val"], "it has --split test"),
    "no train": ("--kind linear --shots 2 --episodes 2", ["--split", "train"],
                 "`probe --choose cv` scores train out of fold"),
    "train in val": ("--kind linear --choose cv", ["--split", "train"], "out of fold: --split val"),
    "margins": ("--kind ridge --choose val", ["--labels"], "name a row of knn or linear"),
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
def test_refusals_name_the_next_command(why, places, capsys):
    asked, words, said = REFUSED[why]
    more = {"task": REGRESSION, "class_names": ("age",)} if why == "numbers" else {}
    more |= {"labels": np.arange(N) // 2 % 3, "groups": PATIENTS} if why == "patients" else {}
    make_features(places[0], **more)
    probed(capsys, asked)
    assert said in " ".join(refused(capsys, "wrong", *words).split())


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (["--layer all", "--layer auto"], "Of 4 answers that fit, 2 of which haven't read test, "),
        (["--layer auto", "--layer 0", "--layer 1"], "this is the one whose layer was chosen"),
        (["--layer 0 --choose val", "--layer 1 --choose val"], "this is the best on val (auc "),
    ],
)
def test_of_several_answers_that_fit_the_chosen_one_is_shown(toys, capsys, asked, says):
    for words in asked:
        probed(capsys, f"--kind linear {words}")
    out = answered(capsys, "wrong", "--most", "1")
    assert says in out
    assert "answers are wrong" in out


def test_where_val_is_not_alike_and_no_layer_was_chosen_those_that_can_be_shown_are_named(
    toys, capsys
):
    for words in ("--layer all", "--layer 0 --choose val", "--layer 1 --choose cv"):
        probed(capsys, f"--kind linear {words}")
    assert "2 answers fit, and a gallery is of one; name it by --where" in refused(capsys, "wrong")


def test_a_rim_that_is_missing_is_said(toys, capsys, folder):
    probed(capsys, "--kind linear --choose val")
    said = answered(capsys, "wrong", "--most", "20", "-o", "w.html")
    cards = (folder / "w.html").read_text().split('<div class="card">')[1:]
    n_near = sum(card.count("<figure>") - 1 for card in cards)
    has_third = sum(card.count("border: 3px solid") for card in cards) < n_near
    assert has_third
    assert "orange ones of the other; images without a rim are of a third class." in said


@pytest.mark.parametrize(
    "words", ["--labels --split val", "--most 0", "--nearest 11", "-o w.pdf", "--split all"]
)
def test_flags_that_do_not_go_together(words, capsys):
    from probe.report.cli import main

    with pytest.raises(SystemExit) as end:
        main(["wrong", *words.split()])
    assert end.value.code == 2


def test_a_thumbnail_is_a_png(toys):
    file = open_features(next(toys[0].glob("*/*.h5")))
    with Image.open(io.BytesIO(thumbnail_png(file, 61))) as png:
        np.testing.assert_array_equal(np.asarray(png), picture(file, 61))


def test_looks_of_a_class(toys):
    found = class_looks(open_features(next(toys[0].glob("*/*.h5"))), per_class=3)
    assert [(of.name, of.n) for of in found] == [(f"class {c}", 40) for c in range(3)]
    assert found[1].rows == (1, 61, 118)
