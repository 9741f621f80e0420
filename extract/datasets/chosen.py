"""Some images of a data set, by id: a small data set of its own (``extract --ids``)."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from cache import RequestError
from cache.commands.names import near_names
from extract.datasets.dataset import Dataset, Images, Piece, Prepare, Ranges

T = TypeVar("T")


def choose_rows(dataset: Dataset, ids: Sequence[str]) -> Dataset:
    """The rows of some ids, in the order of the data set.

    Args:
        dataset: all of it.
        ids: of samples, which are all their rows, or of single rows.

    Raises:
        RequestError: there is no such id.
    """
    samples = dataset.samples
    known = {*samples.ids.tolist(), *dataset.row_ids.tolist()}
    for unknown in (one for one in ids if one not in known):
        near = near_names(unknown, [*samples.ids.tolist()], f"one of them is {samples.ids[0]}")
        raise RequestError(f"--ids: {dataset.name} has no image {unknown!r}; {near}")
    of_sample = np.isin(samples.ids, ids)
    rows = np.flatnonzero(of_sample[dataset.row_sample] | np.isin(dataset.row_ids, ids))
    kept, row_sample = np.unique(dataset.row_sample[rows], return_inverse=True)

    def spans(ranges: Ranges) -> list[Ranges]:
        """Of each range of our rows, those of the whole data set."""
        found = []
        for first, last in ranges:
            own = rows[first:last]
            parts = np.split(own, np.flatnonzero(np.diff(own) > 1) + 1)
            found.append([(int(part[0]), int(part[-1]) + 1) for part in parts])
        return found

    def stream(ranges: Ranges) -> Iterator[Images]:
        for parts in _joined(dataset.stream, spans(ranges)):
            yield parts[0] if len(parts) == 1 else [image for part in parts for image in part]

    def load(ranges: Ranges, prepare: Prepare) -> Iterator[Piece]:
        assert dataset.load is not None
        whole = dataset.load
        for parts in _joined(lambda some: whole(some, prepare), spans(ranges)):
            names = parts[0].looks
            looks = {name: np.concatenate([part.looks[name] for part in parts]) for name in names}
            yield Piece([group for part in parts for group in part.images], looks)

    return dataclasses.replace(
        dataset,
        samples=dataclasses.replace(
            samples,
            ids=samples.ids[kept],
            split=samples.split[kept],
            labels=samples.labels[kept],
            groups=None if samples.groups is None else samples.groups[kept],
            meta={column: values[kept] for column, values in samples.meta.items()},
        ),
        row_ids=dataset.row_ids[rows],
        row_sample=row_sample.astype(np.int64),
        rows={"of": dataset.n_rows, "stored": rows.tolist()},
        stream=stream,
        row_bytes=None if dataset.row_bytes is None else dataset.row_bytes[rows],
        load=load if dataset.load is not None else None,
        masks=None,  # those of all images serve: they are joined by id
    )


def _joined(read: Callable[[Ranges], Iterator[T]], spans: list[Ranges]) -> Iterator[list[T]]:
    """What is read of the ranges of each list, together; all are read in one go."""
    found = read([span for some in spans for span in some])
    for some in spans:
        yield [next(found) for _ in some]
