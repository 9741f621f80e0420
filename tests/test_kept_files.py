"""Files of earlier versions, kept as they were written, are read as ever.

``data/features``: of format 1 a toy of patients, copies and pictures, its texts, slices, and what
extract made of a tiny network; of format 2 patch tokens as int8, with pictures. ``data/rows``: results of these files, of row_version 1 (by the
last code that wrote it), 2 and 3. Never make them again: what can't read them is wrong.
"""

import gzip
import json
import sys
from dataclasses import astuple

import numpy as np
import pytest
from golden import TESTS, Recording, rounded, run_in, stored_rows, summary, told
from here import REPOSITORY

from cache import open_features
from cache.cli import main as cache
from cache.format.key import key_digest
from probe.cli import main as probe
from probe.results import ADDED_LATER, as_json, from_json, read_row, read_scores

FEATURES, ROWS = TESTS / "data" / "features", TESTS / "data" / "rows"
FILES = {
    "images": "two/toy_32_p00000000001.h5",
    "texts": "two/toy_text_000000000002.h5",
    "slices": "slices/toy_32_p00000000003.h5",
    "extracted": "tiny/test_vit_32_a49661d88fac.h5",
    "tokens": "kept/toy_32_tokens_000000000004.h5",
}
STORED = sorted(path.relative_to(ROWS).as_posix() for path in ROWS.glob("*/*.json"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, place in FILES.items():
        path = tmp_path / "features" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.decompress((FEATURES / f"{name}.h5.gz").read_bytes()))
    run_in(tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture(scope="module")
def of_kept():
    recording = Recording("kept")
    yield recording
    recording.finish()


@pytest.mark.parametrize("name", FILES)
def test_features(name, folder, capsys, of_kept):
    path = folder / "features" / FILES[name]
    features = open_features(path)
    assert key_digest(features.key) == features.digest
    features.check_thumbnails()
    tables = {n: getattr(features, n) for n in ("ids", "labels", "split", "row_sample", "groups")}
    tables |= {"hashes": features.hashes, "thumbnails": features.thumbnails, **features.meta}
    arrays = {
        f"{i} {pool}": features.array(i, pool)
        for i, pools in features.layers.items()
        for pool in pools
    } | {pool: features.array(-1, pool) for pool in ("head", "proj") if pool in features.pools}
    if features.is_tokens:
        tables["pictures"] = features.pictures
        arrays |= {f"{i} rounding": astuple(features.rounding(i)) for i in features.layers}
    facts = {
        name: getattr(features, name)
        for name in (
            "digest", "key", "model", "label", "encoder", "size", "dataset", "task", "class_names",
            "notes", "fingerprint", "versions", "is_text", "n_rows",
        )
    }  # fmt: skip
    found = {
        "verify": told(capsys, cache, ["verify", path.relative_to(folder).as_posix()]),
        "command": features.header.command,
        "facts": facts,
        "tables": {n: summary(np.asarray(x)) for n, x in tables.items() if x is not None},
        "arrays": {n: summary(np.asarray(x)) for n, x in arrays.items()},
    }
    of_kept.check(name, json.loads(json.dumps(found)))


@pytest.mark.parametrize("stored", STORED)
def test_rows(stored, of_kept):
    path = ROWS / stored
    row = read_row(path)
    assert row["row_version"] == int(stored[1])
    assert set(ADDED_LATER) <= set(row)
    scores = {name: summary(x) for name, x in read_scores(path, row).items()}
    of_kept.check(stored, {"scores": scores})
    written = json.loads(path.read_text())
    assert {name: row[name] for name in written} == written
    typed = from_json(row)
    assert typed.digest == row["id"]
    if row["row_version"] > 1:  # read and written again it says the same, in the same order
        again = {**as_json(typed), "row_version": row["row_version"]}
        added = {name: again.pop(name) for name in set(again) - set(written)}
        assert set(added) <= set(ADDED_LATER)
        assert json.dumps(again) == json.dumps({name: written[name] for name in again})


@pytest.mark.parametrize("stored", [place for place in STORED if not place.startswith("v1")])
def test_the_pages_reader_reads_rows_without_medprobe(stored, capsys, monkeypatch):
    page = (REPOSITORY / "probe" / "ROW.md").read_text(encoding="utf-8")
    reader = page.partition("```python\n")[2].partition("```")[0]
    monkeypatch.setattr(sys, "argv", ["reader", str(ROWS / stored)])
    exec(reader, {})
    row = read_row(ROWS / stored)
    shape = read_scores(ROWS / stored, row)["test_scores"].shape
    assert capsys.readouterr().out == f"{row['metrics']['acc']['value']} {shape}\n"


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_tables(version, monkeypatch, capsys, of_kept):
    run_in(TESTS, monkeypatch)
    paths = [path.relative_to(TESTS).as_posix() for path in sorted(ROWS.glob(f"{version}/*.json"))]
    assert paths
    of_kept.check(version, {"table": told(capsys, probe, ["table", *paths])})


def test_the_same_question_of_kept_features_is_the_same_row(folder, capsys):
    for words in (
        "--kind linear --strengths 0.1,1",
        "--kind ridge --penalties 0.1,1 --shots 2 --episodes 3",
    ):
        assert probe([*words.split(), "--data", "two"]) == 0
    rows = {place: row["json"] for place, row in stored_rows(folder / "results").items()}
    assert len(rows) == 2
    for place, row in rows.items():
        known = read_row(ROWS / "v2" / place.rpartition("/")[2])
        assert row["id"] == known["id"]
        assert row["probe"] == rounded(known["probe"])
        assert row["marks"] == known["marks"]
        for metric, interval in known["metrics"].items():
            assert row["metrics"][metric]["value"] == pytest.approx(interval["value"], rel=1e-6)
