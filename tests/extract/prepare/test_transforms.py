"""The transform against torchvision's own pipelines, and what it refuses."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cache import RequestError
from extract.config import (
    BACKENDS,
    CHANNELS,
    COLOUR,
    FIRST_FILTER,
    INTENSITIES,
    INTERPOLATIONS,
    RESIZES,
)
from extract.prepare.transforms import Transform

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BLACK_TO_ONE: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1.0,) * 3}  # values as they are, 0..1

# Height and width of the stored images -> resized for 64 px, by hand.
TO_PAD_64 = {
    (28, 28): (28, 28),
    (64, 64): (64, 64),
    (31, 64): (31, 64),
    (61, 97): (40, 64),  # 61 * 64 / 97 = 40.2
    (97, 61): (64, 40),
    (33, 200): (11, 64),  # 10.56
    (130, 45): (64, 22),  # 22.2
}
TO_LONGEST_64 = {**TO_PAD_64, (28, 28): (64, 64), (20, 31): (41, 64)}  # 41.3
SHAPES = tuple(TO_PAD_64)
BEFORE_CROP = {28: 32, 64: 73, 97: 111, 224: 256}  # 256/224 of the size, rounded


def make(size: int, interpolation: str = "bicubic", **settings: Any) -> Transform:
    return Transform(size, MEAN, STD, interpolation, **settings)


def by_pillow(transform: Transform, images: NDArray[np.uint8]) -> Tensor:
    """Both steps of a transform whose backend is Pillow."""
    assert transform.backend == "pil"
    return transform(torch.from_numpy(transform.on_host(images)))


def noise(*shape: int) -> Tensor:
    """Black and white pixels: bicubic overshoots most on these."""
    generator = torch.Generator().manual_seed(0)
    return 255 * torch.randint(0, 2, shape, generator=generator, dtype=torch.uint8)


def pictures(shape: tuple[int, int], n_channels: int, n: int = 2) -> NDArray[np.uint8]:
    """Waves under noise: edges and flat places, every channel and image another."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: shape[0], : shape[1]]
    waves = np.stack([np.sin(x / (5 + c) + c) * np.cos(y / (7 - c)) for c in range(n_channels)], -1)
    values = 128 + 160 * waves + rng.integers(-60, 61, (n, *shape, n_channels))
    images = values.clip(0, 255).astype(np.uint8)
    return images[..., 0] if n_channels == 1 else images


def waves(shape: tuple[int, int]) -> NDArray[np.uint8]:
    """One smooth grey image that stays clear of black and white."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (127.5 + 110 * np.sin(x / 9) * np.cos(y / 13)).round().astype(np.uint8)[None]


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
def test_equals_torchvision(interpolation, side, size, channels):
    images = noise(2, side, side) if channels == 1 else noise(2, side, side, channels)
    found = make(size, interpolation)(images)
    expected = by_torchvision(images, size, interpolation)
    assert found.shape == (2, 3, size, size)
    assert found.dtype == torch.float32
    # 1e-4 is a fortieth of one grey level of 255 after normalisation.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [28, 64])
def test_grey_equals_rgb_of_the_repeated_channel(size):
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


def test_no_resize_where_the_size_is_right(monkeypatch):
    monkeypatch.setattr("extract.prepare.transforms.F.interpolate", None)  # calling it would fail
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


# ---------------------------------------------------------------------------- published pipelines


def by_torchvision_on_pillow(
    image: NDArray[np.uint8], rule: str, size: int, interpolation: str
) -> tuple[NDArray[np.uint8], Tensor]:
    """What a published pipeline makes of one image: uint8 before ToTensor, and its end."""
    tv = pytest.importorskip("torchvision.transforms")
    mode = tv.InterpolationMode(interpolation)
    side = BEFORE_CROP[size]
    steps = {
        "scale": [tv.Resize((size, size), mode)],
        "crop": [tv.Resize(side, mode), tv.CenterCrop(size)],
        "scale-crop": [tv.Resize((side, side), mode), tv.CenterCrop(size)],
    }[rule]
    resized = tv.Compose(steps)(Image.fromarray(image).convert("RGB"))
    return np.asarray(resized), tv.Compose([tv.ToTensor(), tv.Normalize(MEAN, STD)])(resized)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("rule", ["scale", "crop", "scale-crop"])
@pytest.mark.parametrize("n_channels", [1, 3])
def test_pillow_meets_published_pipelines(rule, interpolation, n_channels):
    for shape, size in itertools.product(SHAPES, (28, 64, 97)):
        images = pictures(shape, n_channels)
        transform = make(size, interpolation, resize=rule, backend="pil")
        on_host, found = transform.on_host(images), by_pillow(transform, images)
        assert found.shape == (len(images), 3, size, size)
        assert found.dtype == torch.float32
        for i, image in enumerate(images):
            pixels, expected = by_torchvision_on_pillow(image, rule, size, interpolation)
            repeated = on_host[i] if n_channels == 3 else on_host[i][..., None].repeat(3, -1)
            np.testing.assert_array_equal(repeated, pixels)
            torch.testing.assert_close(found[i], expected, rtol=0, atol=2e-6)


def normalise(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(h, w) or (h, w, 3) to (3, h, w), by plain arithmetic."""
    image = image if image.ndim == 3 else np.stack([image] * 3, -1)
    return ((image / 255 - MEAN) / STD).transpose(2, 0, 1)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("n_channels", [1, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_pillow_pads_in_the_middle(interpolation, n_channels, shape):
    height, width = TO_PAD_64[shape]
    top, left = (64 - height) // 2, (64 - width) // 2
    place = np.s_[top : top + height, left : left + width]
    images = pictures(shape, n_channels)
    for rule in ("pad", "pad-after-norm"):
        transform = make(64, interpolation, resize=rule, backend="pil")
        found = by_pillow(transform, images)
        for image, values in zip(images, found, strict=True):
            resized = Image.fromarray(image).resize(
                (width, height), Image.Resampling[interpolation.upper()]
            )
            if rule == "pad":
                black = np.zeros((64, 64, *image.shape[2:]), np.uint8)
                black[place] = np.asarray(resized)
                expected = normalise(black)
            else:
                expected = np.zeros((3, 64, 64))
                expected[(slice(None), *place)] = normalise(np.asarray(resized))
            np.testing.assert_allclose(values, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("n_channels", [1, 3])
@pytest.mark.parametrize("shape", TO_LONGEST_64)
def test_pillow_meets_sam(interpolation, n_channels, shape):
    tv = pytest.importorskip("torchvision.transforms")
    height, width = TO_LONGEST_64[shape]
    steps = [
        tv.Resize((height, width), tv.InterpolationMode(interpolation)),
        tv.ToTensor(),
        tv.Normalize(MEAN, STD),
        tv.Pad((0, 0, 64 - width, 64 - height)),  # left, top, right, bottom
    ]
    images = pictures(shape, n_channels)
    found = by_pillow(make(64, interpolation, resize="longest", backend="pil"), images)
    for image, values in zip(images, found, strict=True):
        expected = tv.Compose(steps)(Image.fromarray(image).convert("RGB"))
        torch.testing.assert_close(values, expected, rtol=0, atol=2e-6)


def test_the_published_crop_at_224():
    images = pictures((250, 301), 3, n=1)
    found = by_pillow(make(224, "bilinear", resize="crop", backend="pil"), images)
    _, expected = by_torchvision_on_pillow(images[0], "crop", 224, "bilinear")
    torch.testing.assert_close(found[0], expected, rtol=0, atol=2e-6)


# ---------------------------------------------------------------------------- device and Pillow


@pytest.mark.parametrize("rule", RESIZES)
@pytest.mark.parametrize("intensity", INTENSITIES.values())
@pytest.mark.parametrize("shape", [(28, 28), (56, 56), (61, 97), (97, 61), (33, 201), (130, 45)])
def test_the_rest_is_the_same_wherever_the_resize_was(rule, intensity, shape):
    # Nearest gives both the same pixels: here no output pixel lies between two source pixels.
    images = pictures(shape, 3)
    settings = {"resize": rule, "intensity": intensity}
    on_device = make(56, "nearest", **settings)(torch.from_numpy(images))
    on_host = by_pillow(make(56, "nearest", backend="pil", **settings), images)
    assert on_device.shape == (2, 3, 56, 56)
    torch.testing.assert_close(on_device, on_host, rtol=0, atol=2e-6)


def level_gap(
    images: NDArray[np.uint8], size: int, interpolation: str, resize: str = "scale"
) -> float:
    """Largest difference between the device and Pillow, in grey levels of 0..255."""
    device = Transform(
        size, **BLACK_TO_ONE, interpolation=interpolation, resize=resize, backend="device"
    )
    pillow = Transform(
        size, **BLACK_TO_ONE, interpolation=interpolation, resize=resize, backend="pil"
    )
    gap = device(torch.tensor(images)) - by_pillow(pillow, images)
    return 255 * float(gap.abs().max())


@pytest.mark.parametrize("rule", RESIZES)
@pytest.mark.parametrize("shape", [(28, 28), (61, 97), (130, 45), (6, 2000)])
def test_bilinear_on_the_device_is_within_a_level(rule, shape):
    for images in (noise(2, *shape).numpy(), pictures(shape, 3)):
        for size in (28, 64, 224):
            assert level_gap(images, size, "bilinear", rule) <= 1 + 1e-4 * max(shape)


@pytest.mark.parametrize("rule", RESIZES)
@pytest.mark.parametrize("shape", [(28, 28), (61, 97), (224, 300)])
def test_bicubic_on_the_device_is_within_1_2_levels_where_nothing_is_clipped(rule, shape):
    assert all(level_gap(waves(shape), size, "bicubic", rule) <= 1.2 for size in (64, 224))


def test_bicubic_on_the_device_is_within_36_levels_on_noise():
    gaps = [level_gap(noise(2, 28, 28).numpy(), size, "bicubic") for size in (26, 64, 224)]
    gaps += [level_gap(noise(2, 242, 242).numpy(), 224, "bicubic")]  # the worst ratio, 1.08
    assert max(gaps) <= 36
    assert max(gaps) > 25, "the bound is as wide as it is because Pillow clips in between"


@pytest.mark.parametrize(("size", "bound"), [(28, 4), (96, 3), (224, 3.3), (512, 8.5)])
def test_bicubic_on_the_device_and_photographs(size, bound):
    datasets = pytest.importorskip("sklearn.datasets")
    for photograph in datasets.load_sample_images().images:
        assert level_gap(photograph[None], size, "bicubic") <= bound


@pytest.mark.real
@pytest.mark.parametrize(("side", "bound"), [(28, 5), (64, 1.5)])
def test_bicubic_on_the_device_and_breastmnist(side, bound, real_data):
    name = "breastmnist.npz" if side == 28 else f"breastmnist_{side}.npz"
    images = np.load(real_data / name)["test_images"]
    assert all(level_gap(images, size, "bicubic") <= bound for size in (96, 224))
    assert all(level_gap(images, size, "bilinear") <= 1.01 for size in (96, 224))


def test_without_antialiasing():
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    images = noise(2, 97, 61)
    for interpolation in ("bicubic", "bilinear"):
        mode = pytest.importorskip("torchvision.transforms.v2").InterpolationMode(interpolation)
        transform = Transform(28, **BLACK_TO_ONE, interpolation=interpolation, antialias=False)
        expected = functional.resize(images[:, None].float(), [28, 28], mode, antialias=False)
        expected = expected.clamp(0, 255).expand(-1, 3, -1, -1) / 255
        torch.testing.assert_close(transform(images), expected, rtol=0, atol=1e-6)
        antialiased = Transform(28, **BLACK_TO_ONE, interpolation=interpolation)
        assert (antialiased(images) - expected).abs().max() > 0.1


def test_nearest_takes_pixels_as_they_are():
    images = pictures((61, 97), 1)
    found = 255 * Transform(200, **BLACK_TO_ONE, interpolation="nearest")(torch.from_numpy(images))
    # The middle of output pixel i lies in source pixel floor((i + 1/2) * side / 200).
    rows, columns = ((2 * np.arange(200) + 1) * side // 400 for side in (61, 97))
    expected = images[:, rows][:, :, columns]
    np.testing.assert_array_equal(found[:, 0].round().numpy(), expected)


def test_on_host_leaves_alone_what_is_not_to_be_resized():
    square, wide = pictures((64, 64), 3), pictures((31, 64), 1)
    for rule in RESIZES:
        assert make(28, resize=rule).on_host(square) is square, "the device does it"
    for rule in ("scale", "pad", "pad-after-norm", "longest"):
        assert make(64, resize=rule, backend="pil").on_host(square) is square
    for rule in ("pad", "pad-after-norm"):
        assert make(224, resize=rule, backend="pil").on_host(wide) is wide, "never enlarged"


@pytest.mark.parametrize("n_channels", [1, 3])
def test_on_host_reads_any_array(n_channels):
    images = pictures((40, 60), n_channels)
    strided = images[:, ::2, ::2]
    strided.flags.writeable = False
    transform = make(28, backend="pil")
    np.testing.assert_array_equal(transform.on_host(strided), transform.on_host(strided.copy()))
    np.testing.assert_array_equal(images, pictures((40, 60), n_channels))


def test_images_that_pillow_should_have_resized_are_refused():
    message = (
        r"resized by Pillow \(.* to 28 px\), found 61 x 97 px; give the batch to on_host first"
    )
    for rule in RESIZES:
        with pytest.raises(RequestError, match=message):
            make(28, resize=rule, backend="pil")(noise(2, 61, 97))


def test_a_thin_line_does_not_vanish():
    for rule, backend in itertools.product(("pad", "longest"), BACKENDS):
        transform = Transform(64, **BLACK_TO_ONE, resize=rule, backend=backend)
        line = np.full((1, 1, 300), 255, np.uint8)
        found = transform(torch.from_numpy(transform.on_host(line)))[0, 0]
        torch.testing.assert_close(found[31 if rule == "pad" else 0], torch.ones(64))
        assert found.sum().item() == pytest.approx(64)


# ---------------------------------------------------------------------------- intensity, channels


def test_padding_is_black_or_the_mean_colour():
    images = 100 + 0 * noise(1, 20, 20)
    corner = {rule: make(28, resize=rule)(images)[0, :, 0, 0] for rule in ("pad", "pad-after-norm")}
    black = -torch.tensor(MEAN) / torch.tensor(STD)
    torch.testing.assert_close(corner["pad"], black)
    assert corner["pad-after-norm"].tolist() == [0, 0, 0]
    longest = make(28, resize="longest")(100 + 0 * noise(1, 20, 10))[0]
    assert longest[:, :, 14:].abs().max() == 0
    assert longest[:, :, :14].abs().min() > 0


@pytest.mark.parametrize("rule", RESIZES)
@pytest.mark.parametrize("intensity", ["min-max", "min-max per channel"])
def test_min_max_by_hand(rule, intensity):
    images = pictures((33, 50), 3) // 2 + np.array([10, 20, 30], np.uint8)
    plain, stretched = (
        Transform(40, **BLACK_TO_ONE, interpolation="bilinear", resize=rule, intensity=i)
        for i in ("uint8 / 255", intensity)
    )
    found = stretched(torch.from_numpy(images)).double().numpy()
    for image, values in zip(plain(torch.from_numpy(images)).double().numpy(), found, strict=True):
        inside = image[0] > 0  # no pixel of the image is black; the padding is
        of_all = image[:, inside]
        for channel, result in zip(image, values, strict=True):
            among = of_all if intensity == "min-max" else channel[inside]
            expected = (channel - among.min()) / (among.max() - among.min())
            np.testing.assert_allclose(result[inside], expected[inside], rtol=0, atol=1e-6)
            assert not result[~inside].any()


def test_mean_and_std_come_after_min_max():
    images = torch.from_numpy(pictures((28, 28), 3))
    unit = Transform(28, **BLACK_TO_ONE, intensity="min-max")(images)
    expected = (unit - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(make(28, intensity="min-max")(images), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("intensity", ["min-max", "min-max per channel"])
@pytest.mark.parametrize("rule", RESIZES)
@pytest.mark.parametrize("antialias", [True, False])
def test_constant_images_become_zeros(intensity, rule, antialias):
    # 341 x 439 to 224 px in float32 leaves 4e-4 levels between equal pixels.
    images = torch.full((2, 341, 439), 235, dtype=torch.uint8)
    images[1, 100:200] = 234  # one level is no constant
    transform = Transform(
        224, **BLACK_TO_ONE, resize=rule, intensity=intensity, antialias=antialias
    )
    constant, other = transform(images)
    assert not constant.any()
    assert other.max() == 1


def test_a_constant_channel_becomes_zeros_alone():
    images = torch.from_numpy(pictures((28, 28), 3))
    images[..., 1] = 77
    transform = Transform(28, **BLACK_TO_ONE, intensity="min-max per channel")
    assert transform(images).amax(dim=(0, 2, 3)).tolist() == [1, 0, 1]


@pytest.mark.parametrize("rule", RESIZES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_grey_into_the_first_filter(rule, backend):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn((8, 3, 4, 4), generator=generator)
    images = pictures((61, 97), 1)

    def prepare(channels):
        transform = make(64, resize=rule, backend=backend, channels=channels)
        return transform(torch.from_numpy(transform.on_host(images)))

    first_channel = prepare("grey repeated to RGB")[:, :1]
    found = F.conv2d(prepare(FIRST_FILTER), weight, stride=4, padding=1)
    expected = F.conv2d(first_channel, weight[:, :1], stride=4, padding=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_colour_into_the_first_filter_is_refused():
    with pytest.raises(RequestError, match="takes grey images, found 3 channels; use 'RGB'"):
        make(28, channels=FIRST_FILTER)(noise(2, 28, 28, 3))


# ---------------------------------------------------------------------------- settings


@pytest.mark.parametrize("interpolation", ["nearest-exact", "lanczos", "", "bicubic "])
def test_other_interpolations_are_refused(interpolation):
    with pytest.raises(RequestError, match="is unknown; medprobe has bicubic, bilinear, nearest"):
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


@pytest.mark.parametrize(
    ("setting", "known"),
    [
        ("resize", RESIZES),
        ("backend", BACKENDS),
        ("interpolation", INTERPOLATIONS),
        ("intensity", tuple(INTENSITIES.values())),
        ("channels", (*CHANNELS.values(), COLOUR)),
    ],
)
def test_unknown_settings_list_the_known(setting, known):
    with pytest.raises(RequestError) as caught:
        Transform(28, MEAN, STD, **{setting: "sclae"})
    flag = "--resize-backend" if setting == "backend" else f"--{setting}"
    assert str(caught.value) == (
        f"{setting} 'sclae' is unknown; medprobe has {', '.join(known)}: choose one with {flag}"
    )


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pillow_without_antialiasing_is_refused(interpolation):
    with pytest.raises(RequestError) as caught:
        make(28, interpolation, antialias=False, backend="pil")
    assert str(caught.value) == (
        f"Pillow's {interpolation} is always antialiased, and antialias is off; "
        "resize on the device, or leave antialias on"
    )


def test_nearest_has_no_antialiasing_to_speak_of():
    on, off = (make(28, "nearest", antialias=a, backend="pil") for a in (True, False))
    assert on.key == off.key
    assert on.key["antialias"] is False
    assert "(nearest, not antialiased)" in str(on)


def test_every_setting_is_in_the_key_and_in_the_line():
    resizes = [{"resize": rule, "backend": b} for rule in RESIZES for b in BACKENDS]
    others = [{"interpolation": i} for i in INTERPOLATIONS[1:]] + [{"antialias": False}]
    others += [{"intensity": i} for i in tuple(INTENSITIES.values())[1:]]
    others += [{"channels": c} for c in (COLOUR, FIRST_FILTER)]
    settings = resizes + others
    transforms = [Transform(28, MEAN, STD, **setting) for setting in settings]
    assert len({repr(t.key) for t in transforms}) == len(transforms)
    assert len({str(t) for t in transforms}) == len(transforms)
    assert not any("\n" in str(t) for t in transforms)
    assert all(t.key.keys() == make(28).key.keys() for t in transforms), "no new entries"


def test_the_key_and_the_line_of_other_settings():
    transform = make(
        224,
        "bilinear",
        resize="scale-crop",
        backend="pil",
        intensity="min-max per channel",
        channels=FIRST_FILTER,
    )
    assert transform.key == {
        "mean": list(MEAN),
        "std": list(STD),
        "interpolation": "bilinear",
        "antialias": True,
        "resize": "scale-crop (PIL)",
        "channels": "grey into the first filter",
        "intensity": "min-max per channel",
    }
    assert str(transform) == (
        "scale-crop (PIL) to 224 px (bilinear, antialiased) · grey into the first filter · "
        "min-max per channel · mean 0.485/0.456/0.406 · std 0.229/0.224/0.225"
    )
