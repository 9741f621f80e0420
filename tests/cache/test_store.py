"""The store: whole files, units, checksums, locks, and what a kill can cost."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import astuple, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from features import (
    ARRAYS,
    array_places,
    forge_table,
    make_spec,
    make_token_spec,
    payload,
    unit_arrays,
    write_file,
    write_units,
)
from here import DATA, REPOSITORY

from cache import BrokenCache, CacheError, CacheMiss, RequestError, StaleCache, open_features
from cache.cli import main
from cache.format.create import create_file
from cache.format.fingerprint import summarise
from cache.format.key import partial_path
from cache.format.read import _plain, read_header, read_table
from cache.format.spec import TABLES, Samples, attributes_crc
from cache.format.units import unit_rows
from cache.locks import Busy
from cache.store import FeatureWriter, _read_at, bad_arrays, done_units
from cache.stored import StoredArrays, read_units
from cache.task import MULTI_LABEL, REGRESSION


@pytest.fixture
def path(tmp_path):
    return tmp_path / "toys" / "toy_8_0123456789ab.h5"


def begin(path, spec, units):
    """Write some units of a file."""
    with FeatureWriter(path, spec) as writer:
        write_units(writer, units)


def todo_of(path, spec, **options):
    with FeatureWriter(path, spec, **options) as writer:
        return writer.todo


def finish(path, spec, todo):
    """Write what is left, which is expected."""
    with FeatureWriter(path, spec) as writer:
        assert writer.todo == todo
        write_units(writer)
        assert writer.finish({})


def test_what_is_written_is_read_back(path):
    spec = make_spec()
    features = open_features(write_file(path, spec))
    expected = [unit_arrays(spec, u)["layers/01/cls"] for u in range(spec.n_units)]
    np.testing.assert_array_equal(features.array(-1, "cls"), np.concatenate(expected).astype("f2"))
    np.testing.assert_array_equal(features.memmap(1, "cls"), features.array(1, "cls"))
    np.testing.assert_array_equal(features.labels, spec.samples.labels)
    assert features.class_names == ["a", "b", "é"]
    assert features.ids[5] == "train/000005"
    assert features.split[0] == "train"
    assert features.split[-1] == "test"
    assert features.cost == {"images_per_s": 1.0}
    assert features.key == spec.key
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no locks, nothing left over


def test_any_hdf5_tool_reads_the_same(path):
    features = open_features(write_file(path, make_spec()))
    with h5py.File(path, "r") as file:
        np.testing.assert_array_equal(file["layers/00/mean"][:], features.array(0, "mean"))
        assert file["rows/ids"].asstr()[3] == "train/000003"
        assert file["units"].shape == (3, 1024)
        assert all(file[name].id.get_offset() % 4096 == 0 for name in ["head", "units", "cost"])


def test_the_file_is_reserved_whole_before_the_first_row(path):
    with FeatureWriter(path, make_spec(n_rows=50_000)):
        status = partial_path(path).stat()
        assert status.st_blocks * 512 >= status.st_size > 50_000 * 27 * 2


def test_features_are_read_only(path):
    features = open_features(write_file(path, make_spec()))
    for read in (features.array, features.memmap):
        with pytest.raises(ValueError, match="read-only"):
            read(0, "cls")[0, 0] = 1


def test_a_resumed_file_equals_an_uninterrupted_one(path, tmp_path):
    spec = make_spec()
    begin(path, spec, [1])
    with pytest.raises(CacheMiss, match=r"1 of 3 units are done(.|\n)*extract --model toy"):
        open_features(path)
    finish(path, spec, [0, 2])
    whole = open_features(write_file(tmp_path / "whole.h5", spec))
    assert payload(open_features(path)) == payload(whole)


def test_a_name_alone_does_not_complete_a_file_and_a_damaged_unit_is_not_done(path):
    spec, partial = make_spec(), partial_path(path)
    begin(path, spec, [0, 1])
    flip(partial, read_header(partial).arrays["head"].offset)
    partial.rename(path)
    with pytest.raises(CacheMiss, match=r"2 of 3 units are done(.|\n)*extract --model toy"):
        open_features(path)
    finish(path, spec, [0, 2])
    assert not bad_units(path)


def test_a_damaged_unit_is_done_again_and_only_that(path):
    spec = make_spec()
    write_file(path, spec)
    before = payload(open_features(path))
    flip(path, read_header(path).arrays["layers/01/mean"].offset + 300 * 12)
    assert bad_units(path) == [1]
    with pytest.raises(BrokenCache, match=r"rows 256..511 of layers/01/mean(.|\n)*extract --model"):
        open_features(path).array(1, "mean")
    with FeatureWriter(path, spec) as writer:
        assert writer.bad_units == writer.todo == [1]
        write_units(writer)
        assert writer.finish({})
    assert payload(open_features(path)) == before


def bad_units(path):
    header = read_header(path)
    with path.open("rb") as file:
        done = done_units(file, header)
        missing = {*range(header.n_units)} - {*done}
        return sorted(missing | {u for u in done if bad_arrays(file, header, u)})


def flip(path, offset, bit=4):
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


@pytest.mark.parametrize(
    "spec", [make_spec(), make_token_spec(90, "int8", fixed_unit_rows=32)], ids=["pooled", "tokens"]
)
def test_any_flipped_bit_is_noticed_or_harmless(path, spec):
    """Damage anywhere ends in a CacheError or changes nothing that a reader gets."""
    picture = {name: np.arange(9.0) for name in spec.arrays}
    write_file(path, replace(spec, fingerprint=summarise(picture)))
    right = everything(path)
    content = np.fromfile(path, np.uint8)
    header = read_header(path)
    ours = np.zeros(len(content), bool)  # arrays and tables; the rest are HDF5's own structures
    for extent in [*header.arrays.values(), header.units, header.cost]:
        ours[extent.offset : extent.end] = True
    with h5py.File(path, "r") as file:
        for table in (file[name] for name in header.tables):
            start = table.id.get_offset()
            ours[start : start + table.id.get_storage_size()] = True
    rng = np.random.default_rng(0)
    structures = rng.choice(np.flatnonzero(~ours & (content > 0)), 200)
    noticed = []
    for offset in [*structures, *rng.choice(np.flatnonzero(ours), 50)]:
        bit = int(rng.integers(8))
        flip(path, int(offset), bit)
        try:
            found = everything(path)
        except CacheError:
            noticed.append(offset)
        else:
            assert found == right, f"flipping bit {bit} at {offset} went unnoticed"
        flip(path, int(offset), bit)
    assert np.isin(structures, noticed).mean() > 0.9


def everything(path):
    """All that a reader gets, as values: bytes don't tell their order."""
    features = open_features(path)
    arrays = [features.array(*place) for place in array_places(features).values()]
    tables = [features.labels, features.split, features.ids, features.row_sample]
    if features.is_tokens:
        arrays += [astuple(features.rounding(i)) for i in features.layers] + [features.hashes]
        features.check_thumbnails()
        arrays.append(features.thumbnails)
    values = [np.asarray(values).tolist() for values in arrays + tables]
    return values, features.key, features.class_names, features.cost, features.fingerprint


KEPT = DATA / "features_v1.h5"  # HDF5's older, unprotected structures


@pytest.mark.parametrize(
    ("kind", "name"), [("11200f0002000000", "layers"), ("1008000008000000", "rows/sample")]
)
def test_turned_bytes_are_noticed_where_hdf5_has_no_checksum(path, kind, name):
    """Of little-endian float16 and int64, one bit makes big-endian; no checksum sees it."""
    content = KEPT.read_bytes()
    path.parent.mkdir()
    said = []
    for found in re.finditer(re.escape(bytes.fromhex(kind)), content):
        place = found.start() + 1
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(BrokenCache) as error:
            open_features(path)
        said.append(str(error.value))
    assert any(re.search(f"{name}.* should be of the shape and type", text) for text in said)


def test_arrays_that_overlap_are_refused(path):
    """A writer would write the records of units over features."""
    header = read_header(KEPT)
    units, head = (e.offset.to_bytes(8, "little") for e in (header.units, header.arrays["head"]))
    content = KEPT.read_bytes()
    assert content.count(units) == 1
    path.parent.mkdir()
    path.write_bytes(content.replace(units, head))
    with pytest.raises(BrokenCache, match="in a place of its own"):
        read_header(path)


@pytest.mark.parametrize("key", [{"layers": 2}, {"layers": {"of": "2"}}])
def test_a_key_that_does_not_count_its_layers_is_refused(path, key):
    with pytest.raises(BrokenCache, match=r"number of layers as layers\.of"):
        FeatureWriter(path, make_spec(**key))


@pytest.mark.parametrize("value", ["NaN", "1e999"])
def test_a_key_without_a_digest_is_refused(path, value):
    """JSON that Python reads and no other program does."""
    write_file(path, make_spec())
    with h5py.File(path, "r+") as file:
        file.attrs["key"] = f'{{"layers":{{"of":2}},"mean":{value}}}'
        attributes = {name: _plain(v) for name, v in file.attrs.items()}
        file.attrs["attributes_crc32"] = attributes_crc(attributes)
    with pytest.raises(BrokenCache, match="not JSON compliant"):
        read_header(path)


@pytest.mark.parametrize(
    ("table", "values", "message"),
    [
        ("row_sample", np.arange(1, 701), r"rows/sample lies in 0\.\.699"),
        ("split", np.full(700, 3, np.uint8), r"split lies in 0\.\.2"),
        ("ids", np.full(700, "same"), "two samples have one id"),
    ],
)
def test_tables_that_no_reader_could_use_are_refused(table, values, message):
    spec = make_spec()
    changed = {table: values}
    if table != "row_sample":
        changed = {"samples": replace(spec.samples, **changed)}
    with pytest.raises(RequestError, match=message):
        replace(spec, **changed)


def with_first(value):
    """A change of a table: its first entry is another."""

    def change(values):
        return np.concatenate([np.array([value], values.dtype), values[1:]])

    return change


@pytest.mark.parametrize(
    ("table", "value", "message"),
    [
        ("rows/sample", 2**63 - 1, r"rows/sample lies in 0\.\.699"),  # numpy's bincount would abort
        ("rows/sample", -1, r"rows/sample lies in 0\.\.699"),
        ("rows/sample", 1, "no row of some sample"),
        ("samples/split", 7, r"split lies in 0\.\.2"),
        ("samples/labels", 3, r"lie in -1\.\.2, found 0\.\.3"),
        ("samples/labels", -2, r"lie in -1\.\.2, found -2\.\.2"),
        ("samples/ids", b"train/000001", "two samples have one id"),
        ("samples/ids", b"\xff", "samples/ids holds a text that isn't UTF-8"),
        ("samples/groups", b"\xc3", "samples/groups holds a text that isn't UTF-8"),
        ("samples/meta/sex", b"\xc3", "samples/meta/sex holds a text that isn't UTF-8"),
        ("rows/ids", b"\xff", "rows/ids holds a text that isn't UTF-8"),
    ],
)
def test_a_reader_trusts_no_table(path, capsys, table, value, message):
    """Whatever its checksums say: another program may have written it."""
    spec = make_spec()
    names = np.array(["m", "f"] * 350)
    samples = replace(spec.samples, groups=names, meta={"sex": names})
    write_file(path, replace(spec, samples=samples))
    forge_table(path, table, with_first(value))
    header = read_header(path)
    with pytest.raises(BrokenCache, match=f"is damaged: .*{message}"):
        [read_table(header, name) for name in header.tables]
    assert main(["verify", str(path)]) == 1
    assert re.search(message, capsys.readouterr().err)


def test_a_text_that_utf8_cannot_say_is_refused_before_the_first_row():
    spec = make_spec()
    odd = np.where(np.arange(700) == 3, "caf\udce9", spec.row_ids)
    for changed in ({"ids": odd}, {"groups": odd}, {"meta": {"sex": odd}}):
        samples = replace(spec.samples, **changed)
        with pytest.raises(RequestError, match="holds a text that UTF-8 can't say"):
            replace(spec, samples=samples)
    with pytest.raises(RequestError, match="rows/ids holds a text that UTF-8 can't say"):
        replace(spec, row_ids=odd)


AGES = np.where(np.arange(700) % 7, np.arange(700) / 8, np.nan)
SIDE_BY_SIDE = np.arange(2100).reshape(700, 3) % 4 - 2  # 0, 1, missing, uncertain


@pytest.mark.parametrize(
    ("task", "labels"),
    [(REGRESSION, AGES), (MULTI_LABEL, SIDE_BY_SIDE), ("multi-class", np.arange(700) % 4 - 1)],
)
def test_continuous_and_missing_labels_are_read_back(path, task, labels):
    spec = make_spec(labels=labels, task=task)
    found = open_features(write_file(path, spec)).labels
    assert found.dtype == (np.float64 if task == REGRESSION else np.int64)
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize(
    ("task", "labels", "message"),
    [
        ("multi-class", AGES, r"whole numbers of shape \(700,\), found float64"),
        (REGRESSION, np.arange(700), r"floats of shape \(700,\), found int64"),
        (REGRESSION, AGES[:, None], r"found float64 of shape \(700, 1\)"),
        (REGRESSION, np.where(np.arange(700) == 5, -np.inf, AGES), "found -inf in sample 5"),
        ("multi-class", SIDE_BY_SIDE, r"of shape \(700,\), found int64 of shape \(700, 3\)"),
        (MULTI_LABEL, np.arange(700) % 2, r"of shape \(700, 3\), found int64 of shape \(700,\)"),
        ("multi-class", np.arange(700) % 4, r"lie in -1\.\.2, found 0\.\.3"),
        ("multi-class", np.arange(700) % 4 - 2, r"lie in -1\.\.2, found -2\.\.1"),
        (MULTI_LABEL, SIDE_BY_SIDE - 1, r"lie in -2\.\.1, found -3\.\.0"),
        (MULTI_LABEL, SIDE_BY_SIDE + 1, r"lie in -2\.\.1, found -1\.\.2"),
    ],
)
def test_labels_of_another_task_are_refused(task, labels, message):
    with pytest.raises(RequestError, match=message):
        make_spec(labels=labels, task=task)


@pytest.mark.parametrize(
    ("task", "labels"),
    [("multi-class", AGES), ("multi-class", SIDE_BY_SIDE), (MULTI_LABEL, np.arange(700) % 2)],
)
def test_a_file_whose_task_and_labels_disagree_is_refused(path, monkeypatch, task, labels):
    """Of another writer, whose attributes and tables are whole, and say two things."""
    types = {**TABLES, "samples/labels": labels.dtype.str}
    monkeypatch.setattr("cache.format.create.table_type", lambda name, _: types[name])
    monkeypatch.setattr("cache.format.spec.check_table", lambda *given: None)
    path.parent.mkdir()
    create_file(path, make_spec(labels=labels, task=task))
    monkeypatch.undo()
    with pytest.raises(BrokenCache, match="samples/labels should be of the shape and type"):
        read_header(path)


def test_a_path_that_is_not_utf8_can_stand_in_the_command(path):
    spec = replace(make_spec(), command="extract --data npz:\udcff.npz")
    assert read_header(write_file(path, spec)).attributes["command"].endswith(r"npz:\udcff.npz")


@pytest.mark.parametrize("keep", [0, 7, 100, 5000, 0.5, -1])
def test_a_truncated_file_is_refused(path, keep):
    write_file(path, make_spec())
    size = path.stat().st_size
    header = read_header(path)
    end = max(e.end for e in [*header.arrays.values(), header.units, header.cost])
    keep = int(size * keep) if isinstance(keep, float) else keep if keep >= 0 else end - 1
    os.truncate(path, keep)
    with pytest.raises(BrokenCache, match=r"truncated|not a readable feature file"):
        open_features(path)


def test_files_that_are_not_ours_are_refused(tmp_path):
    text = tmp_path / "a.h5"
    text.write_text("no")
    with pytest.raises(BrokenCache, match="not a readable feature file"):
        open_features(text)
    other = tmp_path / "b.h5"
    with h5py.File(other, "w") as file:
        file["x"] = [1]
    with pytest.raises(BrokenCache, match="no feature file"):
        open_features(other)
    with pytest.raises(CacheMiss, match="no features at"):
        open_features(tmp_path / "c.h5")


@pytest.mark.parametrize("kind", ["external", "soft"])
def test_links_to_elsewhere_are_refused(path, tmp_path, kind):
    write_file(path, make_spec())
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["labels"] = np.zeros(700, np.int64)
    with h5py.File(path, "r+") as file:
        del file["samples/split"]
        file["samples/split"] = (
            h5py.ExternalLink(str(tmp_path / "secret.h5"), "/labels")
            if kind == "external"
            else h5py.SoftLink("/samples/labels")
        )
    with pytest.raises(BrokenCache, match="link to elsewhere"):
        open_features(path)


def test_another_key_or_arrays_are_stale(path):
    write_file(path, make_spec())
    with pytest.raises(StaleCache, match=r"precision: .absent. -> bf16"):
        FeatureWriter(path, make_spec(precision="bf16"))
    with pytest.raises(StaleCache, match="arrays"):
        FeatureWriter(path, make_spec(arrays={"head": 3}))
    assert todo_of(path, make_spec(), overwrite=True) == [0, 1, 2]


def relabelled():
    """The same images under other ids, labels, splits and class names, with patients."""
    spec = make_spec()
    n = spec.n_rows
    samples = Samples(
        np.array([f"case {i:05d}" for i in range(n)]),
        np.zeros(n, np.uint8),
        np.arange(n) % 2,
        groups=np.array([f"patient {i // 3}" for i in range(n)]),
    )
    return replace(
        spec,
        task="binary-class",
        class_names=("no", "yes"),
        positive_class="yes",
        samples=samples,
        row_ids=samples.ids,
    )


def test_other_labels_and_splits_keep_every_feature(path):
    old = open_features(write_file(path, make_spec()))
    before, cost = payload(old), old.cost
    with FeatureWriter(path, relabelled()) as writer:
        assert writer.was_complete
        assert {"samples/labels", "samples/groups", "task", "class names"} <= {
            *writer.changed_tables
        }
        assert writer.changed_tables["samples/groups"] == "added"
        assert writer.changed_tables["task"] == "multi-class -> binary-class"
    new = open_features(path)
    assert payload(new) == before
    assert new.cost == cost
    assert new.task == "binary-class"
    assert new.ids[3] == "case 00003"
    assert new.groups[3] == "patient 1"
    assert {*new.split} == {"train"}
    assert not list(path.parent.glob("*.new"))
    with FeatureWriter(path, relabelled()) as writer:
        assert not writer.changed_tables


def test_tables_that_cannot_be_rewritten_leave_the_file_as_it_was(path, monkeypatch):
    before = payload(open_features(write_file(path, make_spec())))
    monkeypatch.setattr("cache.store._read_at", lambda file, *_: _read_at(file, 2**40, 1))
    with pytest.raises(BrokenCache, match="ends early"):
        FeatureWriter(path, relabelled())
    assert [p.name for p in path.parent.iterdir() if not p.name.endswith(".lock")] == [path.name]
    assert payload(open_features(path)) == before


def test_leaks_are_forgotten_with_the_split_they_were_counted_of(path):
    with FeatureWriter(path, make_spec()) as writer:
        write_units(writer)
        writer.finish({"images": 3, "leaks": {"exact": 1}})
    labels = replace(make_spec().samples, labels=np.zeros(700, np.int64))
    with FeatureWriter(path, replace(make_spec(), samples=labels)) as writer:
        assert writer.changed_tables == {"samples/labels": "changed"}
    assert open_features(path).cost == {"images": 3, "leaks": {"exact": 1}}
    with FeatureWriter(path, relabelled()):
        assert open_features(path).cost == {"images": 3}


def test_who_reads_a_file_whose_tables_change_gets_its_rows_or_an_error(path):
    before = open_features(write_file(path, make_spec()))
    head = before.memmap(-1, "head").copy()
    held = before.memmap(-1, "head")
    with FeatureWriter(path, relabelled()) as writer:  # longer tables: every array moves
        assert writer.changed_tables
    np.testing.assert_array_equal(held, head)
    for read in (lambda: before.memmap(-1, "head"), lambda: read_units(before.header)):
        with pytest.raises(CacheError, match="was replaced while it was read; run the command"):
            read()
    now = open_features(path)
    path.with_name("copy").write_bytes(path.read_bytes())
    path.with_name("copy").replace(path)  # by a copy of itself, which is no other file
    np.testing.assert_array_equal(now.memmap(-1, "head"), head)


def test_other_labels_of_an_unfinished_file_keep_its_units(path):
    begin(path, make_spec(), [1])
    with pytest.raises(StaleCache, match="run the command once without --shard"):
        FeatureWriter(path, relabelled(), shard=(0, 2))
    with FeatureWriter(path, relabelled()) as writer:
        assert writer.changed_tables
        assert writer.todo == [0, 2]
        write_units(writer)
        assert writer.finish({})
    whole = open_features(write_file(path.with_name("whole.h5"), make_spec()))
    assert payload(open_features(path)) == payload(whole)


def test_looks_are_bytes_beside_the_features(path):
    spec = make_spec(arrays={**ARRAYS, "rows/hash": 16, "rows/thumbnail": 9})
    numbers = np.random.default_rng(0)
    looks = {
        "rows/hash": numbers.integers(0, 256, (700, 16), np.uint8),
        "rows/thumbnail": numbers.integers(0, 256, (700, 9), np.uint8),
    }
    with FeatureWriter(path, spec) as writer:
        for unit in writer.todo:
            rows = slice(*unit_rows(unit, 700))
            features = {n: x for n, x in unit_arrays(spec, unit).items() if n in ARRAYS}
            writer.write_unit(unit, features | {name: x[rows] for name, x in looks.items()})
        writer.finish({})
    features = open_features(path)
    np.testing.assert_array_equal(features.hashes, looks["rows/hash"])
    np.testing.assert_array_equal(features.thumbnails, looks["rows/thumbnail"])
    assert features.pools == ["cls", "mean", "head"]
    assert features.n_layers == 2
    with path.open("r+b") as file:
        file.seek(features.header.arrays["rows/hash"].offset + 300 * 16)
        file.write(bytes(16))
    with pytest.raises(BrokenCache, match=r"256\.\.511 of rows/hash"):
        open_features(path).hashes  # noqa: B018
    with FeatureWriter(path, spec) as writer:
        assert writer.bad_units == [1]


def test_files_from_before_the_looks_are_read_and_finished(path):
    begin(path, make_spec(), [0])
    spec = make_spec(arrays={**ARRAYS, "rows/hash": 16, "rows/thumbnail": 9})
    with FeatureWriter(path, spec) as writer:
        assert writer.todo == [1, 2]
        for unit in writer.todo:  # with looks that the file has no place for
            n = len(range(*unit_rows(unit, 700)))
            looks = {"rows/hash": np.zeros((n, 16)), "rows/thumbnail": np.zeros((n, 9))}
            writer.write_unit(unit, unit_arrays(make_spec(), unit) | looks)
        assert writer.finish({})
    features = open_features(path)
    assert features.hashes is None
    assert features.thumbnails is None


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (np.nan, "float16", "layers/00/mean holds NaN.*--precision fp32"),
        (np.inf, "float32", "layers/00/mean holds infinity.*--precision fp32"),
        (70_000, "float16", "layers/00/mean reaches 70000.*--store float32"),
        (70_000, "float32", None),
    ],
)
def test_values_that_would_not_survive_are_refused(path, value, dtype, message):
    spec = make_spec(dtype=dtype)
    with FeatureWriter(path, spec) as writer:
        arrays = unit_arrays(spec, 0)
        arrays["layers/00/mean"][3, 2] = value
        if message is None:
            writer.write_unit(0, arrays)
            assert writer.todo == [1, 2]
            return
        with pytest.raises(RequestError, match=message):
            writer.write_unit(0, arrays)
        assert writer.todo == [0, 1, 2]


def test_a_full_disk_is_said_before_the_first_row_and_leaves_nothing(path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(RequestError, match=r"can't reserve .* free.*--features DIR"):
        FeatureWriter(path, make_spec())
    assert list(path.parent.iterdir()) == []


@pytest.mark.posix
def test_a_limit_on_the_size_of_files_is_said_before_the_first_row(path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        with pytest.raises(OSError, match="is the disk full"):
            FeatureWriter(path, make_spec(n_rows=50_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(path.parent.iterdir()) == []


def test_a_record_that_is_neither_done_nor_blank_is_written_again(path):
    spec = make_spec()
    write_file(path, spec)
    flip(path, read_header(path).units.offset + 4096, bit=1)  # unit 1: 1 becomes 3
    with pytest.raises(CacheMiss, match="2 of 3 units are done"):
        open_features(path)
    finish(path, spec, [1])
    assert not bad_units(path)


def test_a_failure_before_the_first_unit_leaves_nothing(path):
    spec = make_spec()
    nan = {name: np.full_like(rows, np.nan) for name, rows in unit_arrays(spec, 0).items()}

    def fail():
        with FeatureWriter(path, spec) as writer:
            writer.write_unit(0, nan)

    with pytest.raises(RequestError, match="NaN"):
        fail()
    assert list(path.parent.iterdir()) == []


def test_a_failure_later_keeps_what_is_done(path):
    def fail():
        with FeatureWriter(path, make_spec()) as writer:
            write_units(writer, [2])
            raise RuntimeError("later")

    with pytest.raises(RuntimeError, match="later"):
        fail()
    assert todo_of(path, make_spec()) == [0, 1]


def test_zeros_are_written_where_nothing_reserves(path, tmp_path, monkeypatch):
    def unknown(*arguments):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unknown)  # of the file system
    assert not bad_units(write_file(tmp_path / "other.h5", make_spec()))
    monkeypatch.delattr(os, "posix_fallocate")
    with FeatureWriter(path, make_spec()) as writer:
        status = partial_path(path).stat()
        assert status.st_blocks * 512 >= status.st_size
        write_units(writer)
        assert writer.finish({})
    assert not bad_units(path)


def test_a_file_deleted_while_written_is_noticed(path):
    spec = make_spec()
    with FeatureWriter(path, spec) as writer:
        write_units(writer, [0])
        partial_path(path).unlink()
        with pytest.raises(CacheError, match=r"deleted or replaced(.|\n)*extract --model toy"):
            write_units(writer, [1])


def test_two_writers_of_one_shard_are_refused_by_name(path):
    spec = make_spec()
    with FeatureWriter(path, spec):
        with pytest.raises(Busy, match=f"process {os.getpid()} on .* as shard 0/1"):
            FeatureWriter(path, spec)
        with pytest.raises(Busy, match="one N and different I"):
            FeatureWriter(path, spec, shard=(0, 2))
    with pytest.raises(RequestError, match="cache rm"):
        FeatureWriter(path, spec, shard=(0, 2), overwrite=True)


def test_shards_share_a_file_without_a_merge(path, tmp_path):
    spec = make_spec()
    with FeatureWriter(path, spec, shard=(0, 2)) as a, FeatureWriter(path, spec, shard=(1, 2)) as b:
        assert a.todo == [0, 2]
        assert b.todo == [1]
        write_units(b)
        assert not b.finish({})
        write_units(a)
        assert a.finish({})
        assert b.finish({})
    assert payload(open_features(path)) == payload(
        open_features(write_file(tmp_path / "one.h5", spec))
    )
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_another_shard_may_see_the_last_record_first(path, monkeypatch):
    spec = make_spec()
    with FeatureWriter(path, spec, shard=(0, 2)) as a, FeatureWriter(path, spec, shard=(1, 2)) as b:
        write_units(b)
        write_units(a, [0])
        look = a._check_still_there

        def late():
            assert b.finish({})
            look()

        monkeypatch.setattr(a, "_check_still_there", late)
        write_units(a, [2])
        monkeypatch.undo()
        assert a.finish({})
    assert not bad_units(path)


def test_a_file_finished_while_a_shard_compared_its_units_is_taken_back(path, monkeypatch):
    spec = make_spec()
    begin(path, spec, [0, 1])
    flip(partial_path(path), read_header(partial_path(path)).arrays["head"].offset + 300 * 6)
    with FeatureWriter(path, spec, shard=(0, 2)) as a:

        def slow(*arguments):
            if a.todo:
                write_units(a)
                assert a.finish({})
            return bad_arrays(*arguments)

        monkeypatch.setattr("cache.store.bad_arrays", slow)
        with FeatureWriter(path, spec, shard=(1, 2)) as b:
            assert not path.exists()
            assert b.bad_units == b.todo == [1]
            write_units(b)
            assert b.finish({})
    assert not bad_units(path)


def test_shards_mend_a_complete_file_together(path, tmp_path):
    spec = make_spec()
    write_file(path, spec)
    for unit in (0, 1):
        flip(path, read_header(path).arrays["head"].offset + unit * 256 * 6)
    with FeatureWriter(path, spec, shard=(0, 2)) as a, FeatureWriter(path, spec, shard=(1, 2)) as b:
        assert a.todo == [0]
        assert b.todo == [1]
        write_units(a)
        assert not a.finish({})
        write_units(b)
        assert b.finish({})
    assert not bad_units(path)


def test_a_lock_needs_no_name_in_it(path, monkeypatch):
    def locked(*arguments):
        raise PermissionError(errno.EACCES, "Permission denied")  # as on Windows

    monkeypatch.setattr(Path, "write_text", locked)
    with FeatureWriter(path, make_spec()), pytest.raises(Busy, match="another process"):
        FeatureWriter(path, make_spec())


def test_a_lock_is_free_after_a_kill(path):
    code = (
        "import sys, time; from features import make_spec; from cache.store import FeatureWriter\n"
        "from pathlib import Path\n"
        "w = FeatureWriter(Path(sys.argv[1]), make_spec()); print('held', flush=True)\n"
        "time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        env={**os.environ, "PYTHONPATH": python_path()},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout
    with child.stdout:
        assert child.stdout.readline() == "held\n"
    with pytest.raises(Busy, match=f"process {child.pid} on"):
        FeatureWriter(path, make_spec())
    child.kill()
    child.wait()
    assert todo_of(path, make_spec()) == [0, 1, 2]


def python_path():
    return os.pathsep.join([str(REPOSITORY / "tests" / "making"), str(REPOSITORY)])


@pytest.mark.posix
@pytest.mark.parametrize(
    ("make", "asked", "n_processes"),
    [
        (make_spec, {"n_rows": 256 * 40 + 17}, 1),
        (make_spec, {"n_rows": 256 * 40 + 17}, 2),
        (make_token_spec, {"n_rows": 256 * 5 + 17, "dtype": "int8", "fixed_unit_rows": 32}, 2),
    ],
)
def test_kills_cost_at_most_the_unit_in_work(path, tmp_path, make, asked, n_processes):
    """A short version of kill_extraction.py: no unit marked done is ever wrong."""
    whole = open_features(write_file(tmp_path / "whole.h5", make(**asked)))
    code = (
        "import sys, time; from features import *\n"
        "from cache.store import FeatureWriter; from pathlib import Path\n"
        f"spec = {make.__name__}(**{asked})\n"
        "shard = int(sys.argv[2]), int(sys.argv[3])\n"
        "with FeatureWriter(Path(sys.argv[1]), spec, shard=shard) as w:\n"
        "    print('open', flush=True)\n"
        "    for u in w.todo:\n"
        "        w.write_unit(u, unit_arrays(spec, u)); time.sleep(0.004)\n"
        "    w.finish({})\n"
    )
    rng = np.random.default_rng(n_processes)
    n_kills = 0
    while not path.exists():
        children = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(path), str(i), str(n_processes)],
                env={**os.environ, "PYTHONPATH": python_path()},
                stdout=subprocess.PIPE,
            )
            for i in range(n_processes)
        ]
        for child in children:
            assert child.stdout
            with child.stdout:
                child.stdout.read(5)
        if n_kills < 5:
            time.sleep(rng.uniform(0, 0.06))
            for child in children:
                child.send_signal(signal.SIGKILL)
                n_kills += 1
        for child in children:
            child.wait()
        check_done_units(path, whole)
    assert n_kills >= 5
    assert payload(open_features(path)) == payload(whole)


def check_done_units(path, whole):
    """Every unit that is marked done holds the right rows."""
    there = path if path.exists() else partial_path(path)
    if not there.exists():
        return
    found = StoredArrays(read_header(there))
    for unit in np.flatnonzero(read_units(found.header)[:, 0]).tolist():
        for name in whole.header.arrays:
            np.testing.assert_array_equal(found.stored(name, unit), whole.stored(name, unit))


def test_layers_and_pools_are_named_when_asked_wrongly(path):
    features = open_features(write_file(path, make_spec()))
    for layer, pool, message in (
        (99, "cls", r"no layer 99.*layers 0\.\.1, stored are 0\.\.1"),
        (-3, "cls", "no layer -3"),
        (0, "head", r"no pool 'head' at layer 0.*cls, mean"),
    ):
        with pytest.raises(RequestError, match=message):
            features.array(layer, pool)
    assert features.array(-1, "head").shape == (700, 3)


def test_the_file_kept_from_version_1_still_reads():
    expected = json.loads(KEPT.with_suffix(".json").read_text())
    features = open_features(KEPT)
    assert features.key == expected["key"]
    assert features.labels.tolist() == expected["labels"]
    assert features.ids.tolist() == expected["ids"]
    np.testing.assert_array_equal(features.array(1, "mean"), np.array(expected["mean"], "f2"))
