"""Rows and scores as DataFrames: every value is the row's, and types hold where values are missing."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from answering import make_earlier, make_row, scores_file
from looking import some

from cache.errors import RequestError
from probe.report import load_results, scores_of
from probe.report.rows.fields import FIELDS
from probe.report.rows.frame import COUNTS, NUMBERS, make_frame
from probe.report.rows.stored import read_stored, stored_files
from probe.results import read_row, write_row


def with_scores(row, **arrays):
    return dataclasses.replace(row, scores=arrays)


def with_task(row, task):
    return dataclasses.replace(row, encoded=dataclasses.replace(row.encoded, task=task))


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A probe, a training, a few-shot row and a row of numbers."""
    monkeypatch.setenv("MEDPROBE_RESULTS", str(tmp_path))
    regression = make_row("ridge", dataset="numbers")
    measured = dataclasses.replace(regression.measured, test={}, val={"mae": 0.25})
    for row in (
        make_row("knn", k=5),
        make_row("finetune", mode="full", training_seed=3),
        make_row(few_shot={"shots": 5, "episodes": 2}),
        dataclasses.replace(with_task(regression, "regression"), measured=measured, marks=()),
    ):
        write_row(tmp_path, row, "mine" if row.answered.kind == "knn" else "")
    return tmp_path


def test_a_line_holds_what_its_row_says(results):
    frame = load_results()
    rows, _ = read_stored(results, stored_files(results))
    assert len(frame) == len(rows) == 4
    for (_, line), of in zip(frame.iterrows(), rows, strict=True):
        for field in some(FIELDS):
            wanted, found = field.of(of), line[field.name]
            if field.name == "written":
                assert abs(found.timestamp() - of.written) <= 0.5
            elif wanted is None:
                assert pd.isna(found)
            else:
                assert found == wanted, field.name
        m = of.row.measured
        for name in ("acc", "auc", "mae"):
            for end in ("value", "low", "high") if name in m.test else ():
                column = name if end == "value" else f"{name}_{end}"
                np.testing.assert_equal(line[column], getattr(m.test[name], end))
            if name not in m.test and name in frame:
                assert math.isnan(line[name])
            np.testing.assert_equal(line[f"val_{name}"], m.val.get(name, math.nan))
        assert (line.marks is pd.NA) if not of.row.marks else line.marks == "; ".join(of.row.marks)
    assert "mae" not in frame  # no row has it on test
    assert "val_mae" in frame


@pytest.mark.parametrize("n", [0, 1, 4])
def test_types_do_not_depend_on_the_values(results, n):
    rows, _ = read_stored(results, stored_files(results))
    types = make_frame(rows[:n]).dtypes
    for name in some(COUNTS):
        assert types[name] == "Int64"
    for name in some(NUMBERS):
        assert types[name] == "float64"
    for name in ("data", "fold", "marks", "id", "path"):
        assert types[name] == "string"
    assert str(types["written"]) == "datetime64[us, UTC]"


@pytest.mark.parametrize(
    ("where", "kinds"),
    [
        ((), {"knn", "finetune", "linear", "ridge"}),
        ("kind=knn", {"knn"}),
        (["data=toys", "kind!=knn"], {"finetune", "linear"}),
        ("shots>=5", {"linear"}),
        ("data=nothing", set()),
    ],
)
def test_rows_are_chosen_as_by_where(results, where, kinds):
    assert set(load_results(where=where).kind) == kinds


def test_a_condition_of_no_field_is_refused(results):
    with pytest.raises(RequestError, match="no field 'nothing'"):
        load_results(where="nothing=1")


def test_a_folder_may_be_named_and_be_empty(tmp_path, results):
    assert len(load_results(tmp_path / "none")) == 0
    assert len(load_results(str(results))) == 4


def test_damaged_files_are_named_and_left_out(results):
    path = next(results.glob("numbers/*.json"))
    path.write_text("{")
    with pytest.warns(UserWarning, match=rf"{path.name}: no row of probe"):
        assert len(load_results()) == 3


def test_rows_without_scores_have_a_mark(results):
    path = next(results.glob("numbers/*.json"))
    scores_file(path).unlink()
    frame = load_results(where="data=numbers")
    assert frame.marks[0] == "scores are missing: ask again"
    with pytest.raises(RequestError, match="its scores can't be read"):
        scores_of(frame.loc[0])


@pytest.mark.parametrize("value", ["many", [1, 2], True, 2.5, {"a": 1}])
def test_what_another_program_wrote_is_shown_as_it_is(tmp_path, value):
    path = write_row(tmp_path, make_row("knn", k=value))
    make_earlier(path)
    write_row(tmp_path, make_row("knn", k=7))
    frame = load_results(tmp_path)
    assert len(frame) == 2
    if value == 2.5:
        assert set(frame.k) == {2.5, 7.0}
    else:
        assert "7" in set(frame.k)


# ------------------------------------------------------------------ scores


def split_of(labels, scores, names):
    return {
        "test_ids": np.array([f"s{i}" for i in range(len(labels))]),
        "test_labels": np.array(labels),
        "test_scores": np.array(scores),
        "class_names": np.array(list(names)),
    }


@pytest.mark.parametrize("how", ["line", "id", "stem", "file"])
def test_scores_are_a_line_a_sample(tmp_path, how):
    val = {f"val_{name[5:]}": v for name, v in split_of([1], [[0.5, 0.5]], ()).items()}
    row = with_scores(make_row(), **{**val, **split_of([0, 1], [[0.9, 0.1], [0.2, 0.8]], "ab")})
    path = write_row(tmp_path, row)
    which = {
        "line": load_results(tmp_path).loc[0],
        "id": read_row(path)["id"][:10],
        "stem": path.stem,
        "file": path,
    }[how]
    frame = scores_of(which, tmp_path)
    assert list(frame) == ["split", "id", "label", "class", "score_a", "score_b"]
    assert frame.split.tolist() == ["val", "test", "test"]
    assert frame.id.tolist() == ["s0", "s0", "s1"]
    assert frame.label.tolist() == [1, 0, 1]
    assert frame["class"].tolist() == ["b", "a", "b"]
    assert frame.score_b.tolist() == [0.5, 0.1, 0.8]
    assert frame.score_a.dtype == np.float64


def test_of_several_labels_each_is_a_column_with_gaps(tmp_path):
    arrays = split_of([[0, 1], [-1, 0]], [[0.1, 0.9], [0.3, 0.2]], ["x", "y"])
    row = with_task(with_scores(make_row(), **arrays), "multi-label, binary-class")
    frame = scores_of(write_row(tmp_path, row), tmp_path)
    assert list(frame) == ["split", "id", "label_x", "label_y", "score_x", "score_y"]
    assert frame.label_x.isna().tolist() == [False, True]
    assert frame.label_y.tolist() == [1, 0]
    assert frame.label_x.dtype == "Int64"


def test_numbers_have_no_class(tmp_path):
    arrays = split_of([1.5, -2.0], [[1.0], [-1.0]], ["age"])
    row = with_task(with_scores(make_row(), **arrays), "regression")
    frame = scores_of(write_row(tmp_path, row), tmp_path)
    assert list(frame) == ["split", "id", "label", "score_age"]
    assert frame.label.tolist() == [1.5, -2.0]


def test_of_episodes_each_is_a_block(tmp_path):
    scores = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    arrays = split_of([0, 1, 1], scores, ["a", "b"])
    frame = scores_of(write_row(tmp_path, with_scores(make_row(), **arrays)), tmp_path)
    assert frame.episode.tolist() == [0, 0, 0, 1, 1, 1]
    assert frame.id.tolist() == ["s0", "s1", "s2"] * 2
    assert frame.label.tolist() == [0, 1, 1] * 2
    assert frame.score_a.tolist() == scores[..., 0].ravel().tolist()


def test_no_such_row(results):
    with pytest.raises(RequestError, match="no result 'abcdef'"):
        scores_of("abcdef")


def test_pandas_waits_until_it_is_asked_for():
    code = (
        "import sys, probe.report, probe.report.cli; probe.report.cli.make_parser().format_help();"
        "print({'pandas', 'pyarrow', 'torch', 'sklearn'} & set(sys.modules));"
        "from probe.report import load_results; print('pandas' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["set()", "True"]
