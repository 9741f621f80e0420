"""The zero-shot probe against a slow obvious version, and as a command on images and texts."""

import math
from dataclasses import replace

import numpy as np
import probing
import pytest
from features import make_spec, make_text_spec, write_rows, write_units
from numpy.testing import assert_allclose, assert_array_equal
from probing import probe_file, rows

from cache.catalogue import find_text, text_differences
from cache.errors import CacheMiss, RequestError
from cache.features import open_features
from cache.format.key import partial_path
from cache.format.spec import Samples
from cache.store import FeatureWriter
from cache.task import BINARY, MULTI_CLASS, MULTI_LABEL, ORDINAL
from probe.cli import main
from probe.config import ProbeConfig
from probe.kinds.zeroshot import Zeroshot, class_vectors, n_text_classes, scores
from probe.places import PlacesConfig


def slow_scores(images, prompts, labels, n_classes, scale, task):
    """Loops over images and classes, one number at a time."""

    def unit(x):
        length = math.sqrt(sum(float(v) ** 2 for v in x))
        return [float(v) / length if length else 0.0 for v in x]

    n_vectors = 2 * n_classes if task == MULTI_LABEL else n_classes
    vectors = []
    for c in range(n_vectors):
        units = [unit(p) for p, label in zip(prompts, labels, strict=True) if label == c]
        vectors.append(unit([sum(column) / len(units) for column in zip(*units, strict=True)]))
    rows = []
    for image in images:
        cosines = [sum(a * b for a, b in zip(unit(image), v, strict=True)) for v in vectors]
        powers = [math.exp(scale * cosine) for cosine in cosines]
        if task == MULTI_LABEL:
            pairs = zip(powers[:n_classes], powers[n_classes:], strict=True)
            rows.append([yes / (yes + no) for yes, no in pairs])
        else:
            rows.append([power / sum(powers) for power in powers])
    return np.array(rows)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("task", "n_classes"), [(MULTI_CLASS, 5), (ORDINAL, 5), (BINARY, 2), (MULTI_LABEL, 3)]
)
@pytest.mark.parametrize("n_prompts", [1, 4])
def test_equal_to_the_slow_version(task, n_classes, n_prompts, dtype):
    rng = np.random.default_rng(0)
    images = rng.normal(0.3, 5, (40, 12)).astype(dtype)
    n_vectors = n_text_classes(task, n_classes)
    labels = rng.permutation(np.repeat(np.arange(n_vectors), n_prompts))
    prompts = rng.normal(0.3, 2, (len(labels), 12)).astype(dtype)
    found = scores(images, class_vectors(prompts, labels, n_vectors), 100.0, task)
    expected = slow_scores(images, prompts, labels, n_classes, 100.0, task)
    assert found.dtype == np.float64
    assert found.shape == (40, n_classes)
    assert_allclose(found, expected, rtol=1e-9, atol=1e-300)
    if task != MULTI_LABEL:
        assert_allclose(found.sum(axis=1), 1)


def test_four_directions_that_can_be_seen_by_eye():
    vectors = class_vectors(np.array([[0, 5], [3, 0]]), np.array([1, 0]), 2)
    assert vectors.tolist() == [[1, 0], [0, 1]]
    found = scores(np.array([[2, 0], [0, 9], [1, 1], [-4, 0]]), vectors, math.log(3), MULTI_CLASS)
    assert_allclose(found, [[3 / 4, 1 / 4], [1 / 4, 3 / 4], [1 / 2, 1 / 2], [1 / 4, 3 / 4]])


def test_a_long_prompt_counts_no_more_than_a_short_one():
    vectors = class_vectors(np.array([[100, 0], [0, 1]]), np.array([0, 0]), 1)
    assert_allclose(vectors, [[0.5**0.5, 0.5**0.5]])


def test_zeros_resemble_nothing():
    prompts = np.array([[1, 0], [0, 0], [0, 1], [0, 0]])
    vectors = class_vectors(prompts, np.array([0, 0, 1, 2]), 3)
    assert vectors.tolist() == [[1, 0], [0, 1], [0, 0]]
    assert_allclose(scores(np.zeros((1, 2)), vectors, 50.0, MULTI_CLASS), 1 / 3)
    (found,) = scores(np.array([[1, 0]]), vectors, 1.0, MULTI_CLASS)
    assert_allclose(found[1:], 1 / (2 + math.e))


def test_a_large_scale_neither_overflows_nor_loses_the_order():
    vectors = class_vectors(np.array([[1, 0], [-1, 0]]), np.array([0, 1]), 2)
    images = np.array([[1, 0], [1, 1], [-1, 0]])
    found = scores(images, vectors, 300.0, MULTI_LABEL)[:, 0]
    assert found[0] == 1.0
    assert 0 < found[2] < 1e-250
    assert_allclose(scores(images, vectors, 1e4, MULTI_CLASS)[2], [0, 1])


def test_chunks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(50, 8)).astype(np.float16)
    vectors = class_vectors(rng.normal(size=(6, 8)), np.arange(6) % 3, 3)
    whole = scores(images, vectors, 100.0, MULTI_CLASS)
    monkeypatch.setattr("probe.kinds.zeroshot.CHUNK_ROWS", 7)
    assert_allclose(scores(images, vectors, 100.0, MULTI_CLASS), whole, rtol=1e-12)


def test_what_has_no_answer_is_refused():
    vectors = np.eye(3)
    with pytest.raises(
        RequestError, match=r"texts have 3 features, found images of shape \(5, 4\)"
    ):
        scores(np.ones((5, 4)), vectors, 100.0, MULTI_CLASS)
    with pytest.raises(RequestError, match="inf or nan in image 4098"):
        scores(np.array([[1.0] * 3] * 4098 + [[np.nan] * 3]), vectors, 100.0, MULTI_CLASS)
    for scale in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(RequestError, match="logit scale is positive and finite"):
            scores(np.ones((5, 3)), vectors, scale, MULTI_CLASS)
    with pytest.raises(RequestError, match="class 1 of 3 has no prompt"):
        class_vectors(np.ones((2, 3)), np.array([0, 2]), 3)
    with pytest.raises(RequestError, match=r"labels lie in 0\.\.1, found 0\.\.2"):
        class_vectors(np.ones((2, 3)), np.array([0, 2]), 2)
    with pytest.raises(RequestError, match=r"features of shape \(3, 3\) and 2 labels"):
        class_vectors(np.ones((3, 3)), np.array([0, 1]), 2)


# ---------------------------------------------------------------------------- as a command


DIRECTIONS = np.random.default_rng(5).normal(size=(8, 6))  # of classes, then of negatives


def write_images(root, n=(20, 30, 50), task=MULTI_CLASS, n_classes=3, name="a" * 12, **changes):
    """Images whose proj points where the prompts of their class do."""
    rng = np.random.default_rng(1)
    total = sum(n)
    labels = np.arange(total) % n_classes
    proj = DIRECTIONS[labels]
    if task == MULTI_LABEL:
        labels = rng.integers(0, 2, (total, n_classes))
        signs = np.where(labels == 1, np.arange(n_classes), n_classes + np.arange(n_classes))
        proj = DIRECTIONS[signs].sum(axis=1)
    proj = proj + rng.normal(size=(total, 6))
    key = changes.pop("key", {})
    arrays = {"layers/00/mean": 6, "head": 6, "proj": 6}
    spec = replace(
        make_spec(n_rows=total, arrays=arrays, weights="sha256:1", **key),
        samples=Samples(
            np.array([f"{i:03d}" for i in range(total)]),
            np.repeat(np.arange(3, dtype=np.uint8), n),
            labels,
        ),
        task=task,
        class_names=tuple("abcdefgh"[:n_classes]),
        **changes,
    )
    return write_rows(
        root / spec.dataset / f"{spec.model}_8_{name}.h5", spec, dict.fromkeys(arrays, proj)
    )


def write_text(root, labels=(0, 0, 1, 2, 2), names="abc", name="b" * 12, **settings):
    """Prompts that point where their class does."""
    spec = make_text_spec(labels, names, weights="sha256:1", **settings)
    proj = 7 * DIRECTIONS[list(labels)] + np.random.default_rng(2).normal(size=(len(labels), 6))
    return write_rows(root / spec.dataset / f"toy_text_{name}.h5", spec, {"proj": proj})


@pytest.fixture
def root(tmp_path):
    return tmp_path / "features"


@pytest.fixture
def results(tmp_path):
    return tmp_path / "results"


def run(capsys, words):
    return probing.run(capsys, f"--kind zeroshot {words}")


def test_the_scores_are_those_of_the_files(root, results, capsys):
    images, text = (open_features(write(root)) for write in (write_images, write_text))
    run(capsys, "")
    expected = slow_scores(
        images.array(-1, "proj"), text.array(-1, "proj"), text.labels, 3, 100.0, MULTI_CLASS
    )
    with np.load(next(results.glob("*/*.npz"))) as stored:
        assert_allclose(stored["val_scores"], expected[20:50], rtol=1e-6, atol=1e-30)
        assert_allclose(stored["test_scores"], expected[50:], rtol=1e-6, atol=1e-30)
        assert_array_equal(stored["test_labels"], images.labels[50:])


def test_no_training_image_is_needed(root, results, capsys):
    write_images(root, n=(0, 0, 40))
    write_text(root)
    status, _, err = run(capsys, "")
    assert (status, err) == (0, "")
    assert rows()[0]["val_metrics"] == {}
    write_images(root, n=(40, 20, 0), dataset="others")
    write_text(root, dataset="others")
    assert "toy on others: others has no test images" in run(capsys, "--data others")[2]


def test_test_labels_change_no_score(root):
    images = open_features(write_images(root))
    write_text(root)
    (row,) = probe_file(ProbeConfig(Zeroshot()), images)
    images.__dict__["labels"] = np.zeros_like(images.labels)
    (again,) = probe_file(ProbeConfig(Zeroshot()), images)
    assert_array_equal(again.scores["test_scores"], row.scores["test_scores"])


def test_without_texts_the_command_that_makes_them_is_named(root, capsys):
    write_images(
        root,
        command="extract --model toy --size 8 --data 'npz:my set.npz' --weights toy.pt --layers 1",
    )
    status, _, err = run(capsys, "")
    assert status == 1
    assert "no text features of toy.random on toys in " in err
    assert (
        "make them with: extract --text --model toy --data 'npz:my set.npz' --weights toy.pt\n"
    ) in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["", "made by 'hand"])
def test_a_command_that_is_none_costs_nothing(root, capsys, command):
    write_images(root, command=command)
    assert "extract --text --model toy --data toys\n" in run(capsys, "")[2]


@pytest.mark.parametrize(
    "changes", [{"encoder": "toy.other"}, {"key": {"weights": "sha256:2"}}, {"dataset": "others"}]
)
def test_texts_of_something_else_are_not_taken(root, capsys, changes):
    images = write_images(root)
    text = write_text(root)
    spec = replace(
        make_text_spec((0, 1, 2), **{"weights": "sha256:1", **changes.pop("key", {})}), **changes
    )
    text.unlink()
    write_rows(text, spec, {"proj": DIRECTIONS[:3]})
    status, _, err = run(capsys, "")
    assert status == 1
    assert "no text features of toy.random on toys" in err
    (difference,) = text_differences(open_features(images), open_features(text))
    status, _, err = run(capsys, f"--text {text}")
    assert status == 1
    assert f"doesn't belong to {images.name} ({difference})" in err


def test_of_two_text_files_one_is_chosen_by_path(root, results, capsys):
    write_images(root)
    one = write_text(root, prompts=["a photo of {}"])
    two = write_text(root, name="c" * 12, prompts=["a slide of {}", "x" * 500])
    status, _, err = run(capsys, "")
    assert status == 1
    assert "several text files of toy on toys" in err
    assert f"{one} -> {two}" in err
    assert 'text.prompts: ["a photo of {}"] -> ["a slide of {}", "xxx' in err
    assert max(map(len, err.splitlines()[2:])) < 170
    assert "choose one with --text FILE" in err
    assert not rows()
    assert run(capsys, f"--text {one}")[0] == 0
    assert run(capsys, f"--text {two}")[0] == 0
    assert len({row["id"] for row in rows()}) == 2


def test_texts_that_are_not_ready_are_named(root, capsys):
    images = open_features(write_images(root))
    path = root / "toys" / "toy_text_bbbbbbbbbbbb.h5"
    with FeatureWriter(path, make_text_spec([0, 1, 2] * 100, weights="sha256:1")) as writer:
        write_units(writer, [0])
    with pytest.raises(CacheMiss, match="1 of 2 units are done") as error:
        find_text(images)
    assert "make them with" not in str(error.value)
    partial_path(path).write_text("damaged")
    (root / "toys" / "._toy_text_a.h5").write_text("left by macOS")
    with pytest.raises(CacheMiss, match=r"not a readable feature file(.|\n)*make them with"):
        find_text(images)


def test_images_without_a_projection(root, capsys):
    from features import write_file

    write_file(root / "toys" / "toy_8_dddddddddddd.h5", make_spec())
    status, _, err = run(capsys, "")
    assert status == 1
    assert "toy_8_dddddddddddd.h5 has no proj, only cls, mean, head: toy.random has no proj" in err
    assert err.count("\n") == 1


def test_widths_that_differ(root, capsys):
    write_images(root)
    spec = make_text_spec((0, 1, 2), "abc", width=5, weights="sha256:1")
    write_rows(root / "toys" / "toy_text_e.h5", spec, {"proj": np.ones((3, 5))})
    assert "texts have 5 features, found images of shape (30, 6)" in run(capsys, "")[2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"names": "acb"}, "should have prompts for a, b, c; found a, c, b"),
        ({"names": "abcd", "labels": (0, 1, 2, 3)}, "found a, b, c, d"),
        ({"labels": (0, 2, 2)}, "class 1 of 3 has no prompt"),
        ({"notes": {}}, "a number as its note logit_scale, found None"),
        ({"notes": {"logit_scale": "100"}}, "found '100'"),
        ({"notes": {"logit_scale": -1.0}}, "logit scale is positive and finite, found -1.0"),
    ],
)
def test_texts_that_no_probe_could_use(root, results, capsys, settings, message):
    write_images(root)
    write_text(root, **settings)
    status, _, err = run(capsys, "")
    assert status == 1
    assert message in err
    assert err.count("\n") == 1
    assert not rows()


def test_several_labels_need_their_negatives(root, capsys):
    write_images(root, task=MULTI_LABEL)
    write_text(root)
    assert "should have prompts for a, b, c, then their negatives" in run(capsys, "")[2]


def test_files_by_path(root, results, capsys):
    images, text = write_images(root), write_text(root)
    assert run(capsys, f"{images}")[0] == 0
    status, _, err = run(capsys, f"{text} {images}")
    assert status == 1
    assert (
        f"{text.name}: {text} holds text features; use --kind zeroshot with the image file" in err
    )
    assert len(rows()) == 1
    assert (
        f"--text takes a text file, and {images} holds images" in run(capsys, f"--text {images}")[2]
    )
    assert "no features at nowhere.h5" in run(capsys, "--text nowhere.h5")[2]


@pytest.mark.parametrize("kind", ["knn --k 5", "linear"])
def test_the_other_kinds_refuse_texts_and_know_proj(root, results, capsys, kind):
    write_images(root)
    text = write_text(root)
    assert main(f"--kind {kind} {text}".split()) == 1
    err = capsys.readouterr().err
    assert f"probe: {text} holds text features; use --kind zeroshot with the image file" in err
    assert err.count("\n") == 1
    assert main(f"--kind {kind} --pool proj".split()) == 0
    (row,) = rows()
    assert (row["probe"]["pool"], row["probe"]["layer"]) == ("proj", 1)


def test_proj_alone_is_the_last_layer(root):
    path = root / "toys" / "toy_8_f.h5"
    spec = make_spec(n_rows=9, arrays={"proj": 6})
    features = open_features(write_rows(path, spec, {"proj": DIRECTIONS[[0] * 9]}))
    assert features.find_layer(-1) == 1
    assert features.array(-1, "proj").shape == (9, 6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--layer 3", "--layer belongs to --kind knn or linear or "),
        (
            "--layer all --all-test",
            "--layer belongs to --kind knn or linear or ",
        ),
        ("--all-test", "--all-test belongs to --kind knn or linear or "),
        ("--k 5", "--k belongs to --kind knn or segment-knn, not to zeroshot"),
        (
            "--strengths 1",
            "--strengths belongs to --kind linear or stack or segment, not to zeroshot",
        ),
        ("--pool cls", "takes --pool proj, not cls"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(capsys, words, message):
    with pytest.raises(SystemExit) as end:
        main(f"--kind zeroshot {words}".split())
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert message in said
    assert said.count("\n") == 1


def test_text_belongs_to_zeroshot(capsys):
    with pytest.raises(SystemExit):
        main("--kind knn --text a.h5".split())
    assert "--text belongs to --kind zeroshot, not to knn" in capsys.readouterr().err
    with pytest.raises(RequestError, match="zeroshot"):
        ProbeConfig(Zeroshot(), places=PlacesConfig(0))
