"""Token files, format version 2: grids, int8, units within blocks, pictures; whole and damaged."""

import errno
import json
import os
import tracemalloc
import zlib
from dataclasses import replace

import h5py
import numpy as np
import pytest
from caching import answered
from features import (
    make_features,
    make_spec,
    make_token_spec,
    unit_arrays,
    write_file,
    write_rows,
    write_units,
)

from cache import BrokenCache, RequestError, StaleCache, open_features
from cache.catalogue import Wish, find_features
from cache.cli import main as cache
from cache.errors import CacheMiss
from cache.export import export_features
from cache.format import units
from cache.format.create import create_file
from cache.format.key import feature_path
from cache.format.read import _plain, read_header
from cache.format.rounding import round_tokens
from cache.format.spec import HASH, PICTURE, PICTURE_SHAPE, THUMBNAIL, attributes_crc
from cache.leak_memory import count_leaks
from cache.sharing import Sharing
from cache.store import FeatureWriter

LOOKS = {HASH: 16, THUMBNAIL: 64}
PICTURED = {**LOOKS, PICTURE: PICTURE_SHAPE}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "toys" / "toy_8_tokens_0123456789ab.h5"


def content_of(spec):
    """Name -> all rows that ``unit_arrays`` gives."""
    parts = [unit_arrays(spec, unit) for unit in range(spec.n_units)]
    return {name: np.concatenate([part[name] for part in parts]) for name in spec.arrays}


def bytes_of(path):
    """Every array as it is stored, units' records among them."""
    header = read_header(path)
    raw = path.read_bytes()
    extents = {**header.arrays, "units": header.units}
    return {name: raw[at.offset : at.end] for name, at in extents.items()}


# ---------------------------------------------------------------------------- written and read


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
def test_what_is_written_is_read_back(path, dtype):
    spec = make_token_spec(70, dtype, ((2, 3), (3, 1)), fixed_unit_rows=32, looks=PICTURED)
    features = open_features(write_file(path, spec))
    right = content_of(spec)
    assert features.is_tokens
    assert features.header.attributes["format_version"] == 2
    assert features.header.attributes["unit_rows"] == 32
    assert features.layers == {0: ["tokens"], 1: ["tokens"]}
    assert features.pools == ["tokens"]
    assert [features.grid(i) for i in (0, 1, -1)] == [(2, 3), (3, 1), (3, 1)]
    np.testing.assert_array_equal(features.pictures, right[PICTURE])
    np.testing.assert_array_equal(features.hashes, right[HASH])
    stored = "float32" if dtype == "int8" else dtype
    for layer in (0, 1):
        tokens = right[f"layers/{layer:02d}/tokens"]
        found = features.array(layer, "tokens")
        assert found.dtype == stored
        if dtype == "int8":
            assert np.abs(found - tokens).max() <= np.abs(tokens).max() / 127 / 2 * 1.001
        else:
            np.testing.assert_array_equal(found, tokens.astype(dtype))
        for rows in (slice(30, 40), [69, 0, 33, 33, -1], np.arange(70) % 9 == 0, []):
            np.testing.assert_array_equal(features.tokens(layer, rows), found[rows])
    assert features.memmap(0, "tokens").shape == (70, 2, 3, 5)
    assert features.memmap(0, "tokens").dtype == dtype


def test_int8_is_rounded_to_even_by_channel_and_unit(path):
    """Against the rule, worked out one number at a time."""
    spec = make_token_spec(40, "int8", ((2, 2),), width=4, fixed_unit_rows=16)
    tokens = np.random.default_rng(0).normal(size=(40, 2, 2, 4)).astype("f4")
    tokens[..., 2] = 0
    tokens[16:32, ..., 1] *= 1e30
    tokens[:16, ..., 3] = np.tile([0.5, 1.5, 2.5, 127], 16).reshape(16, 2, 2)  # scale is 1
    features = open_features(write_rows(path, spec, rows_of(spec, tokens)))
    stored = features.memmap(0, "tokens")
    assert sorted({*stored[:16, ..., 3].ravel().tolist()}) == [0, 2, 127]  # halves go to even
    squares = np.zeros(2)
    largest = 0.0
    for unit, first in enumerate(range(0, 40, 16)):
        part = tokens[first : first + 16]
        scale = features.stored("layers/00/tokens_scale", unit)[0]
        for channel in range(4):
            most = max(abs(float(x)) for x in part[..., channel].ravel())
            assert scale[channel] == np.float32(most) / np.float32(127)
            for x, level in zip(
                part[..., channel].ravel(),
                stored[first : first + 16, ..., channel].ravel(),
                strict=True,
            ):
                assert level == (round(float(x / scale[channel])) if most else 0)
                off = abs(float(np.float32(level) * scale[channel]) - float(x))
                squares += off**2, float(x) ** 2
                largest = max(largest, off)
    said = features.rounding(0)
    assert said.rms == pytest.approx(np.sqrt(squares[0] / squares[1]), rel=1e-5)
    assert said.largest == pytest.approx(largest, rel=1e-5)


def rows_of(spec, tokens):
    """Tokens of one layer and some looks."""
    return {**content_of(spec), "layers/00/tokens": tokens}


@pytest.mark.parametrize("value", [0.0, 1e-45, -3.4e38, 65504.0])
def test_int8_holds_what_float32_holds(value):
    x = np.full((3, 1, 2, 2), value, np.float32)
    x[..., 1] *= -1
    rounded = round_tokens(x)
    found = rounded.tokens * rounded.scale
    assert np.isfinite(found).all()
    assert np.abs(found - x).max() <= max(abs(value) * 1e-6, 2e-45)
    assert rounded.tokens.min() >= -127


def test_float16_tokens_are_rounded_as_float32():
    x = np.random.default_rng(0).normal(size=(20, 3, 3, 8)).astype(np.float16)
    np.testing.assert_array_equal(round_tokens(x).tokens, round_tokens(x.astype("f4")).tokens)


def test_a_token_file_says_so_in_its_name(tmp_path):
    pooled, tokens = make_spec().key, make_token_spec().key
    assert "_224_tokens_" in feature_path(tmp_path, "toys", "toy", 224, tokens).name
    assert "tokens" not in feature_path(tmp_path, "toys", "toy", 224, pooled).name


@pytest.mark.parametrize(
    ("row_bytes", "rows"),
    [
        (10, 256),
        (249_999, 256),
        (250_000, 128),  # a unit of 64 MB isn't below 64 MB
        (524_288 + 150_528, 64),  # a ViT-L/14 at 224 px in float16, and its picture
        (4_000_000, 16),
        (400_000_000, 16),
    ],
)
def test_a_unit_is_the_largest_below_64_mb(row_bytes, rows):
    assert units.fitting_rows(row_bytes, 0) == rows


def test_scales_count_among_the_bytes_of_a_unit():
    spec = make_token_spec(500, "int8", ((12, 8),), width=1024, looks={})
    assert spec.unit_rows == 256  # 63.7 MB with pictures
    assert replace(spec, arrays={**spec.arrays, HASH: 1152}).unit_rows == 128  # 64.0 MB and scales


def test_pictures_that_are_left_out_change_no_unit():
    spec = make_token_spec(500, "int8", ((16, 15),), width=1024, looks={})
    pictured = replace(spec, arrays={**spec.arrays, PICTURE: PICTURE_SHAPE})
    assert spec.unit_rows == pictured.unit_rows == 128


# ---------------------------------------------------------------------------- units and blocks


def test_units_are_written_one_by_one_and_belong_to_blocks(path, tmp_path):
    spec = make_token_spec(600, "int8", fixed_unit_rows=64)
    with FeatureWriter(path, spec) as writer:
        assert writer.todo == [*range(10)]  # blocks 0..3, 4..7, 8 and 9
        write_units(writer, [0, 2, 9, 4])
    with pytest.raises(CacheMiss, match="4 of 10 units are done"):
        open_features(path)
    for shard, todo in (((0, 2), [1, 3, 8]), ((1, 2), [5, 6, 7])):
        with FeatureWriter(path, spec, shard=shard) as writer:
            assert writer.todo == todo
            write_units(writer)
            assert writer.finish({}) == (shard[0] == 1)
    whole = write_file(tmp_path / "whole.h5", spec)
    assert bytes_of(path) == bytes_of(whole)
    assert open_features(path).rounding(0) == open_features(whole).rounding(0)


@pytest.mark.parametrize(
    ("array", "part"),
    [
        ("layers/00/tokens", 40 * 30),  # row 40 is in unit 2
        ("layers/01/tokens_scale", 2 * 20 + 3),
        ("layers/00/tokens_error", 2 * 24 + 5),
        (PICTURE, 40 * 150_528 + 7),
        (HASH, 47 * 16),
    ],
)
def test_a_flipped_bit_is_found_and_only_its_unit_done_again(path, capsys, array, part):
    spec = make_token_spec(50, "int8", fixed_unit_rows=16, looks=PICTURED)
    write_file(path, spec)
    before = bytes_of(path)
    with path.open("r+b") as file:
        file.seek(read_header(path).arrays[array].offset + part)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 16]))
    assert cache(["verify", str(path)]) == 1
    assert f"unit 2 ({array})" in capsys.readouterr().err
    features = open_features(path)
    if "tokens" in array and "error" not in array:
        layer = int(array[7:9])
        features.tokens(layer, slice(0, 32))  # other units are right
        with pytest.raises(BrokenCache, match=rf"rows 32\.\.47 of {array} don't match"):
            features.tokens(layer, [33])
    if "error" in array:
        with pytest.raises(BrokenCache, match="tokens_error don't match"):
            features.rounding(0)
    with FeatureWriter(path, spec) as writer:
        assert writer.bad_units == writer.todo == [2]
        write_units(writer)
        assert writer.finish({})
    assert bytes_of(path) == before
    assert cache(["verify", str(path)]) == 0


def test_an_opened_file_compares_a_unit_once(path, monkeypatch):
    features = open_features(write_file(path, make_token_spec(50, "int8", fixed_unit_rows=16)))
    summed = []
    crc32 = zlib.crc32

    def counting(data, *rest):
        summed.append(len(data))
        return crc32(data, *rest)

    monkeypatch.setattr("cache.stored.zlib.crc32", counting)
    first = features.tokens(0, [3, 49])
    assert len(summed) == 4  # tokens and scale of two units
    np.testing.assert_array_equal(features.tokens(0, [3, 49]), first)
    assert len(summed) == 4
    features.tokens(1, [3])
    assert len(summed) == 6


def test_a_file_is_finished_with_the_pictures_that_it_was_begun_with(path):
    pictured = make_token_spec(40, fixed_unit_rows=16, looks=PICTURED)
    plain = make_token_spec(40, fixed_unit_rows=16)
    with FeatureWriter(path, pictured) as writer:
        write_units(writer, [0])
    with FeatureWriter(path, plain) as writer:
        assert PICTURE in writer.header.arrays
        for unit in writer.todo:
            writer.write_unit(unit, unit_arrays(pictured, unit))
        assert writer.finish({})
    with FeatureWriter(path, plain, overwrite=True) as writer:
        assert PICTURE not in writer.header.arrays
        write_units(writer)
        writer.finish({})
    with FeatureWriter(path, pictured) as writer:
        assert writer.was_complete


def test_other_units_than_the_rule_gives_are_kept_when_tables_change(path):
    spec = make_token_spec(40, "int8", fixed_unit_rows=16, looks=PICTURED)
    write_file(path, spec)
    before = bytes_of(path)
    labels = (spec.samples.labels + 1) % 3
    changed = replace(spec, samples=replace(spec.samples, labels=labels), fixed_unit_rows=None)
    assert changed.unit_rows == 256
    with FeatureWriter(path, changed) as writer:
        assert writer.was_complete
        assert [*writer.changed_tables] == ["samples/labels"]
    assert bytes_of(path) == before
    np.testing.assert_array_equal(open_features(path).labels, labels)


def test_a_full_disk_is_refused_before_the_first_row(path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    spec = make_token_spec(2000, "float32", ((16, 16),), width=384)
    with pytest.raises(RequestError, match=r"can't reserve 786.*MB .*fewer layers with --tokens"):
        FeatureWriter(path, spec)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        ("int8", np.nan, "tokens holds NaN"),
        ("int8", np.inf, "tokens holds infinity"),
        ("float16", 1e5, "float16 ends at 65504"),
    ],
)
def test_values_that_can_not_be_stored_are_refused(path, dtype, value, message):
    spec = make_token_spec(20, dtype)
    arrays = unit_arrays(spec, 0)
    arrays["layers/01/tokens"][7, 1, 1, 1] = value
    with FeatureWriter(path, spec) as writer, pytest.raises(RequestError, match=message):
        writer.write_unit(0, arrays)


def test_int8_is_for_tokens_alone():
    with pytest.raises(RequestError, match="not int8"):
        make_spec(dtype="int8")


# ---------------------------------------------------------------------------- memory


def peak_of(do):
    """The most bytes that numpy and Python held at once, beyond those of before."""
    tracemalloc.start()
    try:
        do()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_is_bounded_by_units(path):
    """Eight units: what holds more than a few of them at a time fails."""
    spec = make_token_spec(128, "int8", ((16, 16),), width=256, fixed_unit_rows=16)
    unit = 16 * 16 * 16 * 256  # bytes as int8, 1 MB; four times that as float32
    rows = np.random.default_rng(0).normal(size=(16, 16, 16, 256)).astype("f4")
    with FeatureWriter(path, spec) as writer:
        looks = {name: np.zeros((16, n), np.uint8) for name, n in LOOKS.items()}
        arrays = {"layers/00/tokens": rows, **looks}
        assert peak_of(lambda: [writer.write_unit(u, arrays) for u in writer.todo]) < 3 * unit
        writer.finish({})
    features = open_features(path)
    every = np.arange(0, 128, 16)
    for _ in range(2):  # compared with checksums; then from the map
        assert peak_of(lambda: features.tokens(0, every)) < 8 * unit // 4 + 1.5 * unit
    out = path.with_name("out.h5")
    for do in (
        lambda: cache(["verify", str(path)]),
        lambda: export_features(features, out, Sharing()),
    ):
        assert peak_of(do) < 4 * unit


# ---------------------------------------------------------------------------- found and shared


@pytest.fixture
def both(tmp_path):
    """A pooled file and a token file of one encoder on one data set."""
    pooled = make_features(tmp_path)
    spec = make_token_spec(70, "int8", dataset="toys", model="toy", size=32, looks=PICTURED)
    return pooled, write_file(pooled.with_name("toy_32_tokens_0123456789ab.h5"), spec)


def test_pooled_files_are_found_unless_tokens_are_asked_for(tmp_path, both):
    pooled, tokens = both
    for wish, path in ((Wish(), pooled), (Wish(("toy",), tokens=True), tokens)):
        (found,), troubles = find_features(tmp_path, wish)
        assert (found.path, troubles) == (path, [])
    pooled.unlink()
    with pytest.raises(CacheMiss, match=r"no features of toy(.|\n)*extract --model toy"):
        find_features(tmp_path, Wish(("toy",)))
    tokens.unlink()
    with pytest.raises(CacheMiss, match=r"no patch tokens of toy(.|\n)*--tokens -1"):
        find_features(tmp_path, Wish(("toy",), tokens=True))


def test_ls_and_show_say_what_a_token_file_is(tmp_path, both, capsys):
    listed = answered(capsys, "ls", "--features", tmp_path)
    (line,) = [line for line in listed.splitlines() if "tokens_" in line]
    assert line.split()[:2] == ["10.7", "MB"]
    assert "tokens 2 x 3   int8" in line
    assert "complete" in line
    shown = answered(capsys, "show", both[1])
    assert "layers/00/tokens 2 x 3 x 5, layers/01/tokens 2 x 3 x 5, rows/hash 16" in shown
    assert "rows/picture 224 x 224 x 3" in shown
    assert "1 of 256 rows" in shown
    said = open_features(both[1]).rounding(1)
    assert f"layer 1: RMS error {said.rms:.2g} of the tokens' RMS, {said.largest:.2g} at" in shown
    assert "rounding" not in answered(capsys, "show", both[0])


def test_export_leaves_pictures_out_and_keeps_the_rest(tmp_path, both, capsys):
    tokens, out = both[1], tmp_path / "out.h5"
    answered(capsys, "export", tokens, "--layers=1", "-o", out)
    old, new = open_features(tokens), open_features(out)
    assert [*new.header.arrays] == [f"layers/01/tokens{of}" for of in ("", "_scale", "_error")] + [
        HASH
    ]
    np.testing.assert_array_equal(new.array(1, "tokens"), old.array(1, "tokens"))
    assert new.rounding(1) == old.rounding(1)
    assert new.header.unit_rows == old.header.unit_rows
    assert cache(["verify", str(out)]) == 0


def test_leaks_are_counted_of_token_files_too(both):
    assert count_leaks(open_features(both[1])).summary()["n"] == 23


def test_rm_deletes_one(both, capsys):
    assert cache(["rm", "--yes", str(both[1])]) == 0
    assert both[0].exists()


def test_diff_tells_tokens_from_pooled_features(both, capsys):
    assert cache(["diff", str(both[0]), str(both[1])]) == 1
    assert "tokens.grids: (absent) -> [[2, 3], [2, 3]]" in capsys.readouterr().out


# ---------------------------------------------------------------------------- other programs


def forge(path, **attributes):
    """Change attributes as another program would: checksum and all."""
    with h5py.File(path, "r+", locking=False) as file:
        said = {name: _plain(value) for name, value in file.attrs.items()} | attributes
        for name, value in attributes.items():
            del file.attrs[name]
            file.attrs[name] = value
        file.attrs["attributes_crc32"] = attributes_crc(said)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"format_version": 1}, "unit_rows should be"),
        ({"format_version": 3}, "format version 3, this medprobe reads 1 and 2; update"),
        ({"unit_rows": 48}, "unit_rows should be"),
        ({"unit_rows": 32.0}, "unit_rows should be"),
        ({"unit_rows": 16}, "units should be of the shape"),
        ({"key": {"layers": {"of": 2, "stored": [0, 1]}}}, "key should be as a file of images"),
        ({"key": {"layers": {"of": 2, "stored": [0, 1]}, "tokens": 7}}, "key should be"),
        (
            {"key": {"layers": {"of": 2, "stored": [0, 1]}, "tokens": {"grids": [[3, 2], [2, 3]]}}},
            "layers/00/tokens should be of the shape",
        ),
        (
            {"key": {"layers": {"of": 2, "stored": [0]}, "tokens": {"grids": [[2, 3]]}}},
            "layers/01/tokens should be of the shape",
        ),
    ],
)
def test_a_reader_trusts_no_header(path, attributes, message):
    write_file(path, make_token_spec(50, fixed_unit_rows=32))
    if "key" in attributes:
        attributes = {"key": json.dumps(attributes["key"])}
    forge(path, **attributes)
    with pytest.raises(BrokenCache, match=message):
        read_header(path)


def test_arrays_named_twice_are_refused(path):
    spec = make_token_spec(50)
    write_file(path, spec)
    forge(path, arrays=[*spec.stored, "rows/hash"])
    with pytest.raises(BrokenCache, match="arrays should be of"):
        read_header(path)


def test_a_grid_has_rows_and_columns(path):
    with pytest.raises(BrokenCache, match="layers/00/tokens, layers/01/tokens should be of"):
        write_file(path, make_token_spec(50, grids=((6,), (6,))))


def test_int8_without_its_scales_is_refused(path):
    spec = make_token_spec(50, "int8")
    write_file(path, spec)
    forge(path, arrays=[name for name in spec.stored if not name.endswith("scale")])
    with pytest.raises(BrokenCache, match="layers/00/tokens, layers/01/tokens should be of"):
        read_header(path)


@pytest.mark.parametrize("make", [make_spec, make_token_spec])
def test_an_array_of_a_later_writer_is_left_alone(path, capsys, monkeypatch, make):
    """By row, by unit or of another shape: what is known is read, what can be is compared."""
    n = 300
    spec = make(n, fixed_unit_rows=32) if make is make_token_spec else make(n)
    later = {"layers/00/max": (n, 7), "later/of_units": (spec.n_units, 3), "later/other": (5,)}
    first, *others = spec.stored
    names = [first, *later, *others]
    write_with_others(path, spec, names, later)
    features = open_features(path)
    assert [*features.header.arrays] == [*spec.stored]
    assert {*features.header.others} == {"layers/00/max", "later/of_units"}
    name = [*spec.stored][-1]
    whole = np.concatenate([features.stored(name, u) for u in range(spec.n_units)])
    np.testing.assert_array_equal(whole, content_of(spec)[name].astype(whole.dtype))
    assert cache(["verify", str(path)]) == 0
    with pytest.raises(StaleCache, match="arrays: "):  # it can't be finished here
        FeatureWriter(path, spec)
    place = features.header.others["later/of_units"]
    with path.open("r+b") as file:
        file.seek(place.offset + place.row_bytes)
        file.write(b"\xff")
    assert cache(["verify", str(path)]) == 1
    assert "unit 1 (later/of_units)" in capsys.readouterr().err


def write_with_others(path, spec, names, later):
    """A whole file as a later medprobe would write it, zeros in the arrays that we don't know."""
    path.parent.mkdir()
    create_file(path, spec)
    on_pages = {"alignment_threshold": 1, "alignment_interval": 4096}
    with h5py.File(path, "r+", locking=False, **on_pages) as file:
        for name, shape in later.items():
            kind = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            kind.set_layout(h5py.h5d.CONTIGUOUS)
            kind.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            file.require_group(name.rpartition("/")[0])
            space = h5py.h5s.create_simple(shape)
            h5py.h5d.create(file.id, name.encode(), h5py.h5t.NATIVE_UINT8, space, dcpl=kind)
    forge(path, arrays=names)
    header = read_header(path)
    with path.open("r+b") as file:
        for unit in range(header.n_units):
            record = np.zeros(1024, "<u4")
            record[0] = 1
            parts = unit_arrays(spec, unit)
            for name, at in {**header.arrays, **header.others}.items():
                part = header.part(at, unit)
                values = np.zeros((part.stop - part.start, *at.shape[1:]), at.dtype)
                if name in parts:
                    values[:] = parts[name]
                file.seek(at.offset + part.start * at.row_bytes)
                file.write(values.tobytes())
                record[header.word(name)] = zlib.crc32(values.tobytes())
            file.seek(header.units.offset + unit * 4096)
            file.write(record.tobytes())


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_another_program_reads_one_by_offsets(path, dtype):
    """As FORMAT.md tells: HDF5 says where arrays lie, numpy reads them, nothing of ours is used."""
    spec = make_token_spec(90, dtype, fixed_unit_rows=32, looks=PICTURED)
    write_file(path, spec)
    found, pictures = read_foreign(path, layer=1)
    features = open_features(path)
    np.testing.assert_array_equal(found, features.tokens(1, slice(None)))
    np.testing.assert_array_equal(pictures, features.pictures)


def read_foreign(path, layer):
    """The tokens of a layer and the pictures of a token file, every checksum compared."""
    with h5py.File(path) as file:
        assert file.attrs["format"] == b"medprobe-features"
        assert file.attrs["format_version"] == 2
        names = [name.decode() for name in file.attrs["arrays"]]
        step = int(file.attrs["unit_rows"])
        of = {n: (file[n].id.get_offset(), file[n].shape, file[n].dtype) for n in [*names, "units"]}
    n_rows = of[f"layers/{layer:02d}/tokens"][1][0]

    def read(name):
        offset, shape, dtype = of[name]
        return np.fromfile(path, dtype, int(np.prod(shape)), offset=offset).reshape(shape)

    records = read("units")
    assert len(records) == -(-n_rows // step)
    assert (records[:, 0] == 1).all()

    def checked(name):
        values = read(name)
        for unit, record in enumerate(records):
            by_unit = name.endswith(("_scale", "_error"))
            rows = slice(unit, unit + 1) if by_unit else slice(unit * step, (unit + 1) * step)
            assert zlib.crc32(values[rows].tobytes()) == record[1 + names.index(name)]
        return values

    tokens = checked(f"layers/{layer:02d}/tokens")
    if tokens.dtype == np.int8:
        scale = checked(f"layers/{layer:02d}/tokens_scale")[np.arange(n_rows) // step]
        tokens = tokens * scale[:, None, None, :]
    return tokens, checked("rows/picture")
