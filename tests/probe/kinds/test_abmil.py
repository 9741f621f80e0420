"""`--kind abmil` as it is typed: rows of volumes, whose deciding slice it finds and stores."""

import json

import numpy as np
import pytest
from answering import scores_file
from features import make_features, make_spec, write_rows
from numpy.testing import assert_allclose
from probing import answered, refused, rows
from reporting import answered as reported

from cache.features import open_features
from cache.format.spec import HASH, THUMBNAIL
from cache.task import MISSING, MULTI_LABEL
from probe.report.findings.wrong import find_wrong
from probe.report.rows.contenders import contenders_of
from probe.report.rows.people import People
from probe.report.rows.stored import read_stored, stored_files
from probe.report.rows.typed import lines_of

N = (150, 60, 60)
SHORT = "--kind abmil --iterations 120 --seeds 0 --lr 0.01 --hidden 16"


def make_volumes(root, dataset="toys", seed=0, turned=False, **fields):
    """One slice of 1 to 7 decides, whose place is returned; ``turned``: rows aren't in order."""
    rng = np.random.default_rng(seed)
    total = sum(N)
    counts = rng.integers(1, 8, total)
    labels = np.arange(total) % 3
    starts = np.cumsum(counts) - counts
    deciding = starts + rng.integers(0, counts)
    sample = np.repeat(np.arange(total), counts)
    x = rng.normal(size=(len(sample), 6))
    x[deciding, 0] = 6
    x[deciding, 1:3] = np.array([[2, 0], [-2, 2], [-2, -2]])[labels]
    ids = np.array([f"v{i:03d}" for i in range(total)])
    row_ids = np.array([f"{ids[s]}/{i - starts[s]}" for i, s in enumerate(sample)])
    pictures = rng.integers(0, 250, (len(x), 64), dtype=np.uint8)
    order = rng.permutation(len(x)) if turned else np.arange(len(x))
    content = {"layers/00/cls": x, "layers/01/cls": x + 1, "head": x}
    content |= {HASH: rng.integers(0, 255, (len(x), 16), dtype=np.uint8), THUMBNAIL: pictures}
    content = {name: values[order] for name, values in content.items()}
    about = {
        "split": np.repeat(np.arange(3, dtype=np.uint8), N),
        "labels": labels,
        "ids": ids,
        "row_ids": row_ids[order],
        "row_sample": sample[order],
        "encoder": "toy.full",
        "size": 32,
        "key": {"model": "toy", "dataset": dataset, "slices": {"axis": 0}},
        **fields,
    }
    arrays = {name: values.shape[1] for name, values in content.items()}
    spec = make_spec(len(x), arrays, dataset=dataset, model="toy", **about)
    write_rows(root / dataset / "toy_32_000000000000.h5", spec, content)
    return row_ids[deciding]


def pair(results):
    """The rows of attention and of the mean, with their arrays."""
    found = {}
    for path in results.glob("*/*.json"):
        row = json.loads(path.read_text())
        with np.load(scores_file(path)) as arrays:
            found[row["probe"]["pooling"]] = row, dict(arrays)
    return found["gated"], found["mean"]


@pytest.mark.parametrize(("choose", "turned"), [("--choose val", False), ("--choose cv", True)])
def test_attention_finds_the_slice_and_is_better_than_the_mean(places, capsys, choose, turned):
    features, results = places
    deciding = make_volumes(features, turned=turned)
    answered(capsys, f"{SHORT} {choose} --weight-decay 0.1,0.01")
    (gated, arrays), (mean, of_mean) = pair(results)
    acc, of_means = (row["metrics"]["acc"]["value"] for row in (gated, mean))
    assert acc > 0.9
    assert acc > of_means + 0.1
    same = [name for name in gated["probe"] if gated["probe"][name] == mean["probe"][name]]
    assert set(gated["probe"]) - set(same) == {"pooling"}
    assert "aggregate" not in gated["probe"]
    assert "rows_attention" not in of_mean
    assert gated["chosen"]["weight_decay"] in (0.1, 0.01)
    n_inputs, n_classes = 6 + 1, 3
    assert mean["cost"]["trained_parameters"] == n_inputs * n_classes
    assert gated["cost"]["trained_parameters"] == n_inputs * (n_classes + 2 * 16) + 16

    file = open_features(next(features.glob("*/*.h5")))
    test_ids = arrays["test_ids"]
    assert [*dict.fromkeys(arrays["rows_sample"])] == test_ids.tolist()
    stored = dict(zip(file_rows(file), file.ids[file.row_sample], strict=True))
    assert [stored[row] for row in arrays["rows_ids"]] == arrays["rows_sample"].tolist()
    assert len(arrays["rows_ids"]) == np.isin(file.ids[file.row_sample], test_ids).sum()
    found = []
    for name in test_ids:
        own = arrays["rows_sample"] == name
        assert_allclose(arrays["rows_attention"][own].sum(), 1, atol=1e-5)
        found.append(arrays["rows_ids"][own][arrays["rows_attention"][own].argmax()])
    assert np.mean(np.array(found) == deciding[-N[2] :]) > 0.9


def file_rows(file):
    from cache.format.read import read_table

    return read_table(file.header, "rows/ids").tolist()


def test_the_order_of_a_file_s_rows_changes_nothing(places, capsys):
    scores = []
    for turned in (False, True):
        make_volumes(places[0] / str(turned), turned=turned)
        results = places[1] / str(turned)
        where = f"--features {places[0] / str(turned)} --results {results}"
        # Dropout goes by the order of rows.
        answered(capsys, f"{SHORT} --dropout 0 --weight-decay 0.1 --choose val {where}")
        scores.append([arrays["test_scores"] for _, arrays in pair(results)])
    assert_allclose(scores[0], scores[1], atol=1e-4)


def test_folds_sites_and_left_out_samples_pick_bags(places, capsys):
    labels = np.where(np.arange(sum(N)) % 10, np.arange(sum(N)) % 3, MISSING)
    make_volumes(places[0], labels=labels)
    answered(capsys, f"{SHORT} --weight-decay 0.1 --split kfold:3 --choose val")
    found = [row for row in rows() if row["probe"]["pooling"] == "gated"]
    assert sum(row["n"]["test"] for row in found) == (labels != MISSING).sum()
    assert all(row["metrics"]["acc"]["value"] > 0.85 for row in found)


def test_external_bags_are_those_of_the_other_file(places, capsys):
    make_volumes(places[0], "here")
    deciding = make_volumes(places[0], "there", seed=1, turned=True)
    words = f"{SHORT} --weight-decay 0.1 --choose val --train-data here --test-data there"
    answered(capsys, words)
    (gated, arrays), _ = pair(places[1])
    assert gated["metrics"]["acc"]["value"] > 0.85
    first = [arrays["rows_sample"].tolist().index(name) for name in arrays["test_ids"]]
    ends = np.append(first[1:], len(arrays["rows_sample"]))
    largest = [a + arrays["rows_attention"][a:b].argmax() for a, b in zip(first, ends, strict=True)]
    assert np.mean(arrays["rows_ids"][largest] == deciding[-len(first) :]) > 0.85


def test_seeds_are_a_contender_and_no_seed_changes_another(places, capsys):
    make_volumes(places[0])
    short = (
        "--kind abmil --iterations 20 --hidden 4 --choose val --weight-decay 0.1 --lr 0.01,0.001"
    )
    answered(capsys, f"{short} --seeds 2,1")
    both = {row["id"]: row["metrics"] for row in rows()}
    assert len(both) == 4
    answered(capsys, f"{short} --seeds 1 --results {places[1]}_one")
    for row in rows(places[1].with_name("results_one")):
        assert both[row["id"]] == row["metrics"]
    stored, _ = read_stored(places[1], stored_files(places[1]))
    assert sorted(len(c.rows) for c in contenders_of(stored)) == [2, 2]
    out = reported(capsys, "compare", "pooling=gated", "pooling=mean")
    assert "(toy, 32 px, abmil, pooling gated | pooling mean, 2 trainings, layer 1 cls)" in out
    answered(capsys, "--kind linear --choose val")  # has no seeds, and so one training
    assert "pooling gated | -, 2 trainings | -" in reported(
        capsys, "compare", "pooling=gated", "kind=linear"
    )


def test_layers_are_compared_without_test(places, capsys):
    make_volumes(places[0])
    answered(capsys, f"{SHORT} --weight-decay 0.1 --layer all --choose val")
    found = rows()
    assert len(found) == 4
    assert not any("test" in row["metrics"] or row["metrics"] for row in found)


def test_each_pooling_has_its_best_layer(places, capsys):
    make_volumes(places[0])
    words = f"{SHORT} --iterations 20 --weight-decay 0.1 --lr 0.01,0.003 --layer auto --choose val"
    answered(capsys, words)
    found = rows()
    assert sorted(row["probe"]["pooling"] for row in found) == ["gated", "gated", "mean", "mean"]
    assert sum("place_chosen" in row["probe"] for row in found) == 2
    lines = [str(line) for line in lines_of(read_stored(places[1], stored_files(places[1]))[0])]
    for line in lines:
        answered(capsys, [*line.split()[1:], "--results", f"{places[1]}_again"])
    again = rows(places[1].with_name("results_again"))
    assert {row["id"] for row in again} == {row["id"] for row in found}


def test_settings_that_diverge_are_not_chosen(places, capsys):
    make_volumes(places[0])
    words = "--kind abmil --iterations 20 --hidden 4 --seeds 0 --weight-decay 0 --choose val"
    answered(capsys, f"{words} --lr 0.01,1e38")
    for row in rows():
        assert row["chosen"]["lr"] == 0.01
        assert row["chosen"]["val_log_loss"][1] is None
        assert "1 of 2 settings diverged" in row["marks"]
    assert "training diverged; name smaller" in refused(capsys, f"{words} --lr 1e38")


def test_layers_side_by_side(places, capsys):
    make_volumes(places[0])
    answered(capsys, f"{SHORT} --weight-decay 0.1 --layer 0+1 --choose val")
    (gated, _), _ = pair(places[1])
    assert gated["metrics"]["acc"]["value"] > 0.85
    assert gated["cost"]["trained_parameters"] == (12 + 1) * (3 + 2 * 16) + 16


def test_several_labels_of_which_some_are_missing(places, capsys):
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, (sum(N), 2))
    labels[::7, 0] = MISSING
    make_volumes(places[0], task=MULTI_LABEL, labels=labels, class_names=("a", "b"))
    answered(capsys, f"{SHORT} --iterations 20 --weight-decay 0.1 --choose val")
    assert len(rows()) == 2


def test_the_slice_that_decided_is_shown(places, capsys, folder):
    features, results = places
    make_volumes(features, turned=True)
    answered(capsys, f"{SHORT} --seeds 0,1 --iterations 30 --weight-decay 0.1 --choose val")
    stored, _ = read_stored(results, stored_files(results))
    gated, mean = contenders_of(stored)
    if gated.first.row.answered.settings["pooling"] == "mean":
        gated, mean = mean, gated
    file = open_features(next(features.glob("*/*.h5")))
    names = np.array(file_rows(file))
    weights = np.mean([of.scores()["rows_attention"] for of in gated.rows], axis=0)
    arrays = gated.first.scores()
    found = find_wrong(gated, People(features), most=50)
    assert len(found.shown) > 3
    for w in found.shown:
        own = np.flatnonzero(arrays["rows_sample"] == w.sample.id)
        best = own[weights[own].argmax()]
        assert names[w.sample.row] == arrays["rows_ids"][best]
        in_file = np.flatnonzero(file.ids[file.row_sample] == w.sample.id)
        at = w.sample.attended
        assert at is not None
        assert in_file[at.number - 1] == w.sample.row == at.row
        assert (at.n, at.weight) == (len(own), pytest.approx(weights[best]))
    assert "the largest attention is shown, of others the middle one" in " ".join(found.notes)
    of_means = find_wrong(mean, People(features))
    assert {w.sample.attended for w in of_means.shown} == {None}
    assert "the middle one is shown" in " ".join(of_means.notes)
    words = ["wrong", "--where", "pooling=gated", "--most", "2"]
    out = reported(capsys, *words)
    first = found.shown[0].sample.attended
    assert first is not None
    assert f"{first.number}" in out
    assert "attention" in out
    assert "abmil, pooling gated, 2 trainings" in out
    reported(capsys, *words, "-o", "w.html", "--csv", "w.csv")
    assert f"row {first.number} of {first.n}: attention 0." in (folder / "w.html").read_text()
    assert "attention" in (folder / "w.csv").read_text()


REFUSED = {
    "one row": ({}, "", "each sample of toys is one row, so there is nothing to attend to; use --kind linear"),
    "aggregate": (None, "--aggregate max", "reads each row of a sample, so --aggregate max has no use"),
    "shots": (None, "--shots 3", "--kind linear --shots takes the mean of each sample's rows"),
    "numbers": ({"task": "regression"}, "", "tells classes apart"),
    "one class": ({"labels": np.zeros(220, int), "row_sample": np.repeat(np.arange(220), 2)}, "", "found only class 0"),
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
def test_refusals_name_the_cure(places, capsys, why):
    fields, words, said = REFUSED[why]
    if fields is None:
        make_volumes(places[0])
    else:
        make_features(places[0], **fields)
    if why in ("aggregate", "shots"):
        with pytest.raises(SystemExit):
            answered(capsys, f"--kind abmil {words}")
        found = capsys.readouterr().err
    else:
        found = refused(capsys, f"--kind abmil {words}")
    assert said in " ".join(found.split())


def test_the_search_has_a_seed_of_its_own(places, capsys):
    """So that a row doesn't depend on which other seeds were asked for."""
    make_volumes(places[0])
    words = "--kind abmil --iterations 20 --lr 0.01 --weight-decay 0.1,0.01 --hidden 4"
    chosen = []
    for seed in (3, 5):
        answered(capsys, f"{words} --seeds {seed} --results {places[1] / str(seed)}")
        gated, _ = pair(places[1] / str(seed))
        chosen.append(gated[0]["chosen"])
    assert chosen[0] == chosen[1]
