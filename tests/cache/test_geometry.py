"""Masks go where images go, pixel by pixel, and maps come back as torch brings them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cache.errors import RequestError
from cache.geometry import CROPPED, PADDING, RULES, Geometry
from extract.prepare.transforms import Transform

SHAPES = [(37, 53), (61, 29), (48, 48), (7, 90), (17, 12)]


def transform_of(resize: str, size: int, content: int | None, backend: str) -> Transform:
    return Transform(
        size, (0, 0, 0), (1, 1, 1), "nearest", False, resize, backend=backend, content=content
    )


def key_of(transform: Transform) -> dict[str, object]:
    return {"transform": transform.key, "size": transform.size}


def seen_by(transform: Transform, image: np.ndarray) -> np.ndarray:
    """An image as the encoder gets it, in levels; (size, size)."""
    prepared = transform.on_host(image[None].astype(np.float32))
    return transform(torch.from_numpy(prepared))[0, 0].numpy() * 255


@pytest.mark.parametrize("resize", RULES)
@pytest.mark.parametrize("backend", ["device", "pil", "tensor"])
@pytest.mark.parametrize(("size", "content"), [(31, None), (32, None), (32, 27), (21, 32)])
@pytest.mark.parametrize("shape", SHAPES)
def test_addresses(resize, backend, size, content, shape) -> None:
    """An image of its own rows, then of its own columns: where a mask's pixels come from."""
    transform = transform_of(resize, size, content, backend)
    geometry = Geometry.of(key_of(transform))
    assert geometry == transform.geometry
    for axis in (0, 1):
        # Levels above 0, which is padding; a mask of the same numbers.
        address = np.indices(shape, dtype=np.uint8)[axis] + 1
        image = seen_by(transform, address).round().astype(int)
        mask = geometry.to_input(address).astype(int)
        assert np.array_equal(mask == PADDING, image == 0)
        # Exactly between two pixels, which only rounding decides, either may be taken.
        of = geometry.axes(*shape)[axis]
        place = np.arange(size) - of.shift + (0 if geometry.corner else 0.5)
        edge = place * of.source / of.resized
        tie = np.abs(edge - edge.round()) < 1e-4
        tie = tie[:, None] if axis == 0 else tie[None]
        apart = np.where(mask == PADDING, 0, mask - image)
        assert not apart[np.broadcast_to(~tie, apart.shape)].any()
        assert np.isin(apart, (0, 1)).all()


@pytest.mark.parametrize("resize", RULES)
@pytest.mark.parametrize(("size", "content"), [(32, None), (32, 27), (21, 32)])
def test_maps_come_back(resize, size, content) -> None:
    """As torch's grid_sample, clamped at the edge, takes the middle of each source pixel."""
    rng = np.random.default_rng(0)
    geometry = Geometry(resize, size, content)
    for shape in SHAPES:
        maps = rng.normal(size=(5, 8, 3)).astype(np.float32)
        rows, columns = (
            torch.from_numpy(axis.place() / size * 2 - 1).float() for axis in geometry.axes(*shape)
        )
        grid = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)[None]
        of = torch.from_numpy(maps).permute(2, 0, 1)[None]
        wanted = F.grid_sample(of, grid, "bilinear", "border", align_corners=False)
        found = geometry.to_source(maps, shape)
        assert found.dtype == np.float32
        assert np.allclose(found, wanted[0].permute(1, 2, 0), atol=1e-5)
        if resize == "scale" and content is None:
            plain = F.interpolate(of, shape, mode="bilinear", align_corners=False)
            assert np.allclose(found, plain[0].permute(1, 2, 0), atol=1e-5)


@pytest.mark.parametrize("resize", RULES)
@pytest.mark.parametrize("shape", SHAPES)
def test_there_and_back(resize, shape) -> None:
    """A mask of large parts, seen and put back, is itself but for the seams, where it was seen."""
    geometry = Geometry(resize, 128)
    mask = (np.indices(shape).sum(0) > sum(shape) / 2).astype(np.uint8)
    back = geometry.to_source(geometry.to_input(mask)[..., None].astype(np.float32), shape)
    inside = [(a.place() >= 1) & (a.place() <= 127) for a in geometry.axes(*shape)]
    seen = inside[0][:, None] & inside[1]
    wrong = np.abs(back[..., 0].clip(0, 1) - mask) > 0.5
    assert wrong[seen].mean() < 0.03
    assert (geometry.unseen(shape) > 0) == (resize in CROPPED)


def test_a_rule_of_another_version_is_refused() -> None:
    with pytest.raises(RequestError, match="'wrapped' is unknown"):
        Geometry.of({"transform": {"resize": "wrapped"}, "size": 8})
