"""What maps are drawn from: a token file with pictures, its masks, and a row that predicts them."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from overlapping import measured, runs, segmented
from shapes import Shapes, make_masks_file, make_shapes, make_token_file

from cache.format.read import read_header
from probe.results import write_row

SIDE = 32  # as ``overlapping`` has masks
N, N_TEST = 12, 4


@dataclass(frozen=True)
class Shown:
    """Where everything lies."""

    shapes: Shapes
    path: Path  # of the token file
    masks: Path
    row: Path
    features: Path  # folders
    results: Path
    predicted: list[np.ndarray]  # of the last ``N_TEST`` images


def make_shown(root, **fields):
    """All of it below a folder; fields are those of ``make_token_file``."""
    features, results = root / "features", root / "results"
    shapes = make_shapes(N, side=SIDE, noise=0.1)
    path = make_token_file(
        features, shapes, **{"layers": (5, 11), "size": SIDE, "pictures": True, **fields}
    )
    masks = make_masks_file(features, shapes)
    predicted = [np.roll(mask, 3 * i, axis=1) for i, mask in enumerate(shapes.masks[-N_TEST:])]
    row = write_row(results, row_of(shapes, predicted, digest=read_header(path).digest))
    return Shown(shapes, path, masks, row, features, results, predicted)


def row_of(shapes, predicted, digest="", **arrays):
    """A row of ``--kind segment`` with these masks of the last images; ``digest``: of its file."""
    row = segmented("toy", n=N_TEST, dataset="shapes").row
    scores, labels = measured(np.stack(shapes.masks[-N_TEST:]), np.stack(predicted))
    said = {"test_scores": scores, "test_labels": labels, "test_ids": shapes.ids[-N_TEST:]}
    said |= {"masks_ids": shapes.ids[-N_TEST:], **runs(predicted), **arrays}
    encoded = dataclasses.replace(row.encoded, size=SIDE, digest=digest or row.encoded.digest)
    return dataclasses.replace(row, encoded=encoded, scores={**row.scores, **said})
