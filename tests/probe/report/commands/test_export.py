"""`report export`: what other programs read is what the rows hold."""

import dataclasses
import importlib.util
import shutil

import numpy as np
import pandas as pd
import pytest
from answering import make_row
from looking import some
from reporting import answered, refused

from cache.format.sample_tables import SPLITS
from cache.task import BINARY
from probe import cli as probe_cli
from probe.metrics import classification
from probe.metrics.intervals import Interval
from probe.report import load_results
from probe.report.rows.medmnist import standard_files
from probe.report.rows.stored import StoredRow
from probe.results import write_row


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDPROBE_RESULTS", str(tmp_path / "results"))
    for seed in range(3):
        write_row(tmp_path / "results", make_row("knn", dataset='é, "x"', k=seed), "a, b")
    write_row(tmp_path / "results", make_row())
    return tmp_path


def test_csv_is_the_frame(results, capsys):
    path = results / "rows.csv"
    assert "4 rows" in answered(capsys, "export", "--format", "csv", "-o", path)
    frame, found = load_results(), pd.read_csv(path)
    assert list(found) == list(frame)
    for name in some(["data", "kind", "names", "id", "auc", "auc_high", "size", "n_test"]):
        assert found[name].dropna().tolist() == frame[name].dropna().tolist()
    assert answered(capsys, "export").encode() == path.read_bytes()
    assert answered(capsys, "export", "--kind", "linear").count("\n") == 2


def test_parquet_keeps_the_types(results, capsys):
    pytest.importorskip("pyarrow")
    path = results / "rows.parquet"
    answered(capsys, "export", "--format", "parquet", "-o", path)
    pd.testing.assert_frame_equal(pd.read_parquet(path), load_results())


def test_without_pyarrow_the_line_to_type_is_named(results, capsys, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "probe.report.commands.export.find_spec", lambda n: None if n == "pyarrow" else real(n)
    )
    err = refused(capsys, "export", "--format", "parquet", "-o", results / "rows.parquet")
    assert "pip install 'medprobe[export]'" in err
    assert not (results / "rows.parquet").exists()


@pytest.mark.parametrize("name", ["", "/dev/null", "results", "no/such/x.csv"])
@pytest.mark.parametrize("command", ["export", "table"])
def test_where_no_file_can_be_written_is_named(results, capsys, monkeypatch, command, name):
    monkeypatch.chdir(results)
    (line,) = refused(capsys, command, "-o", name).splitlines()
    assert (name or "-o takes a file") in line
    assert ".medprobe" not in line


@pytest.mark.parametrize("name", ["parquet", "medmnist"])
def test_where_to_write_is_asked_for(results, capsys, name):
    assert "-o" in refused(capsys, "export", "--format", name)


def test_rows_that_the_evaluator_cannot_read_are_named(results, capsys):
    err = refused(capsys, "export", "--format", "medmnist", "-o", results / "standard")
    assert err.count("left out") == 4
    assert "is no data set of MedMNIST" in err
    assert "nothing was written" in err
    assert not (results / "standard").exists()


# ------------------------------------------------------------------ MedMNIST's evaluator


def standard_row(scores, labels, score_type="probability", task=BINARY, **changed):
    """A row of scores as probe would measure them."""
    scores, labels = np.asarray(scores), np.asarray(labels)
    each = scores if scores.ndim == 3 else scores[None]
    decided = [classification.predict(s, task, score_type) for s in each]
    acc = [float((of == labels).mean()) for of in decided]
    auc = [float(classification.column_aucs(s, labels, task, score_type).mean()) for s in each]
    row = make_row("ridge", dataset="breastmnist")
    measured = dataclasses.replace(
        row.measured,
        test={n: Interval(np.mean(v), 0, 1) for n, v in (("acc", acc), ("auc", auc))},
        episodes={"acc": acc, "auc": auc} if scores.ndim == 3 else {},
    )
    arrays = {
        "test_ids": np.array([f"test/{i:06d}" for i in range(len(labels))]),
        "test_labels": labels,
        "test_scores": scores,
    }
    encoded = dataclasses.replace(row.encoded, task=task, **changed)
    answered = dataclasses.replace(row.answered, score_type=score_type)
    return StoredRow(
        dataclasses.replace(
            row, encoded=encoded, answered=answered, measured=measured, scores=arrays
        )
    )


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    """MedMNIST's own evaluator of a file, told the labels."""
    evaluator = pytest.importorskip("medmnist.evaluator")

    def run(of, labels):
        (made,) = standard_files(of)
        flag, _, rest = made.name.partition("_test_")
        np.savez(tmp_path / f"{flag}.npz", test_labels=np.asarray(labels).reshape(len(labels), -1))
        path = tmp_path / made.name
        path.write_text(made.text)
        monkeypatch.setattr(evaluator.Evaluator.__init__, "__defaults__", (None, str(tmp_path)))
        found = evaluator.Evaluator.parse_and_evaluate(str(path))
        # It writes what it found anew: under the same name, if the name is right.
        assert [p.name for p in tmp_path.glob("*.csv")] == [made.name]
        assert rest.endswith(".csv")
        return found

    return run


@pytest.mark.parametrize("score_type", ["probability", "margin"])
@pytest.mark.parametrize("source_size", [None, 28, 64])
def test_the_evaluator_finds_the_same(evaluate, score_type, source_size):
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    margins = rng.normal(size=40) + labels
    margins[:4] = [50, 60, -50, 1e4]  # which a logistic function makes equal
    scores = np.stack([-margins, margins], axis=1)
    if score_type == "probability":
        scores = 1 / (1 + np.exp(-np.clip(scores, -5, 5)))
    of = standard_row(scores, labels, score_type, key={"source_size": source_size})
    found = evaluate(of, labels)
    assert found.AUC == pytest.approx(of.row.measured.test["auc"].value, abs=1e-12)
    assert found.ACC == pytest.approx(of.row.measured.test["acc"].value, abs=1e-12)


def test_samples_stand_in_their_order(evaluate):
    labels, scores = np.array([0, 1, 1, 0, 1]), np.array([0.1, 0.7, 0.4, 0.2, 0.9])
    of = standard_row(np.stack([1 - scores, scores], axis=1), labels)
    order = np.array([3, 0, 4, 1, 2])
    arrays = {name: array[order] for name, array in of.row.scores.items()}
    mixed = dataclasses.replace(of, row=dataclasses.replace(of.row, scores=arrays))
    assert evaluate(mixed, labels) == evaluate(of, labels)


def test_each_episode_is_a_file():
    rng = np.random.default_rng(0)
    labels = np.arange(20) % 2
    scores = rng.random((3, 20, 1))
    of = standard_row(np.concatenate([1 - scores, scores], axis=2), labels)
    names = [made.name for made in standard_files(of)]
    assert len(set(names)) == 3
    for number, name in enumerate(names):
        assert f"[AUC]{of.row.measured.episodes['auc'][number]:.3f}_" in name
        assert name.endswith(f"-{number}.csv")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"target": {"target": "grade"}}, "other labels or another split"),
        ({"split": {"rule": "60/20/20", "seed": 0}}, "other labels or another split"),
        ({"dataset": "scans"}, "no data set of MedMNIST"),
        ({"ids": ["a", "b"]}, "aren't those of MedMNIST"),
        ({"ids": ["test/000000", "test/000002"]}, "aren't those of MedMNIST"),
        ({"score_type": "unnormalised"}, "don't sum to 1"),
    ],
)
def test_what_is_not_of_its_test_set_is_refused(changes, why):
    changes = dict(changes)
    of = standard_row([[0.1, 0.9], [0.8, 0.2]], [1, 0], changes.pop("score_type", "probability"))
    row = of.row
    if ids := changes.pop("ids", None):
        row = dataclasses.replace(row, scores={**row.scores, "test_ids": np.array(ids)})
    if dataset := changes.pop("dataset", None):
        row = dataclasses.replace(row, encoded=dataclasses.replace(row.encoded, dataset=dataset))
    row = dataclasses.replace(row, posed=dataclasses.replace(row.posed, **changes))
    with pytest.raises(Exception, match=why):
        list(standard_files(StoredRow(row)))


@pytest.mark.real
def test_official_files_are_evaluated_alike(real_data, tmp_path, capsys, monkeypatch):
    from features import make_features

    evaluator = pytest.importorskip("medmnist.evaluator")
    monkeypatch.setenv("MEDPROBE_FEATURES", str(tmp_path / "features"))
    monkeypatch.setenv("MEDPROBE_RESULTS", str(tmp_path / "results"))
    shutil.copy(real_data / "breastmnist.npz", tmp_path)
    with np.load(tmp_path / "breastmnist.npz") as file:
        labels = [file[f"{split}_labels"].ravel() for split in SPLITS]
        n = tuple(map(len, labels))
    ids = np.array(
        [f"{split}/{i:06d}" for split, k in zip(SPLITS, n, strict=True) for i in range(k)]
    )
    make_features(
        *(tmp_path / "features", "breastmnist"),
        n=n,
        n_classes=2,
        task=BINARY,
        labels=np.concatenate(labels),
        ids=ids,
        key={"source_size": 28},
    )
    for kind in ("knn", "ridge"):
        assert probe_cli.main(["--kind", kind, "--layer=-1", "--resamples", "20"]) == 0
    capsys.readouterr()
    answered(capsys, "export", "--format", "medmnist", "-o", tmp_path / "standard")
    monkeypatch.setattr(evaluator.Evaluator.__init__, "__defaults__", (None, str(tmp_path)))
    frame = load_results()
    for _, line in some(list(frame.iterrows())):
        (path,) = (tmp_path / "standard").glob(f"*{line.id[:8]}*")
        found = evaluator.Evaluator.parse_and_evaluate(str(path))
        assert found.AUC == pytest.approx(line.auc, abs=1e-12)
        assert found.ACC == pytest.approx(line.acc, abs=1e-12)
