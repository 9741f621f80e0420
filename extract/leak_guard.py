"""``extract --strict``: what a data set's splits share is looked for before the first forward pass."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache import RequestError
from cache.features import Features
from cache.format.read import read_header
from cache.format.spec import HASH
from cache.leaks import Leaks, describe_leaks, find_twins
from cache.store import done_units
from extract.datasets.dataset import Dataset, as_stored
from extract.machine.progress import Progress

CHUNK_ROWS = 64
SHOWN = 3


def refuse_leaks(dataset: Dataset, path: Path, say: Callable[[str], None]) -> None:
    """Refuse a data set with copies of an image, or a patient, on two sides of its split.

    Near twins are counted and not refused: some are honest neighbours.

    Args:
        dataset: its images are decoded once, unless they were before.
        path: of the feature file; a complete one knows the images already.
        say: told what takes long.

    Raises:
        RequestError: there are such; the first are named.
    """
    hashes = _stored_hashes(path)
    if hashes is None:
        say(f"  {dataset.name}: --strict decodes every image once before the first forward pass")
        hashes = _hashes(dataset)
    samples = dataset.samples
    flat = np.zeros((len(hashes), 1), np.uint8)  # of which nothing is a near twin
    leaks = find_twins(flat, hashes, dataset.row_sample, samples.split, samples.groups)
    shared = leaks.exact if leaks.patient is None else leaks.exact | leaks.patient
    if shared.any():
        raise RequestError(
            f"{dataset.name} has leaks across its splits, which --strict refuses: "
            f"{describe_leaks(leaks.summary())} ({_first(leaks, samples.ids, shared)}); `extract "
            f"data twins` lists them: change the split, or leave --strict out"
        )


def _first(leaks: Leaks, ids: NDArray[np.str_], shared: NDArray[np.bool_]) -> str:
    pairs = [f"{ids[t.sample]} is {ids[t.other]}" for t in leaks.twins if t.kind == "exact"]
    alone = [f"{ids[i]} shares a patient" for i in np.flatnonzero(shared & ~leaks.exact)]
    named = [*pairs, *alone]
    return "; ".join(named[:SHOWN]) + ("; ..." if len(named) > SHOWN else "")


def _stored_hashes(path: Path) -> NDArray[np.uint8] | None:
    if not path.exists():
        return None
    header = read_header(path)
    with path.open("rb") as file:
        whole = len(done_units(file, header)) == header.n_units
    return Features(header).hashes if whole else None


def _hashes(dataset: Dataset) -> NDArray[np.uint8]:
    ranges = dataset.cut([(0, dataset.n_rows)], CHUNK_ROWS)
    with Progress(f"leaks of {dataset.name}", dataset.n_rows) as progress:
        parts = []
        for piece in dataset.pieces(ranges, as_stored):
            parts.append(piece.looks[HASH])
            progress.advance(len(piece))
    return np.concatenate(parts)
