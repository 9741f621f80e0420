"""Augmentations: by seed, epoch and row alone, at their place, and torchvision's own."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as v1

from cache.aggregate import RowsOfSamples
from cache.errors import RequestError
from extract.config import INTENSITIES, RESIZES
from extract.prepare.transforms import Transform
from finetune.config import AUGMENTS
from finetune.data.augment import Augmenter, Chances, make_augmentation
from finetune.data.batches import Batch, Draw, Loader
from finetune.data.pixels import Pixels, PixelWriter

CPU = torch.device("cpu")
SIZE = 24
N = 10
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def smooth(n: int, height: int, width: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """(n, height, width[, channels]) uint8 waves: a resize of them doesn't hang on rounding."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    planes = [
        127 + 120 * np.sin(y / rng.uniform(3, 6) + x / rng.uniform(3, 6) + rng.uniform(0, 6))
        for _ in range(n * channels)
    ]
    images = np.stack(planes).reshape(n, channels, height, width).transpose(0, 2, 3, 1)
    return np.rint(images[..., 0] if channels == 1 else images).astype(np.uint8)


def packed(path: Path, groups: Sequence[np.ndarray]) -> Pixels:
    with PixelWriter(path, {}) as writer:
        for images in groups:
            writer.add(images)
        writer.finish()
    return Pixels(path)


def images_of(path: Path, groups: Sequence[np.ndarray]) -> SimpleNamespace:
    """What a Loader needs of finetune.data.images.Images: every row a sample."""
    pixels = packed(path, groups)
    rows = RowsOfSamples(np.arange(len(pixels)), len(pixels))
    features = SimpleNamespace(rows_are_samples=True)
    return SimpleNamespace(pixels=pixels, stored=pixels, features=features, rows=rows)


def make_transform(**settings: object) -> Transform:
    return Transform(SIZE, MEAN, STD, interpolation="bilinear", **settings)  # type: ignore[arg-type]


def load(
    images: SimpleNamespace,
    name: str,
    draws: Sequence[Draw],
    seed: int = 0,
    workers: int = 0,
    **settings: object,
) -> list[Batch]:
    loader = Loader(
        images,  # type: ignore[arg-type]
        make_transform(**settings),
        make_augmentation(name, SIZE),
        CPU,
        workers,
    )
    return list(loader.batches(draws, seed))


def draws_of(epoch: int, rows: Sequence[int], batch: int) -> list[Draw]:
    return [
        Draw(epoch, np.array(rows[i : i + batch], np.int64)) for i in range(0, len(rows), batch)
    ]


def inputs(batches: list[Batch]) -> dict[int, torch.Tensor]:
    """Each sample's input; of those that were drawn several times the last."""
    return {
        int(sample): image
        for batch in batches
        for sample, image in zip(batch.samples, batch.images, strict=True)
    }


@pytest.fixture
def colour(tmp_path):
    return images_of(tmp_path / "c.pixels", [smooth(N, 40, 40, 3)])


@pytest.fixture
def mixed(tmp_path):
    """Grey images of two shapes, one of them float."""
    floats = smooth(1, 20, 30).astype(np.float32)
    groups = [smooth(4, 40, 40), smooth(4, 30, 20), floats, smooth(1, 40, 40)]
    return images_of(tmp_path / "m.pixels", groups)


@pytest.mark.parametrize("name", [name for name in AUGMENTS if name != "none"])
@pytest.mark.parametrize("kind", ["colour", "mixed"])
def test_an_image_hangs_on_seed_epoch_and_row_alone(name, kind, request):
    images = request.getfixturevalue(kind)
    settings = {"resize": "pad-fit"}
    before = torch.get_rng_state()
    whole = inputs(load(images, name, draws_of(3, range(N), N), **settings))
    rest = load(images, name, draws_of(3, [7, 2, 5], 2), **settings)  # resumed, another order
    assert torch.equal(torch.get_rng_state(), before)  # dropout's chance isn't touched
    for row, image in inputs(rest).items():
        assert torch.equal(image, whole[row])
    for epoch, seed in ((4, 0), (3, 1)):
        other = inputs(load(images, name, draws_of(epoch, range(N), N), seed, **settings))
        assert any(not torch.equal(other[row], whole[row]) for row in whole)


def test_workers_change_nothing(mixed):
    name = "huix"
    draws = [*draws_of(0, range(N), 4), *draws_of(1, range(N)[::-1], 3)]
    here = load(mixed, name, draws)
    for workers in (1, 2):
        there = load(mixed, name, draws, workers=workers)
        assert len(there) == len(here)
        for a, b in zip(here, there, strict=True):
            np.testing.assert_array_equal(a.samples, b.samples)
            assert torch.equal(a.images, b.images)


def test_flip_mirrors_about_half_of_the_inputs(tmp_path):
    images = images_of(tmp_path / "x.pixels", [smooth(100, 24, 24)])
    plain = inputs(load(images, "none", draws_of(0, range(100), 100)))
    flipped = inputs(load(images, "flip", draws_of(0, range(100), 100)))
    is_mirrored = [torch.equal(flipped[row], plain[row].flip(-1)) for row in range(100)]
    is_same = [torch.equal(flipped[row], plain[row]) for row in range(100)]
    assert all(a != b for a, b in zip(is_mirrored, is_same, strict=True))
    assert 30 < sum(is_mirrored) < 70


PUBLISHED = {  # the papers' pipelines, by torchvision's first generation
    "huix": [
        v1.RandomResizedCrop(SIZE, scale=(0.8, 1.2)),
        v1.RandomVerticalFlip(),
        v1.RandomHorizontalFlip(),
        v1.RandomApply([v1.ColorJitter(0.2, 0.2, 0.1, 0.1)], p=0.8),
    ],
    "baharoon": [
        v1.RandomResizedCrop(
            SIZE, scale=(0.75, 1), interpolation=v1.InterpolationMode.BICUBIC, antialias=False
        ),
        v1.RandomHorizontalFlip(),
    ],
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_is_the_papers_pipeline(tmp_path, name):
    """The same random numbers give the same images as the papers' code, to rounding."""
    first = {"huix": [v1.Resize((27, 27)), v1.CenterCrop(SIZE)], "baharoon": []}

    def opened(picture):
        if name == "huix":
            return Image.fromarray(picture)
        return torch.from_numpy(picture).permute(2, 0, 1).float()

    def as_array(image):
        if isinstance(image, torch.Tensor):
            return image.numpy()
        return np.asarray(image, np.float32).transpose(2, 0, 1)

    pipeline = v1.Compose([*first[name], *PUBLISHED[name]])
    pictures = smooth(20, 40, 40, 3)
    pixels = packed(tmp_path / "x.pixels", [pictures])
    transform = make_transform(resize="scale-crop")
    assert transform.levels(torch.from_numpy(pictures)).shape[-1] == SIZE
    augmentation = make_augmentation(name, SIZE)
    assert augmentation is not None
    rows = np.arange(20)
    (found,) = Augmenter(pixels, transform, augmentation)((rows, rows + 100))
    for row in rows:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(row) + 100)
            wanted = pipeline(opened(pictures[row]))
        apart = np.abs(found[row].astype(np.float32) - as_array(wanted))
        # Pillow mixes colours in 8 bits; of a float tensor nothing is rounded or clipped.
        assert apart.mean() < (4 if name == "huix" else 1e-4)
        assert np.quantile(apart, 0.99) < (16 if name == "huix" else 1e-3)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("intensity", INTENSITIES.values())
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("content", [None, SIZE - 3, SIZE + 5])
def test_levels_then_mean_and_std_are_the_transform(resize, intensity, channels, content):
    transform = make_transform(resize=resize, intensity=intensity, content=content)
    images = torch.from_numpy(smooth(2, 20, 30, channels))
    levels = transform.levels(images)
    assert levels.shape == (2, levels.shape[1], SIZE, SIZE)
    assert levels.min() >= 0
    assert levels.max() <= 255
    torch.testing.assert_close(transform.from_levels(levels), transform(images), rtol=0, atol=2e-5)


def test_a_crop_of_the_stored_image_is_stretched_and_normalised_and_nothing_else(tmp_path):
    """A crop that is the whole image, of the right size: the transform of "scale"."""
    images = images_of(tmp_path / "x.pixels", [smooth(2, SIZE, SIZE)])
    intensity = INTENSITIES["min-max-channel"]
    loader = Loader(
        images,  # type: ignore[arg-type]
        make_transform(resize="crop", intensity=intensity),
        make_augmentation("baharoon", SIZE),
        CPU,
    )
    part = torch.from_numpy(smooth(2, SIZE, SIZE))[:, None]
    wanted = make_transform(resize="scale", intensity=intensity)(part[:, 0])
    assert torch.equal(loader._input_of(part), wanted)


def test_chances_are_the_same_in_any_order():
    chances = Chances(5, 100)
    first = chances.of(2, np.array([3, 99]))
    chances.of(3, np.array([3]))
    assert chances.of(2, np.array([99, 3])).tolist() == first[::-1].tolist()
    assert Chances(6, 100).of(2, np.array([3])) != first[:1]


def test_unknown_and_none():
    assert make_augmentation("none", 8) is None
    with pytest.raises(RequestError, match="--augment takes none, flip, .*'mixup'"):
        make_augmentation("mixup", 8)
