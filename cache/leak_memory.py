"""Leaks of a feature file: searched once for a data set, and remembered beside its files.

What is remembered goes by the checksums of hashes and thumbnails, the split and the patients, so
that every encoder's file of one data set shares it. Losing it only costs time.
"""

import contextlib
import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.features import Features, read_units
from cache.layout import LOOKS, read_table
from cache.leaks import Leaks, Twin, find_twins

FOLDER = ".leaks"
METHOD = b"leaks 1"  # to be raised when the search comes to find something else
LONG = 3e8  # pairs of samples: some 5 s on one core
KINDS = ("exact", "near")


def count_leaks(
    features: Features,
    split: NDArray[np.uint8] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Leaks | None:
    """What the splits of a file's samples share.

    Args:
        features: the file.
        split: (S,) index into SPLITS, any other number for what is left out; None: the file's own.
        say: told a line before a search that takes long.

    Returns:
        None where the file has no hashes and thumbnails: it is of an earlier version, or was made
        by ``cache export``, or holds texts.

    Raises:
        BrokenCache: the file is damaged.
    """
    hashes, thumbnails = features.hashes, features.thumbnails
    if hashes is None or thumbnails is None:
        return None
    if split is None:
        split = read_table(features.header, "samples/split")
    path = features.path.parent / FOLDER / f"{_digest(features, split)}.npz"
    leaks = _recall(path, split)
    if leaks is None:
        train, val, test = (int((split == i).sum()) for i in range(3))
        if (train + val) * test + train * val > LONG:
            say(
                f"{features.dataset}: looking for twins of {val + test:_} val and test images, once"
            )
        leaks = find_twins(thumbnails, hashes, features.row_sample, split, features.groups)
        _remember(path, leaks)
    return leaks


def _digest(features: Features, split: NDArray[np.uint8]) -> str:
    """Of everything that the leaks follow from; no path, no encoder."""
    header = features.header
    columns = [1 + list(header.arrays).index(name) for name in LOOKS]
    tables = [header.tables.get(name) for name in ("rows/sample", "samples/groups")]
    digest = hashlib.sha256(METHOD)
    for part in (read_units(header)[:, columns].tobytes(), split.tobytes(), repr(tables).encode()):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:32]


def _remember(path: Path, leaks: Leaks) -> None:
    """Keep what was found. A folder that can't be written is no reason to stop."""
    twins = leaks.twins
    arrays = {
        "exact": leaks.exact,
        "near": leaks.near,
        "pairs": np.array([twin[:2] for twin in twins], np.int64).reshape(-1, 2),
        "correlations": np.array([twin.correlation for twin in twins], np.float64),
        "kinds": np.array([KINDS.index(twin.kind) for twin in twins], np.uint8),
    }
    if leaks.patient is not None:
        counts = [leaks.n_patients[name] for name in ("val", "test")]
        arrays |= {"patient": leaks.patient, "n_patients": np.array(counts)}
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    with contextlib.suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        try:
            np.savez_compressed(temporary, **arrays)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _recall(path: Path, split: NDArray[np.uint8]) -> Leaks | None:
    """What was found before; None where nothing is kept, or something else than was put there."""
    try:
        # Opened here: np.load leaves a file open that turns out to be none of its own.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            kept = {name: file[name] for name in file.files}
        twins = tuple(
            Twin(int(sample), int(other), float(correlation), KINDS[kind])
            for (sample, other), correlation, kind in zip(
                kept["pairs"], kept["correlations"], kept["kinds"], strict=True
            )
        )
        patient, counts = kept.get("patient"), kept.get("n_patients", [])
        masks = [kept["exact"], kept["near"], *([] if patient is None else [patient])]
        if any(mask.shape != split.shape or mask.dtype != bool for mask in masks):
            return None
        if any(not 0 <= place < len(split) for twin in twins for place in twin[:2]):
            return None
        n_patients = {name: int(n) for name, n in zip(("val", "test"), counts, strict=False)}
        return Leaks(split, kept["exact"], kept["near"], patient, n_patients, twins)
    except (OSError, EOFError, LookupError, ValueError, TypeError, zipfile.BadZipFile, zlib.error):
        return None  # damaged: it is found again
