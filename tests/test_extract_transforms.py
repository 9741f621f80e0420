"""The transform against torchvision's own resize, and what it refuses."""

import pytest
import torch
from torch import Tensor

from cache import RequestError
from extract.transforms import Transform

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make(size: int, interpolation: str = "bicubic") -> Transform:
    return Transform(size, MEAN, STD, interpolation)


def noise(*shape: int) -> Tensor:
    """Black and white pixels: bicubic overshoots most on these."""
    generator = torch.Generator().manual_seed(0)
    return 255 * torch.randint(0, 2, shape, generator=generator, dtype=torch.uint8)


def by_torchvision(images: Tensor, size: int, interpolation: str) -> Tensor:
    """The same by torchvision and plain arithmetic, image by image."""
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    mode = pytest.importorskip("torchvision.transforms.v2").InterpolationMode(interpolation)
    prepared = []
    for image in images:
        image = torch.stack([image] * 3) if image.ndim == 2 else image.permute(2, 0, 1)
        image = functional.resize(image.float(), [size, size], mode, antialias=True)
        image = image.clamp(0, 255) / 255
        prepared.append(functional.normalize(image, MEAN, STD))
    return torch.stack(prepared)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("side", "size"), [(28, 224), (224, 28), (28, 28), (64, 96), (224, 98)])
@pytest.mark.parametrize("channels", [1, 3])
def test_equals_torchvision(interpolation: str, side: int, size: int, channels: int):
    images = noise(2, side, side) if channels == 1 else noise(2, side, side, channels)
    found = make(size, interpolation)(images)
    expected = by_torchvision(images, size, interpolation)
    assert found.shape == (2, 3, size, size)
    assert found.dtype == torch.float32
    # 1e-4 is a fortieth of one grey level of 255 after normalisation.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [28, 64])
def test_grey_equals_rgb_of_the_repeated_channel(size: int):
    grey = noise(3, 28, 28)
    rgb = grey[..., None].repeat(1, 1, 1, 3)
    torch.testing.assert_close(make(size)(grey), make(size)(rgb), rtol=0, atol=1e-5)


def test_values_stay_between_black_and_white():
    transform = Transform(97, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    values = transform(noise(4, 28, 28))
    assert values.min() == 0.0
    assert values.max() == 1.0


def test_values_between_grey_levels_are_kept():
    transform = Transform(56, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    levels = 255 * transform(noise(1, 28, 28))
    assert ((levels - levels.round()).abs() > 0.01).any(), "rounding would lose them"


def test_no_resize_where_the_size_is_right(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("extract.transforms.F.interpolate", None)  # calling it would fail
    images = noise(2, 28, 28, 3)
    found = make(28)(images)
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    expected = (images.permute(0, 3, 1, 2) / 255 - mean) / std
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_images_themselves_are_left_alone():
    for images in (noise(2, 28, 28), noise(2, 28, 28, 3)):
        before = images.clone()
        make(28)(images)
        make(56)(images)
        assert torch.equal(images, before)


def test_the_axes_are_not_swapped():
    images = torch.zeros(1, 4, 4, dtype=torch.uint8)
    images[0, 0, 3] = 255  # first row, last column
    found = Transform(4, (0.0,) * 3, (1.0,) * 3)(images)
    assert found[0, 0].nonzero().tolist() == [[0, 3]]


@pytest.mark.parametrize("interpolation", ["nearest", "lanczos", "", "bicubic "])
def test_other_interpolations_are_refused(interpolation: str):
    with pytest.raises(RequestError, match="interpolation; medprobe has bicubic and bilinear"):
        make(28, interpolation)


def test_other_channels_are_refused():
    with pytest.raises(RequestError, match="takes 1 channels; medprobe gives three"):
        Transform(28, (0.5,), (0.5,))


def test_the_key_names_everything_but_the_size():
    assert make(28).key == make(56).key
    assert make(28).key == {
        "mean": list(MEAN),
        "std": list(STD),
        "interpolation": "bicubic",
        "antialias": True,
        "resize": "scale",
        "channels": "grey repeated to RGB",
        "intensity": "uint8 / 255",
    }


def test_one_line_for_people():
    assert str(make(224)) == (
        "scale to 224 px (bicubic, antialiased) · grey repeated to RGB · uint8 / 255 · "
        "mean 0.485/0.456/0.406 · std 0.229/0.224/0.225"
    )
