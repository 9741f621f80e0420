"""Leaks of a feature file: searched once for a data set, and remembered beside its files.

What is remembered goes by the checksums of hashes and thumbnails, the split and the patients, so
that every encoder's file of one data set shares it. Losing it only costs time.
"""

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.features import Features
from cache.files import open_regular, write_whole
from cache.format.read import read_table
from cache.format.sample_tables import SPLITS
from cache.format.spec import LOOKS
from cache.leaks import WHAT, Leaks, Stack, Twin, find_twins
from cache.stored import read_units

FOLDER = ".leaks"
METHOD = b"leaks 1"  # to be raised when the search comes to find something else
LONG = 3e8  # pairs of samples: some 5 s on one core
KINDS = ("exact", "near")
COUNTS = tuple(f"{of}{what}" for of in ("", "val_") for what in WHAT)


def count_leaks(
    features: Features,
    split: NDArray[np.uint8] | None = None,
    *,
    trained_on: tuple[Features, NDArray[np.uint8]] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Leaks | None:
    """What the splits of a file's samples share.

    Args:
        features: the file.
        split: (S,) index into SPLITS, any other number for what is left out; None: the file's own.
        trained_on: of external validation, another data set's file and the split of its samples:
            they are numbered after the S of ``features``, and their patients are other people.
        say: told a line before a search that takes long.

    Returns:
        None where a file has no hashes and thumbnails (it is of an earlier version, was made by
        ``cache export``, see ``counted_leaks``, or holds texts), or where the two files' thumbnails differ in size.

    Raises:
        BrokenCache: a file is damaged.
    """
    if split is None:
        split = read_table(features.header, "samples/split")
    parts = [(features, split), *([] if trained_on is None else [trained_on])]
    thumbnails = [part.thumbnails for part, _ in parts]
    hashes = [part.hashes for part, _ in parts]
    known = [x for x in thumbnails if x is not None]
    if len(known) < len(parts) or len({x.shape[1] for x in known}) > 1:
        return None
    splits = np.concatenate([of_part for _, of_part in parts])
    path = features.path.parent / FOLDER / f"{_digest(parts)}.npz"
    leaks = _recall(path, splits)
    if leaks is None:
        for part, _ in parts:
            part.check_thumbnails()
        train, val, test = (int((splits == i).sum()) for i in range(len(SPLITS)))
        if (train + val) * test + train * val > LONG:
            say(
                f"{features.dataset}: looking for twins of {val + test:_} val and test images, once"
            )
        first = np.cumsum([0, *(len(of_part) for _, of_part in parts)])
        leaks = find_twins(
            Stack(known),
            np.concatenate([x for x in hashes if x is not None]),
            np.concatenate([f.row_sample + i for (f, _), i in zip(parts, first, strict=False)]),
            splits,
            features.groups if trained_on is None else None,
        )
        _remember(path, leaks)
    return leaks


def counted_leaks(features: Features) -> dict[str, int | None] | None:
    """What was counted of a file's own split when it was finished, as ``Leaks.summary`` has it.

    All that is known of a file that was made to share, which holds no pictures. None where nothing
    was counted, or what stands there (it has no checksum) is no such count.
    """
    said = features.cost.get("leaks")
    if not isinstance(said, Mapping):
        return None
    counts = {name: said.get(name) for name in COUNTS}
    known = [n for name, n in counts.items() if n is not None or "group" not in name]
    is_whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in known)
    return counts if is_whole else None


def _digest(parts: Sequence[tuple[Features, NDArray[np.uint8]]]) -> str:
    """Of everything that the leaks follow from; no path, no encoder."""
    digest = hashlib.sha256(METHOD)
    for features, split in parts:
        header = features.header
        columns = [header.word(name) for name in LOOKS]
        records = read_units(header)[:, columns]
        tables = [header.tables.get(name) for name in ("rows/sample", "samples/groups")]
        for said in (records.tobytes(), split.tobytes(), repr(tables).encode()):
            digest.update(hashlib.sha256(said).digest())
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
    with contextlib.suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        with write_whole(path) as file:
            np.savez_compressed(file, **arrays)


def _recall(path: Path, split: NDArray[np.uint8]) -> Leaks | None:
    """What was found before; None where nothing is kept, or something else than was put there."""
    try:
        # Opened here: np.load leaves a file open that turns out to be none of its own.
        with open_regular(path) as raw, np.load(raw, allow_pickle=False) as file:
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
        names = () if patient is None else ("val", "test")
        n_patients = {name: int(n) for name, n in zip(names, counts, strict=True)}
        return Leaks(split, kept["exact"], kept["near"], patient, n_patients, twins)
    # The one broad except: readers of damaged files raise anything, TokenError to MemoryError.
    except Exception:
        return None  # it is found again
