"""Streaming of .npz files, MedMNIST's checks and downloads, the demonstration set."""

import hashlib
import importlib.util
import itertools
import json
import os
import pickle
import shutil
import socket
import struct
import threading
import tracemalloc
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import RequestError
from cache.format.sample_tables import SPLITS
from extract.datasets.arrays import demo, medmnist, official
from extract.datasets.arrays.medmnist import find_file, open_medmnist
from extract.datasets.arrays.npz import open_npz, read_members, stream_rows
from extract.datasets.arrays.official import OfficialFile, download
from extract.datasets.dataset import class_task
from extract.datasets.files.definitions import save as save_definition
from extract.datasets.sources import expand_names, find_source
from extract.machine import network
from extract.machine.digests import DigestMemory, file_md5

IMAGES = [f"{split}_images" for split in SPLITS]


def plain_images(path: Path) -> np.ndarray:
    """All images of a file, by numpy alone."""
    with np.load(path) as file:
        return np.concatenate([file[name] for name in IMAGES])


def save_npz(path: Path, **changed: Any) -> Path:
    """A right file of 4 + 2 + 3 images with some members changed; None leaves one out."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, n in zip(SPLITS, (4, 2, 3), strict=True):
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, 8, 8), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(n) % 2).astype(np.uint8)[:, None]
    arrays.update(changed)
    np.savez_compressed(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


def open_file(path: Path):
    return open_npz(path, "x", "md5:0")


# ---------------------------------------------------------------------------- streaming


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_ascending_ranges_equal_plain_slices(tmp_path, write_npz, compress, channels):
    path = write_npz(
        tmp_path / "x.npz", counts=(37, 1, 20), side=9, channels=channels, compress=compress
    )
    expected = plain_images(path)
    for seed in range(60):
        rng = np.random.default_rng(seed)
        # Neighbours, gaps, ranges over one, two and three members, the very end or not.
        edges = np.unique(rng.integers(0, len(expected) + 1, 2 * rng.integers(1, 12)))
        ranges = [(int(a), int(b)) for a, b in itertools.pairwise(edges)]
        ranges = [r for r in ranges if rng.random() < 0.6] or ranges[:1]
        blocks = list(stream_rows(path, IMAGES, ranges))
        assert len(blocks) == len(ranges)
        for (start, stop), block in zip(ranges, blocks, strict=True):
            np.testing.assert_array_equal(block, expected[start:stop])
            assert block.dtype == np.uint8


def test_an_empty_split_in_the_middle(tmp_path, write_npz):
    path = write_npz(tmp_path / "x.npz", counts=(5, 0, 4))
    expected = plain_images(path)
    (block,) = stream_rows(path, IMAGES, [(3, 9)])
    np.testing.assert_array_equal(block, expected[3:9])
    assert open_file(path).n_rows == 9
    first, second = stream_rows(path, IMAGES, [(0, 2), (2, 4)])
    second[:] = 0
    np.testing.assert_array_equal(first, expected[:2])  # blocks share no memory
    with pytest.raises(RequestError, match=r"is damaged.*fewer rows than its headers say"):
        list(stream_rows(path, IMAGES, [(0, 10)]))


def test_a_stopped_stream_leaves_no_open_file(tmp_path, write_npz):
    """An open file left behind is a ResourceWarning, and warnings are errors here."""
    stream = stream_rows(write_npz(tmp_path / "x.npz"), IMAGES, [(0, 2), (2, 4)])
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    shutil.rmtree(tmp_path)


# ---------------------------------------------------------------------------- damage


def test_pickled_objects_are_refused_unread(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    traps = np.array([[Trap()]] * 4, dtype=object)
    pickle.dumps(traps)
    for member in ("train_labels", "train_images", "extra"):
        path = save_npz(tmp_path / "x.npz", **{member: traps})
        with pytest.raises(RequestError, match=f"{member}.npy holds pickled objects"):
            open_file(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("compress", [True, False])
def test_a_file_cut_anywhere_is_one_clear_error(tmp_path, write_npz, compress):
    whole = write_npz(tmp_path / "x.npz", compress=compress).read_bytes()
    path = tmp_path / "cut.npz"
    for share in (0.0, 0.1, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(RequestError, match=r"is damaged, or no \.npz file .*get it anew"):
            open_file(path)


@pytest.mark.parametrize("compress", [True, False])
def test_flipped_bytes_never_give_other_images(tmp_path, write_npz, compress):
    """Every byte of damage is refused or harmless; nothing but a RequestError comes out."""
    path = write_npz(tmp_path / "x.npz", counts=(6, 2, 2), side=8, compress=compress)
    whole, expected = path.read_bytes(), plain_images(path)
    with np.load(path) as file:
        labels = np.concatenate([file[f"{s}_labels"] for s in SPLITS])[:, 0]
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.choice(len(whole), 150, replace=False):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            dataset = open_file(path)
            (images,) = dataset.stream([(0, dataset.n_rows)])
        except RequestError:
            refused += 1
            continue
        np.testing.assert_array_equal(images, expected)
        np.testing.assert_array_equal(dataset.samples.labels, labels)
    assert refused > 75


def test_what_is_no_npz(tmp_path):
    html, other = tmp_path / "x.npz", tmp_path / "y.npz"
    html.write_text("<html>404</html>")
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("notes.txt", "hello")
    for path in (html, other):
        with pytest.raises(RequestError, match=rf"{path.name} is damaged, or no \.npz"):
            read_members(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"val_labels": None}, r"lacks val_labels; expected MedMNIST's layout"),
        ({"test_images": None}, r"lacks test_images"),
        ({"train_images": np.zeros((4, 8, 8), np.float32)}, r"uint8 in C order, found float32"),
        (
            {"train_images": np.asfortranarray(np.zeros((4, 8, 8), np.uint8))},
            r"in Fortran order",
        ),
        ({"train_images": np.zeros((4, 8, 9), np.uint8)}, r"alike in every split"),
        ({"train_images": np.zeros((4, 8, 8, 4), np.uint8)}, r"images should be \(n, H, W\)"),
        ({"train_images": np.zeros((4, 8, 8, 8, 1), np.uint8)}, r"images should be"),
        ({"train_images": np.zeros((4, 16, 16), np.uint8)}, r"alike in every split"),
        ({"train_labels": np.zeros((3, 1), np.uint8)}, r"should be 4 rows of whole numbers"),
        ({"train_labels": np.zeros((4, 1), np.float32)}, r"found \(4, 1\) float32"),
        ({"train_labels": np.array(["a"] * 4)}, r"whole numbers"),
        ({"train_labels": np.array(3)}, r"should be 4 rows of whole numbers, found \(\)"),
        ({"train_labels": np.zeros((4, 2), np.uint8)}, r"labels differ in shape"),
        ({"train_labels": np.full((4, 1), -1)}, r"labels must lie in 0\.\.3999, found -1\.\.1"),
        ({"train_labels": np.full((4, 1), 10**9)}, r"found 0\.\.1000000000"),
    ],
)
def test_wrong_members_are_named(tmp_path, changed, message):
    with pytest.raises(RequestError, match=message):
        open_file(save_npz(tmp_path / "x.npz", **changed))


def npy(shape, values=b"", descr="|u1", said=None, version=1, length=None) -> bytes:
    """An array's bytes; what its header says may be anything."""
    words = {"descr": descr, "fortran_order": False, "shape": shape}
    text = (repr(words) if said is None else said).encode() + b"\n"
    n = struct.pack("<H" if version == 1 else "<I", len(text) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + n + text + values


@pytest.mark.parametrize(
    ("member", "content", "message"),
    [
        ("train_images", npy((10**12, 8, 8), bytes(64)), r"holds \(10+, 8, 8\) .* 64 bytes of it"),
        ("train_images", npy((10**40, 8, 8)), "0 bytes of it at most"),
        ("train_images", npy((-4, 8, 8), bytes(256)), r"says that it holds \(-4, 8, 8\)"),
        ("train_labels", npy((4, 10**12)), "0 bytes of it at most"),
        ("train_labels", npy((4, 1), descr="|V2147483647"), "0 bytes of it at most"),
        ("train_labels", npy((4, 1), descr="<U1000000000"), "header that can't be read"),
        ("train_labels", npy((4, 1), bytes(9)), "goes on behind its labels"),
        ("train_labels", npy((), said="(" * 9000), "header that can't be read"),
        ("train_labels", npy((), said="-" * 9000 + "1"), "header that can't be read"),
        ("train_labels", npy((), said="not " * 2000 + "1"), "header that can't be read"),
        ("train_labels", npy((), said="{1: 2, 'a': 3}"), "header that can't be read"),
        ("extra", npy((), said="x" * 20_000), "header of 20_001 bytes; at most 10_000"),
        ("extra", npy((), version=2, length=2**32 - 1), "header of 4_294_967_295 bytes"),
        ("extra", npy((), version=3), "unknown .npy version"),
        ("extra", npy((2**25,), bytes(2**25)), None),  # zeros, deflated as far as they can be
    ],
)
def test_headers_that_promise_too_much_are_refused(tmp_path, member, content, message):
    path = save_npz(tmp_path / "x.npz", **{member: None})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{member}.npy", content)
    if message is None:
        assert open_file(path).n_rows == 9
        return
    tracemalloc.start()
    with pytest.raises(RequestError, match=message):
        open_file(path)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("n", "shape", "message"),
    [
        (0, (0, 0), "images of 0 x 0 pixels: nothing to see"),
        (0, (10_000, 10_000), "images of 10000 x 10000 pixels, where at most 89 million"),
        (2**23, (1, 1), "25_165_824 samples; at most 16_777_216"),
    ],
)
def test_images_that_no_memory_holds_or_nobody_sees(tmp_path, n, shape, message):
    images = {name: np.zeros((n, *shape), np.uint8) for name in IMAGES}
    labels = {} if n else {f"{s}_labels": np.zeros((0, 1), np.uint8) for s in SPLITS}
    with pytest.raises(RequestError, match=message):
        open_file(save_npz(tmp_path / "x.npz", **images, **labels))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_inflates_at_once_is_refused(tmp_path, method):
    path = save_npz(tmp_path / "x.npz", test_labels=None)
    with zipfile.ZipFile(path, "a", method) as archive:
        archive.writestr("test_labels.npy", npy((3, 1), b"\0\1\0"))
    with pytest.raises(RequestError, match="test_labels.npy is compressed otherwise than numpy"):
        open_file(path)


def test_images_of_any_shape(tmp_path):
    images = {
        name: np.random.default_rng(i).integers(0, 256, (n, 5, 9, 3), np.uint8)
        for i, (name, n) in enumerate(zip(IMAGES, (4, 2, 3), strict=True))
    }
    dataset = open_file(save_npz(tmp_path / "x.npz", **images))
    assert (dataset.source_size, dataset.n_channels, dataset.n_rows) == (None, 3, 9)
    (found,) = dataset.stream([(0, 9)])
    np.testing.assert_array_equal(found, np.concatenate([*images.values()]))
    assert find_source(f"npz:{tmp_path / 'x.npz'}", 32, None, None).usual_resize == "pad-fit"


@pytest.mark.parametrize("shape", [(8, 8, 4), (3, 8, 8), (8, 8, 1), (4, 8, 9)])
def test_channels_that_come_first_or_are_four_are_no_volumes(tmp_path, shape):
    counts = zip(IMAGES, (4, 2, 3), strict=True)
    path = save_npz(tmp_path / "x.npz", **{s: np.zeros((n, *shape), np.uint8) for s, n in counts})
    with pytest.raises(RequestError, match=r"or volumes \(n, D, H, W\)"):
        find_source(f"npz:{path}", 32, None, None)


def test_several_labels_are_zeros_and_ones(tmp_path):
    labels = {f"{s}_labels": np.full((n, 14), 2) for s, n in zip(SPLITS, (4, 2, 3), strict=True)}
    with pytest.raises(RequestError, match=r"0\.\.1, one column a class, found 2\.\.2"):
        open_file(save_npz(tmp_path / "x.npz", **labels))


# ---------------------------------------------------------------------------- labels, ids


@pytest.mark.parametrize(
    ("n_labels", "classes", "task", "shape"),
    [
        (1, 2, "binary-class", (36,)),
        (1, 7, "multi-class", (36,)),
        (14, 2, "multi-label, binary-class", (36, 14)),
    ],
)
def test_labels(tmp_path, write_npz, n_labels, classes, task, shape):
    path = write_npz(tmp_path / "x.npz", n_labels=n_labels, classes=classes, channels=3)
    dataset = open_file(path)
    with np.load(path) as file:
        expected = np.concatenate([file[f"{s}_labels"] for s in SPLITS]).reshape(shape)
    np.testing.assert_array_equal(dataset.samples.labels, expected)
    assert dataset.task == task
    assert (dataset.source_size, dataset.n_channels) == (28, 3)
    assert len(dataset.class_names) == max(classes, n_labels)
    assert dataset.row_ids[[0, 19, 20, 35]].tolist() == [
        "train/000000",
        "train/000019",
        "val/000000",
        "test/000009",
    ]
    assert np.bincount(dataset.samples.split).tolist() == [20, 6, 10]
    assert len(set(dataset.row_ids)) == 36


def test_flat_labels_are_taken_too(tmp_path):
    labels = {f"{s}_labels": np.arange(n) for s, n in zip(SPLITS, (4, 2, 3), strict=True)}
    dataset = open_file(save_npz(tmp_path / "x.npz", **labels))
    assert dataset.samples.labels.tolist() == [0, 1, 2, 3, 0, 1, 0, 1, 2]
    assert dataset.class_names == ("0", "1", "2", "3")
    assert class_task(np.zeros(5, np.int64)) == "binary-class"  # of one class


# ---------------------------------------------------------------------------- digests


def count_calls(path: Path) -> Callable[[Path], str]:
    def compute(file: Path) -> str:
        with path.open("a") as log:
            log.write("x")
        return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()

    return compute


def test_digests_are_remembered_until_the_file_changes(tmp_path):
    file, calls = tmp_path / "file", tmp_path / "calls"
    file.write_bytes(b"one")
    compute = count_calls(calls)
    path = tmp_path / "digests.json"
    first = DigestMemory(path).get("md5", file, compute)
    assert DigestMemory(path).get("md5", file, compute) == first
    assert DigestMemory(path).recall("md5", file) == first
    assert DigestMemory(path).recall("weights", file) is None
    assert calls.read_text() == "x"

    file.write_bytes(b"two")  # same size
    os.utime(file, ns=(0, 1))
    assert DigestMemory(path).get("md5", file, compute) != first
    file.write_bytes(b"three")
    os.utime(file, ns=(0, 1))  # same time
    DigestMemory(path).get("md5", file, compute)
    assert calls.read_text() == "xxx"


def test_a_file_that_took_anothers_place_and_time_is_another(tmp_path):
    file, calls = tmp_path / "file", tmp_path / "calls"
    file.write_bytes(b"one")
    memory = DigestMemory(tmp_path / "digests.json")
    first = memory.get("md5", file, compute := count_calls(calls))
    times = file.stat().st_mtime_ns
    (tmp_path / "other").write_bytes(b"two")  # as large
    os.utime(tmp_path / "other", ns=(times, times))
    (tmp_path / "other").replace(file)
    assert memory.get("md5", file, compute) != first
    assert calls.read_text() == "xx"


@pytest.mark.parametrize(
    "edit",
    [
        lambda entry: entry | {"digest": "0" * 32},
        lambda entry: entry | {"digest": 3},
        lambda entry: entry | {"digest": None},
        lambda entry: entry | {"stamp": None},
        lambda entry: entry | {"stamp": [*entry["stamp"][:2], 7]},
        lambda entry: entry | {"check": 3},
        lambda entry: {"stamp": entry["stamp"][:2], "digest": "0" * 32},  # of older versions
        lambda entry: [entry],
        lambda entry: "abc",
    ],
)
def test_an_entry_that_was_edited_is_computed_again(tmp_path, edit):
    (tmp_path / "file").write_bytes(b"one")
    path, file = tmp_path / "digests.json", tmp_path / "file"
    memory = DigestMemory(path)
    digests = [memory.get("md5", file, file_md5), memory.get_of("stat", "of", lambda: "right")]
    path.write_text(json.dumps({k: edit(v) for k, v in json.loads(path.read_text()).items()}))
    assert memory.recall("md5", file) is None
    assert [
        memory.get("md5", file, file_md5),
        memory.get_of("stat", "of", lambda: "right"),
    ] == digests


def test_an_entry_under_anothers_name_is_computed_again(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode())
    path = tmp_path / "digests.json"
    DigestMemory(path).get_of("of", "a", lambda: "a's")
    (entry,) = json.loads(path.read_text()).values()
    path.write_text(json.dumps({"of:b": entry}))
    assert DigestMemory(path).get_of("of", "b", lambda: "b's") == "b's"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"md5:x": 3}', "\x00", "[" * 100_000, '{"a": {"b": NaN}}', "\xff"]
)
def test_a_damaged_memory_costs_only_time(tmp_path, content):
    path, file = tmp_path / "digests.json", tmp_path / "file"
    file.write_bytes(b"one")
    path.write_bytes(content.encode("latin-1"))
    assert DigestMemory(path).get("md5", file, lambda p: "abc") == "abc"
    assert json.loads(path.read_text())[f"md5:{file.resolve()}"]["digest"] == "abc"


def test_a_file_that_changes_while_it_is_read_is_not_remembered(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"one")

    def compute(path):
        path.write_bytes(b"longer")
        return "of the old content"

    memory = DigestMemory(tmp_path / "digests.json")
    memory.get("md5", file, compute)
    assert memory.recall("md5", file) is None


def test_a_memory_that_cannot_be_written_stops_nobody(tmp_path):
    (tmp_path / "file").write_bytes(b"one")
    memory = DigestMemory(tmp_path / "file" / "digests.json")
    assert memory.get("md5", tmp_path / "file", lambda p: "abc") == "abc"
    assert memory.recall("md5", tmp_path / "file") is None


# ---------------------------------------------------------------------------- MedMNIST


def test_names():
    assert expand_names(("breastmnist", "all", "demo"))[0] == "breastmnist"
    every = expand_names(("all", "breastmnist"))
    assert len(every) == 12
    n = [medmnist.find_file(name, 224, None, None).n_images for name in every]
    assert n == sorted(n), "smallest first"


@pytest.mark.posix
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.npz")
    with pytest.raises(RequestError, match=r"x\.npz is not a regular file; --data npz:FILE takes"):
        find_source(f"npz:{tmp_path / 'x.npz'}", 224, None, None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("brestmnist", "no data set 'brestmnist'; near names: breastmnist"),
        ("BreastMNIST", "near names: breastmnist"),
        ("xyzzy", "`extract data` lists them all .*folder:PATH, csv:FILE or npz:FILE"),
        ("scnas", "no data set 'scnas'; near names: scans "),
        ("isic-2019", "near names: .*isic2019"),
        ("adrenalmnist", "adrenalmnist3d"),
        ("npz:nowhere.npz", "no file at nowhere.npz"),
    ],
)
def test_unknown_data(name, message, tmp_path, monkeypatch):
    monkeypatch.setenv("MEDPROBE_DATASETS", str(tmp_path))
    save_definition("scans", "folder", tmp_path)
    with pytest.raises(RequestError, match=message):
        find_source(name, 224, None, None)


@pytest.mark.parametrize(
    ("size", "source_size", "expected"),
    [(28, None, 28), (29, None, 64), (224, None, 224), (518, None, 224), (518, 28, 28)],
)
def test_source_size(size, source_size, expected):
    file = find_file("pathmnist", size, source_size, Path("root"))
    assert file.source_size == expected
    suffix = "" if expected == 28 else f"_{expected}"
    assert file.path == Path("root") / f"pathmnist{suffix}.npz"
    assert f"pathmnist{suffix}.npz" in file.url


def test_source_sizes_that_are_not_there(tmp_path, write_npz):
    with pytest.raises(
        RequestError, match="--source-size takes 28, 64, 128, 224 for pathmnist, not 32"
    ):
        find_file("pathmnist", 224, 32, None)
    path = write_npz(tmp_path / "x.npz")
    with pytest.raises(RequestError, match=r"--source-size 64: x\.npz has images of 28 px only"):
        find_source(f"npz:{path}", 224, 64, None)
    with pytest.raises(RequestError, match="--source-size 28: demo has images of 64 px only"):
        find_source("demo", 224, 28, None)


def test_a_wrong_file_is_refused_with_expected_and_found(tmp_path, write_npz, monkeypatch):
    def refused(file, message, counts=None):
        if counts:
            write_npz(file.path, counts=counts, side=2)
        with pytest.raises(RequestError, match=message):
            open_medmnist(file, file_md5)

    file = find_file("breastmnist", 28, None, tmp_path)
    wrong = f"expected MD5 {file.md5}, found [0-9a-f]{{32}}; delete it"
    refused(file, wrong, (546, 78, 156))
    refused(file, r"it has \(5, 6, 7\) images instead of \(546, 78, 156\)", (5, 6, 7))
    file.path.write_text("<html>")
    refused(file, f"expected MD5 {file.md5}, found")
    monkeypatch.setitem(medmnist.OLD_EDITION, "organcmnist", (5, 6, 7))
    old = find_file("organcmnist", 28, None, tmp_path)
    refused(old, r"edition of 2022: \(5, 6, 7\) images instead of", (5, 6, 7))


@pytest.mark.real
@pytest.mark.parametrize(
    ("flag", "size", "counts", "classes"),
    [
        ("breastmnist", 28, [546, 78, 156], ("malignant", "normal, benign")),
        ("breastmnist", 64, [546, 78, 156], ("malignant", "normal, benign")),
        ("pneumoniamnist", 28, [4708, 524, 624], ("normal", "pneumonia")),
    ],
)
def test_official_files(real_data, flag, size, counts, classes):
    file = find_file(flag, size, None, real_data)
    dataset = open_medmnist(file, file_md5)
    assert np.bincount(dataset.samples.split).tolist() == counts
    assert (dataset.task, dataset.class_names) == ("binary-class", classes)
    assert (dataset.source_size, dataset.n_channels) == (size, 1)
    assert dataset.images_digest == f"md5:{file.md5}"
    expected = plain_images(file.path)
    blocks = list(dataset.stream([(0, 100), (540, 640), (len(expected) - 3, len(expected))]))
    np.testing.assert_array_equal(blocks[1], expected[540:640])
    np.testing.assert_array_equal(blocks[2], expected[-3:])


# ---------------------------------------------------------------------------- downloads


class Server:
    """A local web server with one file; what it does wrong can be chosen."""

    def __init__(self, content: bytes) -> None:
        self.content, self.ranges, self.heads = content, [], 0
        self.break_after: int | None = None  # bytes after which it hangs up
        self.ignore_range = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                outer.heads += 1
                self.send_response(200)
                self.send_header("Content-Length", str(len(outer.content)))
                self.end_headers()

            def do_GET(self) -> None:
                asked = self.headers.get("Range")
                outer.ranges.append(asked)
                start = int(asked[6:-1]) if asked and not outer.ignore_range else 0
                if asked and start >= len(outer.content):
                    self.send_error(416)
                    return
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(outer.content) - start))
                self.end_headers()
                self.wfile.write(outer.content[start:][: outer.break_after])

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/x.npz"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server():
    server = Server(np.random.default_rng(0).bytes(300_000))
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _fresh_hosts(monkeypatch):
    monkeypatch.setattr(network, "_unreachable", set())
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    official.download_bytes.cache_clear()


def file_at(url: str, tmp_path: Path, content: bytes) -> OfficialFile:
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return OfficialFile("breastmnist", 28, tmp_path / "root" / "x.npz", md5, url, 1)


def quiet(had: int, total: int | None) -> None:
    pass


def test_download(server, tmp_path):
    file = file_at(server.url, tmp_path, server.content)
    reports = []
    assert official.download_bytes(file) == 300_000
    download(file, lambda had, total: reports.append((had, total)))
    assert file.path.read_bytes() == server.content
    assert reports[-1] == (300_000, 300_000)
    assert list(file.path.parent.iterdir()) == [file.path]
    download(file, quiet)  # there already: another shard was faster
    assert server.ranges == [None]


def test_download_goes_on_after_a_broken_connection(server, tmp_path):
    file = file_at(server.url, tmp_path, server.content)
    server.break_after = 100_000
    with pytest.raises(
        RequestError, match="broke off after 100_000 of 300_000 bytes; run it again"
    ):
        download(file, quiet)
    assert not file.path.exists()
    server.break_after = None
    download(file, quiet)
    assert file.path.read_bytes() == server.content
    assert server.ranges == [None, "bytes=100000-"]


@pytest.mark.parametrize("ignores_ranges", [True, False])
def test_what_was_there_is_taken_only_where_it_fits(server, tmp_path, ignores_ranges):
    """A server without ranges starts over; a download killed before its rename is whole."""
    file = file_at(server.url, tmp_path, server.content)
    file.path.parent.mkdir()
    had = b"something else" if ignores_ranges else server.content
    (file.path.parent / "x.npz.part").write_bytes(had)
    server.ignore_range = ignores_ranges
    download(file, quiet)
    assert file.path.read_bytes() == server.content


def test_what_is_not_the_file_is_deleted(server, tmp_path):
    file = file_at(server.url, tmp_path, b"another file")
    with pytest.raises(RequestError, match=f"expected MD5 {file.md5}, found .*deleted, try again"):
        download(file, quiet)
    assert list(file.path.parent.iterdir()) == []


def test_not_found(server, tmp_path, monkeypatch):
    file = file_at(server.url, tmp_path, server.content)
    monkeypatch.setattr(server, "content", b"")  # any range is behind its end: 416
    file.path.parent.mkdir()
    (file.path.parent / "x.npz.part").write_bytes(b"x")
    with pytest.raises(RequestError, match="isn't the file"):
        download(file, quiet)
    assert not (file.path.parent / "x.npz.part").exists()


def test_an_unreachable_host_is_asked_once(tmp_path, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    file = file_at(f"http://127.0.0.1:{port}/x.npz", tmp_path, b"")
    with pytest.raises(RequestError, match=r"can't be downloaded .*--data-root DIR"):
        download(file, quiet)

    def never(*arguments, **options):
        raise AssertionError("the host was asked again")

    monkeypatch.setattr(network.urllib.request, "urlopen", never)
    with pytest.raises(RequestError, match="can't be downloaded"):
        download(file, quiet)
    assert official.download_bytes(file) is None


@pytest.mark.parametrize("greeting", [b"", b"what?\r\n\r\n"])
def test_a_host_that_accepts_and_says_nothing_useful(tmp_path, monkeypatch, greeting):
    monkeypatch.setattr(network, "CONNECT_SECONDS", 0.3)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        taken = []

        def accept():
            connection, _ = mute.accept()
            taken.append(connection)
            if greeting:
                connection.recv(4096)
                connection.sendall(greeting)
                connection.close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        file = file_at(f"http://127.0.0.1:{mute.getsockname()[1]}/x.npz", tmp_path, b"")
        with pytest.raises(RequestError, match="can't be downloaded"):
            download(file, quiet)
        thread.join(5)
        for connection in taken:
            connection.close()


def test_offline_means_no_socket(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a socket was opened")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    file = find_file("breastmnist", 28, None, tmp_path)
    assert official.download_bytes(file) is None
    with pytest.raises(
        RequestError, match=r"breastmnist\.npz and can't be downloaded \(the network"
    ):
        download(file, quiet)
    assert "--source-size" not in official.describe_download(file)
    for size in ("", "_128"):
        (tmp_path / f"breastmnist{size}.npz").touch()
    said = official.describe_download(find_file("breastmnist", 224, None, tmp_path))
    assert said.endswith("), or take one that is here: --source-size 28 or 128")


def test_a_folder_that_cannot_be_written_is_the_disk_s_fault(server, tmp_path):
    (tmp_path / "root").write_text("a file")
    with pytest.raises(OSError, match="root"):
        download(file_at(server.url, tmp_path, server.content), quiet)


# ---------------------------------------------------------------------------- demo


@pytest.fixture(scope="module")
def brain():
    if importlib.util.find_spec("nilearn") is None or importlib.util.find_spec("nibabel") is None:
        pytest.skip("nilearn or nibabel isn't installed: pip install 'medprobe[demo]'")
    return demo.open_demo()


def places(ids: list[str], split: str) -> list[tuple[int, int, int]]:
    own = [name.rsplit("/", 1)[1] for name in ids if name.startswith(f"{split}/")]
    return [tuple(int(part[1:]) for part in name.split("-")) for name in own]  # type: ignore[misc]


def test_demo_counts(brain):
    assert brain.n_rows == demo.demo_counts() == 3 * 460
    for split, per_class in enumerate((300, 60, 100)):
        labels = brain.samples.labels[brain.samples.split == split]
        assert np.bincount(labels).tolist() == [per_class] * 3
    assert len(set(brain.row_ids)) == brain.n_rows
    (images,) = brain.stream([(0, brain.n_rows)])
    assert images.shape == (1380, 64, 64)
    assert images.dtype == np.uint8
    assert brain.images_digest.startswith("sha256:")
    assert demo.open_demo().images_digest == brain.images_digest


def test_demo_splits_share_no_voxel_and_no_mirror_image(brain):
    ids = brain.row_ids.tolist()
    train, val, test = (places(ids, split) for split in SPLITS)
    # In front of y = 116 and behind y = 120: the hemispheres are mirror images, so x can't part.
    assert max(y + demo.SIDE for _, y, _ in train) <= 116
    assert min(y for _, y, _ in val + test) >= 120
    assert max(z for *_, z in val) < min(z for *_, z in test)


def test_demo_without_nilearn(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"pip install 'medprobe\[demo\]'"):
        demo.open_demo()
