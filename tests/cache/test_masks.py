"""Masks files: what goes in comes out, and nothing else does."""

import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from caching import answered, refused
from here import REPOSITORY

from cache.catalogue import list_files
from cache.errors import BrokenCache, RequestError
from cache.masks import Masks, MaskSource, find_masks, open_masks, write_masks

SHAPES = [(5, 9), (12, 7), (1, 1), (30, 40), (5, 9)]
IDS = np.array([f"bild-{i}-ä" for i in range(5)])
CLASSES = ("background", "liver", "Milz")


def make_masks() -> list[np.ndarray | None]:
    rng = np.random.default_rng(0)
    masks: list[np.ndarray | None] = [rng.integers(0, 3, shape, np.uint8) for shape in SHAPES]
    masks[3][4:9] = 255  # type: ignore[index]
    masks[1] = None
    return masks


class Reading:
    """A source's stream that counts the masks it read."""

    def __init__(self, masks: list[np.ndarray | None]) -> None:
        self.masks, self.n_read = masks, 0

    def __call__(self, ranges) -> Iterator[list[np.ndarray | None]]:
        for first, end in ranges:
            self.n_read += end - first
            yield self.masks[first:end]


def source_of(masks: list[np.ndarray | None], **more) -> MaskSource:
    return MaskSource(CLASSES, 0, 255, Reading(masks), **more)


def write(tmp_path: Path, source: MaskSource) -> Masks:
    return open_masks(write_masks(tmp_path / "liver", "liver", IDS, source))


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    masks = make_masks()
    spacing = np.full((5, 3), np.nan)
    spacing[3] = 0.5, 0.25, 5
    found = write(tmp_path, source_of(masks, spacing=spacing))
    with_mask = [0, 2, 3, 4]
    assert found.ids.tolist() == IDS[with_mask].tolist()
    assert (found.class_names, found.background, found.ignore) == (CLASSES, 0, 255)
    assert found.shapes.tolist() == [list(SHAPES[i]) for i in with_mask]
    assert found.find(IDS).tolist() == [0, -1, 1, 2, 3]
    assert np.array_equal(found.spacing, spacing[with_mask], equal_nan=True)
    for i, row in enumerate(with_mask):
        assert np.array_equal(found.mask(i), masks[row])
        assert found.counts[i].tolist() == [(masks[row] == c).sum() for c in range(3)]
    found.verify()
    assert find_masks(tmp_path, "liver") == [found.path]
    assert found.path.name == f"masks_{found.digest[7:19]}.h5"
    assert [path.name for path in found.path.parent.iterdir()] == [found.path.name]


def test_one_origin_with_other_ids_or_spacing_is_read_again(tmp_path: Path) -> None:
    first = write(tmp_path, source_of(make_masks(), origin="x"))
    spaced = write(tmp_path, source_of(make_masks(), origin="x", spacing=np.ones((5, 3))))
    ids = np.char.add(IDS, "!")
    source = source_of(make_masks(), origin="x")
    renamed = open_masks(write_masks(tmp_path / "liver", "liver", ids, source))
    assert spaced.spacing.max() == 1
    assert set(renamed.ids) <= set(ids)
    assert len({first.path, spaced.path, renamed.path}) == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda masks, source: replace(source, class_names=("background", "liver", "spleen")),
        lambda masks, source: replace(source, background=None),
        lambda masks, source: replace(source, spacing=np.ones((5, 3))),
        lambda masks, source: replace(source, stream=Reading([masks[0], masks[0], *masks[2:]])),
        lambda masks, source: replace(source, stream=Reading([1 - masks[0] % 2, *masks[1:]])),
    ],
)
def test_all_that_means_something_is_in_the_digest(tmp_path: Path, change) -> None:
    masks = make_masks()
    source = source_of(masks)
    first, second = write(tmp_path, source), write(tmp_path, change(masks, source))
    assert first.digest != second.digest
    assert find_masks(tmp_path, "liver") == [second.path, first.path]
    write(tmp_path, source)  # the newest are those that the data set has now
    assert find_masks(tmp_path, "liver") == [first.path, second.path]
    first.verify()


def test_the_same_masks_are_written_once_and_read_once(tmp_path: Path) -> None:
    masks = make_masks()
    first = write(tmp_path, source_of(masks))
    made = first.path.stat()
    again = write(tmp_path, source_of(masks))
    assert (again.path, again.path.stat().st_ino) == (first.path, made.st_ino)
    known = source_of(masks, origin="md5:abc")
    write(tmp_path, known)
    unread = source_of(masks, origin="md5:abc")
    assert write(tmp_path, unread).path == first.path
    assert isinstance(unread.stream, Reading)
    assert unread.stream.n_read == 0
    assert find_masks(tmp_path, "liver") == [first.path]


# ---------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.full((4, 4), 3, np.uint8), r"bild-0-ä holds 3 \(16 pixels\), and classes are 0..2"),
        (np.zeros((4, 4), np.int64), "bytes, found int64"),
        (np.zeros((4, 4, 3), np.uint8), r"shape \(4, 4, 3\)"),
        (None, "none of the 5 images of liver has a mask"),
    ],
)
def test_masks_that_can_not_be_kept(tmp_path: Path, mask, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        write(tmp_path, source_of([mask, None, None, None, None]))
    assert not [*(tmp_path / "liver").iterdir()]


@pytest.mark.parametrize(
    "wrong",
    [
        {"class_names": ("a",)},
        {"class_names": ("a", "a")},
        {"class_names": tuple(map(str, range(256)))},
        {"background": 3},
        {"ignore": 2},
        {"ignore": 256},
    ],
)
def test_sources_that_make_no_sense(wrong) -> None:
    with pytest.raises(RequestError):
        replace(source_of([]), **wrong)


@pytest.mark.parametrize("spacing", [np.zeros((5, 3)), np.ones((4, 3)), np.full((5, 3), np.inf)])
def test_impossible_spacing(tmp_path: Path, spacing) -> None:
    with pytest.raises(RequestError, match="positive mm"):
        write(tmp_path, source_of(make_masks(), spacing=spacing))


def edit(path: Path, change) -> None:
    with h5py.File(path, "r+", locking=False) as file:
        change(file)


def relink(file: h5py.File) -> None:
    del file["packed"]
    file["packed"] = h5py.ExternalLink("elsewhere.h5", "packed")


def set_attribute(name: str, value):
    return lambda file: file.attrs.modify(name, value)


def say(**said):
    """Other words, with the checksum that makes them pass for right."""

    def change(file: h5py.File) -> None:
        text = json.dumps(json.loads(bytes(file.attrs["about"])) | said).encode()
        file.attrs["about"], file.attrs["about_crc32"] = np.bytes_(text), zlib.crc32(text)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file["shapes"].__setitem__(0, (9, 5)), "shapes isn't what was written"),
        (lambda file: file["counts"].__setitem__((0, 0), 10**6), "counts isn't"),
        (lambda file: file["crc32"].__setitem__(0, 1), "crc32 isn't"),
        (relink, "a link to elsewhere"),
        (set_attribute("about", np.bytes_(b"{}")), "about isn't"),
        (set_attribute("format_version", 2), "of masks format 2"),
        (set_attribute("format", np.bytes_(b"medprobe-features")), "no masks file"),
        (lambda file: file.attrs.__delitem__("about"), "not a readable"),
        (say(class_names=["a"]), "not a readable"),
        (say(background=7), "not a readable"),
        (say(digest="../../etc"), "isn't what was written"),
        (lambda file: file.__delitem__("ids"), "missing"),
    ],
)
def test_damaged_and_hostile_files(tmp_path: Path, change, message: str) -> None:
    path = write(tmp_path, source_of(make_masks())).path
    edit(path, change)
    with pytest.raises(BrokenCache, match=message):
        open_masks(path)
    # Its masks are written anew, and replace it.
    assert write(tmp_path, source_of(make_masks(), origin="x")).path == path


def test_a_flipped_bit_of_a_mask_is_found_when_it_is_read(tmp_path: Path) -> None:
    masks = write(tmp_path, source_of(make_masks()))
    with masks.path.open("r+b") as file:
        file.seek(masks.place + int(masks.ends[1]) + 12)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 4]))
    again = open_masks(masks.path)
    again.mask(0)
    with pytest.raises(BrokenCache, match="the mask of bild-3-ä"):
        again.mask(2)
    with pytest.raises(BrokenCache, match="extract --tokens"):
        again.verify()


def test_a_mask_never_unpacks_to_more_than_its_shape(tmp_path: Path) -> None:
    masks = write(tmp_path, source_of([np.zeros((4000, 4000), np.uint8), *make_masks()[1:]]))
    small = replace(masks, shapes=np.array([[2, 2], *masks.shapes[1:]]))
    with pytest.raises(BrokenCache, match="bild-0-ä"):
        small.mask(0)


# ---------------------------------------------------------------------------- the command cache


def test_commands_know_them(tmp_path: Path, capsys) -> None:
    masks = write(tmp_path, source_of(make_masks()))
    assert list_files(tmp_path) == []
    out = answered(capsys, "ls", "--features", tmp_path)
    assert out.splitlines()[1].split()[2:7] == ["4", "masks", "3", "classes", "uint8"]
    out = answered(capsys, "show", masks.path)
    assert masks.digest in out
    assert "class 2         Milz: " in out
    assert (
        answered(capsys, "verify", "--features", tmp_path) == f"{masks.path}: all 4 masks right\n"
    )
    assert "copy it as it is" in refused(capsys, "export", masks.path, "-o", tmp_path / "x.h5")
    answered(capsys, "rm", "-y", masks.path)
    assert not masks.path.exists()


# ---------------------------------------------------------------------------- the format


def test_a_reader_without_our_code(tmp_path: Path) -> None:
    """As FORMAT.md tells it: h5py, zlib, and the digest by hand."""
    masks = make_masks()
    spacing = np.full((5, 3), np.nan)
    spacing[3] = 0.5, 0.25, 5
    path = write(tmp_path, source_of(masks, spacing=spacing)).path
    with h5py.File(path, "r") as file:
        about = json.loads(bytes(file.attrs["about"]))
        ids, ends, packed = file["ids"].asstr()[()], file["ends"][()], file["packed"][()]
        shapes, mm, crc32 = file["shapes"][()], file["spacing"][()], file["crc32"][()]
        assert file.attrs["format"] == b"medprobe-masks"
        assert file.attrs["format_version"] == 1

    def canonical(value) -> bytes:
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()

    digest = hashlib.sha256(canonical([about["class_names"], about["background"], about["ignore"]]))
    for i, row in enumerate([0, 2, 3, 4]):
        raw = zlib.decompress(packed[ends[i - 1] if i else 0 : ends[i]].tobytes())
        assert zlib.crc32(raw) == crc32[i]
        assert np.array_equal(np.frombuffer(raw, np.uint8).reshape(shapes[i]), masks[row])
        known = [None if np.isnan(v) else float(v) for v in mm[i]]
        digest.update(canonical([ids[i], *shapes[i].tolist(), *known]) + raw)
    assert about["digest"] == f"sha256:{digest.hexdigest()}"


def test_a_file_of_version_1_is_read_for_ever() -> None:
    masks = open_masks(REPOSITORY / "tests" / "data" / "masks_v1.h5")
    masks.verify()
    assert masks.mask(0).tolist() == [[0, 1, 2, 255]]
