"""Rows of several layers and encoders side by side, in the commands that read stored rows."""

import numpy as np
import pytest
from features import make_features
from probing import answered, rows
from reporting import run as report

from cache import open_features

N = (40, 20, 24)
BOTH = "lite+toy"  # in one order, whichever was typed


@pytest.fixture
def stored(places, capsys):
    """Rows of two encoders: each alone, side by side, and all layers of one."""
    for model, layers, seed in (("toy", 3, 0), ("lite", 2, 5)):
        make_features(places[0], "toys", model, n=N, n_layers=layers, seed=seed)
    answered(capsys, "--kind ridge --model toy,lite,toy+lite")
    answered(capsys, "--kind ridge --model toy --layer all+")
    return places


def test_a_table_has_side_by_side_among_others(stored, capsys):
    status, out, err = report(capsys, "table", "--metric", "auc")
    assert (status, err) == (0, "")
    assert "table 1 of" not in out
    assert BOTH in out
    assert "0..2" in out
    assert "joined" not in out
    status, out, _ = report(capsys, "table", "--model", BOTH)
    assert status == 0
    assert "1 row" not in out
    assert "1/2" in out


def test_the_page_of_layers_leaves_them_out(stored, capsys, tmp_path):
    answered(capsys, "--kind ridge --layer all --model toy")
    status, out, err = report(capsys, "figure", "layers", "--csv", str(tmp_path / "layers.csv"))
    assert (status, err) == (0, "")
    lines = (tmp_path / "layers.csv").read_text().splitlines()
    assert len(lines) == 4  # three layers below the heading
    assert "Side by side, so at no one layer (auc): " in out
    assert f"toys, {BOTH}, ridge, 1/2 cls " in out
    assert "toys, toy, ridge, 0..2 cls " in out


def test_they_are_stale_where_one_file_is_gone(stored, capsys):
    status, out, _ = report(capsys, "ls", "--stale")
    assert "no row is stale" in out or status == 0
    (path,) = stored[0].glob("toys/lite*.h5")
    path.unlink()
    status, out, _ = report(capsys, "ls", "--stale")
    assert status == 0
    assert out.count("feature file of toys is gone") == 2
    assert BOTH in out


def test_nearest_are_by_the_mean_of_all_encoders_cosines(stored, capsys):
    from probe.report.findings.nearest import find_learnt, find_nearest
    from probe.report.rows.people import People
    from probe.report.rows.stored import read_stored, stored_files

    found, _ = read_stored(stored[1], stored_files(stored[1]))
    (of,) = [row for row in found if row.row.encoded.joined]
    people = People(stored[0])
    learnt = find_learnt(of, of.scores(), people)
    near = find_nearest(learnt, learnt.features, of.scores()["test_ids"][:3], 2)
    files = [open_features(next(stored[0].glob(f"toys/{name}*.h5"))) for name in ("toy", "lite")]
    cosines = []
    for file, layer in zip(files, (2, 1), strict=True):
        x = file.array(layer, "cls").astype(float)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        cosines.append(x @ x.T)
    mean = np.mean(cosines, axis=0)
    ids = list(files[0].ids)
    bank = [ids.index(i) for i in learnt.ids]
    for i, found in zip(of.scores()["test_ids"][:3], near, strict=True):
        row = mean[ids.index(i), bank]
        np.testing.assert_allclose([n.similarity for n in found], np.sort(row)[::-1][:2], atol=1e-5)
    assert "the mean over encoders" in learnt.describe()


def test_frames_keep_the_type_of_layers(stored, capsys):
    from probe.report import load_results

    frame = load_results(stored[1])
    assert str(frame.layer.dtype) == "Int64"
    assert sorted(frame.layers.dropna()) == ["0..2", "1/2"]
    assert frame.layer.isna().sum() == 2
    assert len(rows(stored[1])) == len(frame) == 4
