"""A split as a file: CSV of ``id,split,dataset``, to keep, to publish, or to bring along."""

import unicodedata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.format.sample_tables import SPLITS
from cache.labels.tables import DATASET, check_dataset, column, read_csv, write_csv
from cache.splits.make import LEFT_OUT

HEADER = ("id", "split", DATASET)  # the last may be missing


def read_split_file(path: Path, ids: NDArray[np.str_], dataset: str) -> NDArray[np.uint8]:
    """The split that a file gives S samples; those that it doesn't name are left out.

    Args:
        path: a CSV file with the columns id and split (train, val or test; empty: left out); it may
            name its data set in a column dataset.
        ids: (S,) unique.
        dataset: whose they are.

    Returns:
        (S,) index into SPLITS, or LEFT_OUT.

    Raises:
        RequestError: not such a file, one of another data set, another word, an id twice, or ids
            that there are none of: a split of other data would leave nearly everything out.
    """
    table = read_csv(path)
    check_dataset(table, dataset)
    place = {name: i for i, name in enumerate(np.asarray(ids).tolist())}
    split = np.full(len(place), LEFT_OUT, np.uint8)
    seen: set[str] = set()
    unknown: list[str] = []
    for name, word, line in zip(
        column(table, "id"), column(table, "split"), table.lines, strict=True
    ):
        if word and word not in SPLITS:
            raise RequestError(
                f"{path}, line {line}, column split: {word!r} is none of {', '.join(SPLITS)}"
            )
        if name not in place:  # macOS writes é as two characters, ids hold one
            name = unicodedata.normalize("NFC", name)
        if name in seen:
            raise RequestError(f"{path}, line {line}, column id: {name!r} stands there twice")
        seen.add(name)
        if name not in place:
            unknown.append(f"{name!r} in line {line}")
        elif word:
            split[place[name]] = SPLITS.index(word)
    if unknown:
        raise RequestError(
            f"{path} names {len(unknown)} samples that aren't there ({', '.join(unknown[:3])}); "
            f"ids look like {next(iter(place))!r}"
        )
    return split


def write_split_file(
    path: Path, ids: NDArray[np.str_], split: NDArray[np.uint8], dataset: str
) -> None:
    """Write a split, sorted by id; what is left out isn't named.

    Raises:
        RequestError: it can't be written; then nothing stands there.
    """
    pairs = zip(np.asarray(ids).tolist(), split.tolist(), strict=True)
    rows = sorted((name, SPLITS[i], dataset) for name, i in pairs if i != LEFT_OUT)
    try:
        write_csv(path, [HEADER, *rows])
    except OSError as error:
        raise RequestError(f"can't write the split to {path} ({error.strerror})") from error
