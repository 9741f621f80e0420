"""One data set has one table: what is new in it is laid over every encoder's file of the same images.

Labels, splits, patients and ids are in no key, so that nothing is computed again. Left as they were in
the files of other encoders, they would make one table of different questions.
"""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache import RequestError
from cache.commands.settings import flags_of
from cache.features import Features
from cache.format.read import read_table
from cache.format.spec import FileSpec
from cache.splits.rules import DRAWN
from cache.store import FeatureWriter, changed_tables
from cache.task import BINARY
from extract.datasets.dataset import Dataset
from extract.datasets.drawn import find_files
from extract.datasets.files.options import TableOptions

# What of a command says which labels and split there are.
OF_DATA = {"--data", "--split", "--split-seed", *(f.name for f in flags_of(TableOptions))}


def share_tables(
    dataset: Dataset,
    root: Path,
    own: Path,
    words: Sequence[str],
    shard: tuple[int, int],
    say: Callable[[str], None],
) -> None:
    """Rewrite the tables of every other complete file of the same images; features are kept.

    Each is replaced at once, and who reads the old one keeps reading it.

    Args:
        dataset: as it is now.
        root: the folder of features.
        own: the file that is made now, whose writer sees to it itself.
        words: of a command line, that say which labels and split these are.
        shard: (I, N); several processes can't rewrite one file.
        say: told a line for each.

    Raises:
        RequestError: there are such files, and several shards.
        CacheError: one is being written, or damaged.
    """
    for features in find_files(root, dataset.name):
        if features.path == own or features.key.get("images") != dataset.images_digest:
            continue
        rows = _rows_of(features, dataset)
        if rows is None:
            say(
                f"  {features.path} keeps its tables, for its rows are others; it gets them by\n"
                f"    {features.header.cure}"
            )
            continue
        spec = _spec_of(features, dataset, rows, words)
        if not changed_tables(features.header, spec):
            continue
        if shard[1] > 1:
            raise RequestError(
                f"{features.path} has other labels or another split of {dataset.name}, and several "
                "shards can't rewrite it at once; run the command once without --shard and torchrun"
            )
        with FeatureWriter(features.path, spec) as writer:
            changed = ", ".join(f"{name} {how}" for name, how in writer.changed_tables.items())
            say(f"  {features.path}: tables rewritten, features kept: {changed}")
            if writer.bad_units:
                say(
                    f"    and {len(writer.bad_units)} of its units are damaged; this computes them "
                    f"again:\n    {spec.command}"
                )


def _rows_of(
    features: Features, dataset: Dataset
) -> tuple[NDArray[np.str_], NDArray[np.int64]] | None:
    """Ids and samples of a file's rows, as the data set has them now; None: of other samples.

    Volumes that were cut along another axis have other rows of the same samples.
    """
    slicing = dataset.slicing.key if dataset.slicing else None
    if features.key.get("slices") == slicing and features.n_rows == dataset.n_rows:
        return dataset.row_ids, dataset.row_sample
    if np.array_equal(features.ids, dataset.samples.ids):
        return read_table(features.header, "rows/ids"), features.row_sample
    return None


def _spec_of(
    features: Features,
    dataset: Dataset,
    rows: tuple[NDArray[np.str_], NDArray[np.int64]],
    words: Sequence[str],
) -> FileSpec:
    """What the file will say of itself: its own features, and the data set's tables."""
    header = features.header
    row_ids, row_sample = rows
    notes = {n: v for n, v in features.notes.items() if n not in ("data", "licence", DRAWN)}
    return FileSpec(
        model=features.model,
        encoder=features.encoder,
        size=features.size,
        dataset=dataset.name,
        task=dataset.task,
        class_names=dataset.class_names,
        positive_class=dataset.class_names[1] if dataset.task == BINARY else None,
        key=features.key,
        arrays=header.row_shapes,
        fixed_unit_rows=header.unit_rows,
        dtype=str(features.key.get("store", "float32")),
        row_ids=row_ids,
        row_sample=row_sample,
        samples=dataset.samples,
        command=_now_of(header.command, words),
        notes={**notes, "licence": dataset.licence, **dataset.said},
        versions=features.versions,
        fingerprint=features.fingerprint,
    )


def _now_of(command: Sequence[str], words: Sequence[str]) -> str:
    """A file's command with the labels and the split that it has now."""
    kept: list[str] = []
    old = iter(command)
    for word in old:
        flag, equals, _ = word.partition("=")
        if flag not in OF_DATA:
            kept.append(word)
        elif not equals:
            next(old, None)  # every one of these takes a value
    return shlex.join([*kept, *words])
