"""A small set made of shapes, with masks and a token file whose tokens tell what a patch shows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from features import make_spec

from cache.format.key import feature_path
from cache.format.spec import HASH, HASH_BYTES, PICTURE, PICTURE_SHAPE, THUMBNAIL
from cache.masks import MaskSource, write_masks
from cache.store import FeatureWriter

SIDE, GRID = 64, 8  # pixels of an image, patches along it
CLASSES = ("background", "disc", "square")
TRANSFORM = {"resize": "scale", "interpolation": "bilinear"}


def draw_mask(rng, side=SIDE):
    """(side, side) uint8: a disc, a square, both or neither, at a random place."""
    mask = np.zeros((side, side), np.uint8)
    y, x = np.mgrid[:side, :side]
    for number, is_round in ((1, True), (2, False)):
        if rng.random() < 0.8:
            at, radius = rng.uniform(0.25, 0.75, 2) * side, rng.uniform(0.12, 0.3) * side
            dy, dx = abs(y - at[0]), abs(x - at[1])
            mask[np.hypot(dy, dx) < radius if is_round else np.maximum(dy, dx) < radius] = number
    return mask


@dataclass(frozen=True)
class Shapes:
    """N images as their masks, and what each is of."""

    masks: list[np.ndarray]
    ids: np.ndarray
    tokens: np.ndarray  # (N, h, w, D)


def make_shapes(n=30, width=12, noise=0.3, seed=0, grid=(GRID, GRID), side=SIDE):
    """Masks, and tokens that are a fixed mixture of each patch's shares of classes, and noise."""
    rng = np.random.default_rng(seed)
    masks = [draw_mask(rng, side) for _ in range(n)]
    h, w = grid
    shares = np.stack(
        [
            (mask.reshape(h, side // h, w, side // w)[..., None] == np.arange(len(CLASSES))).mean(
                axis=(1, 3)
            )
            for mask in masks
        ]
    )
    mixture = np.random.default_rng(99).normal(size=(len(CLASSES), width))
    tokens = shares @ mixture + noise * rng.normal(size=(n, h, w, width))
    return Shapes(masks, np.array([f"im{i:03d}" for i in range(n)]), tokens.astype(np.float32))


def make_token_file(
    root, shapes, *, layers=(11,), size=SIDE, dtype="float16", model="toy", pictures=False, **fields
):
    """The token file of a set of shapes below ``root``; further layers are the first one, noisier.

    Args:
        root: the folder of features.
        shapes: as ``make_shapes`` gives them.
        layers: whose tokens are stored.
        size: of the encoder's input, pixels.
        dtype: as stored.
        model: the encoder's name.
        pictures: keep each image's picture: its mask in levels of grey.
        fields: of ``making.features.make_spec``.
    """
    n, h, w, width = shapes.tokens.shape
    arrays = {f"layers/{layer:02d}/tokens": (h, w, width) for layer in layers}
    key = {
        "layers": {"of": 12, "stored": list(layers)},
        "tokens": {"grids": [[h, w]] * len(layers)},
        "transform": TRANSFORM,
        "size": size,
        **fields.pop("key", {}),
    }
    thirds = np.minimum(np.arange(n) * 3 // n, 2).astype(np.uint8)
    said = {"ids": shapes.ids, "row_ids": shapes.ids, "split": thirds, **fields}
    looks = {HASH: HASH_BYTES, THUMBNAIL: 16, **({PICTURE: PICTURE_SHAPE} if pictures else {})}
    spec = make_spec(
        len(said["row_ids"]),
        {**arrays, **looks},
        dtype,
        dataset="shapes",
        model=model,
        size=size,
        key=key,
        **said,
    )
    path = feature_path(Path(root), "shapes", model, size, spec.key)
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    with FeatureWriter(path, spec) as writer:
        for unit in writer.todo:
            start, stop = writer.header.rows_of(unit)
            part = shapes.tokens[start:stop]
            rows = {
                name: part + number * rng.normal(size=part.shape)
                for number, name in enumerate(arrays)
            }
            rows[HASH] = rng.integers(0, 256, (stop - start, HASH_BYTES)).astype(np.uint8)
            rows[THUMBNAIL] = rng.integers(0, 256, (stop - start, 16)).astype(np.uint8)
            if pictures:
                rows[PICTURE] = np.stack([picture_of(m) for m in shapes.masks[start:stop]])
            writer.write_unit(unit, rows)
        writer.finish({})
    return path


def picture_of(mask):
    """(224, 224, 3) uint8: a square mask in levels of grey."""
    place = np.arange(PICTURE_SHAPE[0]) * len(mask) // PICTURE_SHAPE[0]
    return np.repeat((60 + 90 * mask[place[:, None], place])[..., None], 3, axis=2).astype(np.uint8)


def make_masks_file(root, shapes, *, ignore=None, background=0, spacing=None, names=CLASSES):
    """The masks file that belongs to ``make_token_file``'s."""

    def stream(ranges):
        for start, stop in ranges:
            yield shapes.masks[start:stop]

    source = MaskSource(tuple(names), background, ignore, stream, spacing)
    return write_masks(Path(root) / "shapes", "shapes", shapes.ids, source)
