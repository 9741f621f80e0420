"""Leaks between splits: every pair that a slow look finds is found, and nothing else."""

import hashlib
import io
import tracemalloc
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from features import make_spec, unit_arrays, write_file, write_rows

from cache import leak_memory, leaks
from cache.cli import main
from cache.errors import BrokenCache
from cache.features import open_features
from cache.format.spec import HASH, THUMBNAIL
from cache.leak_memory import count_leaks
from cache.leaks import MAX_TWINS, NEAR, Twin, describe_leaks, find_twins, sketch, unit_vectors
from cache.store import FeatureWriter

TRAIN, VAL, TEST, LEFT_OUT = 0, 1, 2, 255


def hashes_of(pictures):
    digests = [hashlib.sha256(picture.tobytes()).digest()[:16] for picture in pictures]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)


def find(pictures, split, row_sample=None, groups=None):
    rows = np.arange(len(pictures)) if row_sample is None else np.asarray(row_sample)
    pictures = pictures.reshape(len(pictures), -1)
    return find_twins(pictures, hashes_of(pictures), rows, np.array(split), groups)


def as_bytes(x):
    """Standard deviation 40 about 128: rounding moves a correlation by less than 1e-4."""
    return np.clip(np.rint(128 + 40 * x), 0, 255).astype(np.uint8)


def pictures_near_the_border(rng, n, n_pixels):
    """Half have a twin among the others, with a correlation of .98 to 1."""
    x = rng.normal(size=(n, n_pixels))
    for copy in range(0, n, 2):
        r = rng.uniform(0.98, 1)
        x[copy] = r * x[rng.integers(n)] + (1 - r * r) ** 0.5 * rng.normal(size=n_pixels)
    return as_bytes(x)


def smooth_pictures(rng, n, side):
    """Waves whose correlations are spread widely: what medical images are like."""
    y, x = np.mgrid[:side, :side] / side
    waves = np.stack([np.cos(3 * (a * x + b * y)) for a in range(3) for b in range(3)])
    weights = rng.normal(size=(n // 20, 9))[rng.integers(n // 20, size=n)]
    return as_bytes(np.tensordot(weights + rng.normal(0, 0.2, (n, 9)), waves, 1) / 2)


# ---------------------------------------------------------------------------- near twins


def slow_pairs(pictures, split):
    """Every pair above NEAR of a sample and one of an earlier split, by numpy's own correlation."""
    r = np.corrcoef(pictures.reshape(len(pictures), -1).astype(float))
    return {
        (i, j): r[i, j]
        for i in range(len(split))
        for j in range(len(split))
        if split[j] < split[i] <= TEST and r[i, j] > NEAR
    }


@pytest.mark.parametrize("side", [28, 64])
@pytest.mark.parametrize("kind", ["near the border", "smooth"])
def test_every_near_pair_is_found_and_no_other(side, kind):
    rng = np.random.default_rng(side)
    n = 500
    pictures = (
        smooth_pictures(rng, n, side)
        if kind == "smooth"
        else pictures_near_the_border(rng, n, side * side)
    )
    split = rng.choice([TRAIN, VAL, TEST, LEFT_OUT], n).astype(np.uint8)
    expected = slow_pairs(pictures, split)
    assert len(expected) > 20
    found = find(pictures, split)
    assert set(np.flatnonzero(found.twin)) == {i for i, _ in expected}
    assert not found.exact.any()
    for sample in np.flatnonzero(found.twin):
        listed = {t.other: t.correlation for t in found.twins if t.sample == sample}
        best = sorted((-r, j) for (i, j), r in expected.items() if i == sample)[:MAX_TWINS]
        assert listed == pytest.approx({j: -r for r, j in best}, abs=1e-6)


def test_the_size_of_blocks_changes_nothing(monkeypatch):
    rng = np.random.default_rng(3)
    pictures = smooth_pictures(rng, 400, 16)
    split = rng.integers(0, 3, 400)
    whole = find(pictures, split)
    monkeypatch.setattr(leaks, "N_QUERIES", 70)
    monkeypatch.setattr(leaks, "BLOCK_PIXELS", 1)  # blocks of 64
    in_blocks = find(pictures, split)
    assert whole.twins == in_blocks.twins
    assert len(whole.twins) > 100
    np.testing.assert_array_equal(whole.near, in_blocks.near)


@pytest.mark.parametrize("side", [1, 2, 15, 16, 17, 28, 64])
def test_a_sketch_never_hides_a_correlation(side):
    rng = np.random.default_rng(side)
    smooth = rng.normal(size=(40, 1)) * np.linspace(-1, 1, side * side) + 0.01 * rng.normal(
        size=(40, side * side)
    )
    pictures = as_bytes(np.concatenate([smooth, rng.normal(size=(40, side * side))]))
    units = unit_vectors(pictures)
    short = sketch(units, 1).astype(np.float64)
    n_blocks = min(side, leaks.SKETCH_SIDE) ** 2
    assert short.shape == (80, n_blocks + 1)
    assert (short @ short.T > units @ units.T - leaks.SLACK / 2).all()
    lengths = np.linalg.norm(short, axis=1)
    np.testing.assert_allclose(lengths[units.any(axis=1)], 1, atol=1e-6)


def test_a_sketch_of_blocks_is_the_picture_itself():
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (30, 16, 16), dtype=np.uint8)
    units = unit_vectors(blocks.repeat(4, axis=1).repeat(4, axis=2).reshape(30, -1))
    short = sketch(units, 1)
    np.testing.assert_allclose(short @ short.T, units @ units.T, atol=1e-5)


def test_flat_pictures_are_no_near_twins_but_exact_ones():
    pictures = np.repeat(np.array([0, 255, 7, 9, 7], np.uint8)[:, None], 64, axis=1)
    found = find(pictures, [TRAIN, TRAIN, TRAIN, TEST, TEST])
    assert found.twins == (Twin(4, 2, 1.0, "exact"),)
    assert not found.near.any()


def test_the_eight_most_alike_are_listed_exact_ones_first():
    rng = np.random.default_rng(1)
    base = rng.normal(size=256)
    # Less and less like the first; the tenth is a copy of it.
    pictures = as_bytes(np.stack([base + 0.008 * i * rng.normal(size=256) for i in range(12)]))
    pictures[10] = pictures[0]
    found = find(pictures, [TEST] + [TRAIN] * 11)
    assert [twin.other for twin in found.twins] == [10, 1, 2, 3, 4, 5, 6, 7]
    assert [twin.kind for twin in found.twins] == ["exact"] + ["near"] * 7
    assert found.summary()["exact"] == 1
    assert found.summary()["near"] == 0  # it has an exact copy: it counts once


def test_breastmnist_has_nineteen(real_data):
    with np.load(real_data / "breastmnist_64.npz") as file:
        parts = [file[f"{name}_images"] for name in ("train", "val", "test")]
    split = np.repeat([TRAIN, VAL, TEST], [len(part) for part in parts])
    pictures = np.concatenate(parts)
    assert find(pictures, split).summary() == {
        "n": 156,
        "exact": 1,
        "near": 21,
        "groups": None,
        "group_samples": None,
        "val_n": 78,
        "val_exact": 0,
        "val_near": 12,
        "val_groups": None,
        "val_group_samples": None,
    }
    in_train = find(pictures, np.where(split == VAL, LEFT_OUT, split))
    assert in_train.twin.sum() == 19
    assert in_train.exact.sum() == 1
    slowly = {i for i, j in slow_pairs(pictures, split) if split[i] == TEST and split[j] == TRAIN}
    assert set(np.flatnonzero(in_train.twin)) == slowly


# ---------------------------------------------------------------------------- copies and patients


def test_copies_count_only_across_splits_and_from_later_to_earlier():
    a, b, c = np.random.default_rng(0).integers(0, 256, (3, 64), dtype=np.uint8)
    pictures = np.stack([a, a, b, b, c, c, a])
    found = find(pictures, [TRAIN, TRAIN, VAL, TEST, TEST, TEST, VAL])
    assert found.exact.tolist() == [False, False, False, True, False, False, True]
    assert {twin[:2] for twin in found.twins} == {(3, 2), (6, 0), (6, 1)}
    summary = found.summary()
    assert (summary["exact"], summary["val_exact"], summary["near"]) == (1, 1, 0)


def test_hashes_that_end_in_zeros_are_told_apart():
    pictures = np.random.default_rng(0).integers(0, 256, (4, 64), dtype=np.uint8)
    hashes = np.zeros((4, 16), np.uint8)
    hashes[:, 0] = [1, 2, 1, 0]
    hashes[3, 15] = 1
    found = find_twins(pictures, hashes, np.arange(4), np.array([TRAIN, TRAIN, TEST, TEST]))
    assert found.exact.tolist() == [False, False, True, False]


def test_patients_in_two_splits():
    pictures = np.random.default_rng(0).integers(0, 256, (7, 64), dtype=np.uint8)
    split = [TRAIN, VAL, TEST, TEST, TEST, LEFT_OUT, VAL]
    groups = np.array(["p1", "p1", "p1", "p1", "", "p2", "p2"])
    found = find(pictures, split, groups=groups)
    assert found.patient.tolist() == [False, True, True, True, False, False, False]
    assert found.summary()["groups"] == 1
    assert found.summary()["group_samples"] == 2
    assert found.summary()["val_groups"] == 1


def test_nobody_is_no_patient():
    pictures = np.random.default_rng(0).integers(0, 256, (2, 64), dtype=np.uint8)
    found = find(pictures, [TRAIN, TEST], groups=np.array(["", ""]))
    assert found.summary()["groups"] == 0


# ---------------------------------------------------------------------------- volumes


def test_volumes_are_twins_as_wholes():
    rng = np.random.default_rng(5)
    volume = rng.integers(0, 240, (24, 64), dtype=np.uint8)
    brighter = volume + 10  # another hash, a correlation of 1
    other = np.concatenate([volume[:4], rng.integers(0, 256, (20, 64), dtype=np.uint8)])
    volumes = [volume, volume, volume[::-1], brighter, other, volume.repeat(2, axis=0)]
    row_sample = np.repeat(np.arange(6), [len(v) for v in volumes])
    found = find(np.concatenate(volumes), [TRAIN] + [TEST] * 5, row_sample)
    assert found.exact.tolist() == [False, True, False, False, False, False]
    # The last has twice the slices, of the same things: not the same rows, but the same pieces.
    assert found.near.tolist() == [False, False, False, True, False, True]


def test_the_order_of_a_files_rows_means_nothing():
    rng = np.random.default_rng(6)
    row_sample = np.repeat(np.arange(5), [3, 1, 9, 2, 3])
    slices = smooth_pictures(rng, 40, 8)[: len(row_sample)].reshape(-1, 64)
    slices[row_sample == 4] = slices[row_sample == 0]
    split = [TRAIN, TRAIN, VAL, TEST, TEST]
    expected = find(slices, split, row_sample)
    assert expected.exact.tolist() == [False] * 4 + [True]
    order = np.argsort(rng.random(5)[row_sample], kind="stable")  # of a sample the order stays
    assert find(slices[order], split, row_sample[order]).twins == expected.twins


def test_a_sample_of_few_rows_is_compared_by_all_of_them():
    rng = np.random.default_rng(7)
    views = rng.integers(0, 256, (3, 64), dtype=np.uint8)
    # One sample's only view is another's second: not the same sample.
    found = find(views[[0, 1, 1, 2, 0, 1]], [TRAIN, TEST, TEST, TEST], [0, 0, 1, 2, 3, 3])
    assert found.exact.tolist() == [False, False, False, True]


def test_a_sample_without_rows_is_refused():
    pictures = np.zeros((2, 64), np.uint8)
    with pytest.raises(BrokenCache, match="1 of 3 samples have no rows"):
        find(pictures, [TRAIN, TEST, TEST], [0, 2])


# ---------------------------------------------------------------------------- cost


def test_memory_does_not_grow_with_the_samples(monkeypatch):
    monkeypatch.setattr(leaks, "N_QUERIES", 256)
    monkeypatch.setattr(leaks, "BLOCK_PIXELS", 2**16)

    def peak(n):
        pictures = np.random.default_rng(0).integers(0, 256, (n, 256), dtype=np.uint8)
        arguments = (pictures, hashes_of(pictures), np.arange(n), np.arange(n) % 3)
        tracemalloc.start()
        try:
            find_twins(*arguments)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # The tables of samples may grow, some 100 bytes each; a square of 4000 x 2000 would be 8 MB.
    assert peak(6000) - peak(2000) < 4000 * 200


def test_a_set_of_one_picture_ends_and_lists_a_few():
    pictures = as_bytes(np.random.default_rng(0).normal(size=64))[None].repeat(900, axis=0)
    pictures[:, 0] = np.arange(900) % 5  # five pictures, all of them twins
    found = find(pictures, np.repeat([TRAIN, TEST], [600, 300]))
    assert found.exact[600:].all()
    assert len(found.twins) == 300 * MAX_TWINS


# ---------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("of_test", "of_val", "words"),
    [
        ((0, 0, 0), (0, 0, 0), "0"),
        ((0, 0, None), (0, 0, None), "0; patients unknown"),
        ((1, 18, 0), (0, 0, 0), "1 exact copy, 18 near twins of 156 test samples"),
        (
            (2, 1, None),
            (0, 0, None),
            "2 exact copies, 1 near twin of 156 test samples; patients unknown",
        ),
        ((0, 0, 1), (0, 0, 0), "1 patient of 156 test samples"),
        (
            (0, 3, 2),
            (8, 0, 0),
            "3 near twins, 2 patients of 156 test samples; 8 exact copies of 78 val samples",
        ),
    ],
)
def test_words(of_test, of_val, words):
    names = ("exact", "near", "groups")
    summary = dict(zip(names, of_test, strict=True)) | {"n": 156, "val_n": 78}
    summary |= {f"val_{name}": n for name, n in zip(names, of_val, strict=True)}
    assert describe_leaks(summary) == words


# ---------------------------------------------------------------------------- memory


def write_looks(path, groups=None, n=60, side=8, **key):
    """A feature file whose last picture is its first's copy."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (n, side * side), dtype=np.uint8)
    pictures[-1] = pictures[0]
    spec = make_spec(n, {"head": 3, HASH: 16, THUMBNAIL: side * side}, **key)
    groups = None if groups is None else groups[:n]
    spec = replace(spec, samples=replace(spec.samples, groups=groups))
    content = {HASH: hashes_of(pictures), THUMBNAIL: pictures, "head": np.ones((n, 3))}
    return open_features(write_rows(path, spec, content))


def refuse_to_search(*arguments):
    raise AssertionError("searched again")


def same(a, b):
    return (
        a.twins == b.twins
        and a.summary() == b.summary()
        and all(
            np.array_equal(getattr(a, name), getattr(b, name))
            for name in ("split", "exact", "near", "twin")
        )
    )


@pytest.mark.parametrize("with_groups", [False, True])
def test_leaks_are_searched_once(tmp_path, monkeypatch, with_groups):
    groups = np.array([f"p{i % 50}" for i in range(60)]) if with_groups else None
    features = write_looks(tmp_path / "toys" / "a.h5", groups)
    found = count_leaks(features)
    assert found.summary()["exact"] == 1
    assert found.summary()["groups"] == (10 if with_groups else None)
    monkeypatch.setattr(leak_memory, "find_twins", refuse_to_search)
    again = count_leaks(features)
    assert again is not None
    assert same(found, again)
    # Another encoder's file of the same images in the same folder.
    other = count_leaks(write_looks(tmp_path / "toys" / "b.h5", groups, precision="bf16"))
    assert other is not None
    assert same(found, other)


def test_another_split_or_other_patients_are_searched_anew(tmp_path, monkeypatch):
    features = write_looks(tmp_path / "toys" / "a.h5")
    grouped = write_looks(tmp_path / "toys" / "b.h5", np.array([f"p{i % 50}" for i in range(60)]))
    everything = count_leaks(features)
    of_train = count_leaks(features, np.zeros(60, np.uint8))
    assert everything is not None
    assert of_train is not None
    assert everything.exact.any()
    assert not of_train.exact.any()
    monkeypatch.setattr(leak_memory, "find_twins", refuse_to_search)
    with pytest.raises(AssertionError, match="searched again"):
        count_leaks(grouped)


@pytest.mark.parametrize(
    "damage",
    [
        "empty",
        "cut",
        "flipped",
        "no zip",
        "other size",
        "out of range",
        "patients",
        "huge",
        "locked",
    ],
)
def test_a_damaged_memory_is_made_anew(tmp_path, damage):
    features = write_looks(tmp_path / "toys" / "a.h5")
    found = count_leaks(features)
    (path,) = (tmp_path / "toys" / ".leaks").glob("*.npz")
    content = path.read_bytes()
    with np.load(path) as file:
        arrays = dict(file)
    if damage == "other size":
        np.savez(path, **{**arrays, "exact": np.ones(3, bool)})
    elif damage == "out of range":
        np.savez(path, **{**arrays, "pairs": arrays["pairs"] + 60})
    elif damage == "patients":
        np.savez(path, **{**arrays, "patient": np.zeros(60, bool)})
    elif damage == "huge":
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            head, {"descr": "|b1", "fortran_order": False, "shape": (10**14,)}
        )
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("exact.npy", head.getvalue())
    elif damage == "locked":
        flags = content.index(b"PK\1\2") + 8
        path.write_bytes(content[:flags] + b"\1" + content[flags + 1 :])
    elif damage == "flipped":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :])
    else:
        path.write_bytes({"empty": b"", "cut": content[:-90], "no zip": b"{}"}[damage])
    again = count_leaks(features)
    assert found is not None
    assert again is not None
    assert same(found, again)


def test_damaged_thumbnails_are_not_compared(tmp_path):
    features = write_looks(tmp_path / "toys" / "a.h5")
    place = features.header.arrays[THUMBNAIL].offset
    with features.path.open("r+b") as file:
        file.seek(place)
        file.write(bytes(64))
    with pytest.raises(BrokenCache, match="rows/thumbnail don't match their checksum"):
        count_leaks(open_features(features.path))
    assert not (tmp_path / "toys" / ".leaks").exists()


def test_a_folder_that_cant_be_written_is_no_reason_to_stop(tmp_path):
    features = write_looks(tmp_path / "toys" / "a.h5")
    (tmp_path / "toys" / ".leaks").write_text("a file, where the folder should be")
    found = count_leaks(features)
    assert found.exact.sum() == 1


def test_files_without_pictures_have_unknown_leaks(tmp_path):
    assert count_leaks(open_features(write_file(tmp_path / "a.h5", make_spec()))) is None


def test_leaks_between_two_data_sets(tmp_path, monkeypatch):
    people = np.array(["p1"] * 60)
    test = write_looks(tmp_path / "toys" / "a.h5", people)
    train = write_looks(tmp_path / "others" / "a.h5", people, n=20)
    train_split = np.repeat([TRAIN, VAL, LEFT_OUT], [8, 4, 8]).astype(np.uint8)
    found = count_leaks(test, np.full(60, TEST, np.uint8), trained_on=(train, train_split))
    assert found is not None
    # The first rows of both files are drawn alike; each one's last is a copy of its first.
    assert np.flatnonzero(found.exact).tolist() == [*range(12), 59]
    assert {(t.sample, t.other) for t in found.twins} == {
        *((i, 60 + i) for i in range(12)),
        (59, 60),
    }
    assert found.summary()["groups"] is None  # another data set's p1 is somebody else
    monkeypatch.setattr(leak_memory, "find_twins", refuse_to_search)
    again = count_leaks(test, np.full(60, TEST, np.uint8), trained_on=(train, train_split))
    assert again is not None
    assert same(found, again)


def test_thumbnails_of_two_sizes_cant_be_compared(tmp_path):
    test = write_looks(tmp_path / "toys" / "a.h5")
    train = write_looks(tmp_path / "others" / "a.h5", side=6)
    split = np.full(60, TEST, np.uint8)
    assert count_leaks(test, split, trained_on=(train, np.zeros(60, np.uint8))) is None


def test_show_tells_what_was_counted(tmp_path, capsys):
    path = tmp_path / "toy_8_a.h5"
    with FeatureWriter(path, make_spec(3)) as writer:
        writer.write_unit(0, unit_arrays(writer.spec, 0))
        zeros = dict.fromkeys(("near", "groups", "val_exact", "val_near", "val_groups"), 0)
        writer.finish({"device": "cpu", "leaks": {"n": 1, "val_n": 1, "exact": 1, **zeros}})
    assert main(["show", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "  leaks           1 exact copy of 1 test samples\n" in shown
    assert "  cost            device cpu\n" in shown


def test_a_long_search_is_announced(tmp_path, monkeypatch):
    features = write_looks(tmp_path / "toys" / "a.h5")
    monkeypatch.setattr(leak_memory, "LONG", 10)
    said = []
    count_leaks(features, say=said.append)
    assert said == ["toys: looking for twins of 40 val and test images, once"]
    count_leaks(features, say=said.append)
    assert len(said) == 1
