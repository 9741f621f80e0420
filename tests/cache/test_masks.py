"""Masks files: what goes in comes out, and nothing else does."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

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
    assert {*find_masks(tmp_path, "liver")} == {first.path, second.path}
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
