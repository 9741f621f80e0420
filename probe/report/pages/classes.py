"""Rows by class, and masks by the size of their structures: a line each."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cache.commands.names import counted
from cache.errors import RequestError
from probe.report.formats.cells import COUNT, SHARE, UNIT, Cell, Column, Page, Table
from probe.report.pages.listing import MODEL, QUIET, RIGHT, USUAL
from probe.report.rows.fields import BY_NAME, written
from probe.report.rows.stored import StoredRow

CLASS, SIZE = "class", "size"  # what --by calls these tables
WEIGHTS = "weights"
FIELDS = tuple(name for name in USUAL if name != "data")
COUNTS = ("n", "missed", "n_empty", "false_alarms", "n_images")
HEADINGS = {
    "size": "size in patches",
    "average_precision": "AP",
    "hd95_median": "hd95 median",
    "n_empty": "n without",
    "false_alarms": "false alarms",
    "n_images": "images",
    "dice_image": "dice of images",
    "jaccard_image": "jaccard of images",
}
WORDS = (CLASS, SIZE)
OF_MASKS = (
    "n: test samples that have the structure, which dice, jaccard, hd95 (mm), nsd and bound are means "
    "over; missed: of these, nothing is predicted: 0, in hd95 the diagonal of the image; false alarms: "
    "of those without it, something is; bound: dice of the true masks pooled to the grid and back"
)
OF_SIZES = (
    "size: all pixels of the structure in an image, in patches of the grid, which can't see what is "
    "smaller than a patch; n: images that have it, of volumes slices"
)
NONE = (
    "few-shot episodes, numbers, and rows that haven't read test have no numbers by class, and masks "
    "alone have them by size"
)


def page_of_classes(
    rows: Sequence[StoredRow], metrics: Sequence[str] = (), by: Sequence[str] = WORDS
) -> Page:
    """Each row's numbers of each class on test, a table for each data set and kind of labels.

    Args:
        rows: in order.
        metrics: which numbers, beside counts; none: all.
        by: CLASS, or SIZE of structures, or both.

    Raises:
        RequestError: no row has any.
    """
    of_sizes = CLASS not in by
    having = [
        of for of in rows if (of.row.measured.per_size if of_sizes else of.row.measured.per_class)
    ]
    if not having:
        raise RequestError(f"nothing to show: {NONE}")
    alike: dict[tuple[str, ...], list[StoredRow]] = {}
    for of in having:
        e = of.row.encoded
        key = e.dataset, e.task, of.row.posed.target_words
        alike.setdefault(key, []).append(of)
    tables = tuple(table for of_set in alike.values() for table in _tables(of_set, metrics, by))
    n = len(rows) - len(having)
    return Page(tables, notes=(f"{counted(n, 'row')} left out: {NONE}",) if n else ())


def _tables(
    alike: Sequence[StoredRow], metrics: Sequence[str], by: Sequence[str]
) -> Iterator[Table]:
    dataset = alike[0].row.encoded.dataset
    by_class = [of.row.measured.per_class for of in alike]
    is_dense = "background" in by_class[0]
    below = [OF_MASKS] if is_dense else []
    for name in dict.fromkeys(_backgrounds(by_class)):
        below.append(f"{name} is the background, no structure: in no mean but those of all classes")
    if CLASS in by:
        yield _table(f"{dataset}, by class", alike, by_class, metrics, below)
    sized = [of for of in alike if of.row.measured.per_size]
    if sized and SIZE in by:
        by_size = [of.row.measured.per_size for of in sized]
        yield _table(f"{dataset}, by size of the structure", sized, by_size, metrics, [OF_SIZES])


def _backgrounds(each: Sequence[Mapping[str, Sequence[Any]]]) -> Iterator[str]:
    for found in each:
        flags = found.get("background", ())
        yield from (str(c) for c, is_it in zip(found[CLASS], flags, strict=False) if is_it)


def _table(
    title: str,
    rows: Sequence[StoredRow],
    each: Sequence[Mapping[str, Sequence[Any]]],
    metrics: Sequence[str],
    below: Sequence[str],
) -> Table:
    """A line for each row and entry of its lists."""
    words = {name: [written(BY_NAME[name].of(of)) for of in rows] for name in FIELDS}
    words = {n: w for n, w in words.items() if not {*w} <= {"", *QUIET.get(n, ())}}
    pairs = {*zip(words[MODEL], words.get(WEIGHTS, words[MODEL]), strict=True)}
    if len(pairs) == len({*words[MODEL]}):  # the encoder's name says which weights they are
        words.pop(WEIGHTS, None)
    telling = {n: w for n, w in words.items() if n == MODEL or len({*w}) > 1}
    above = tuple((BY_NAME[n].title, w[0]) for n, w in words.items() if n not in telling)
    names = [name for name in each[0] if name in WORDS]
    numbers = [
        name
        for name in each[0]
        if name not in (*WORDS, "background")
        and (name in COUNTS or not metrics or name in metrics)
        and any(_is_known(value) for found in each for value in found.get(name, ()))
    ]
    lines = []
    for i, found in enumerate(each):
        for place in range(len(found[CLASS])):
            first = [Cell(values[i]) for values in telling.values()]
            first += [Cell(str(found[name][place])) for name in names]
            lines.append((*first, *(_cell(name, found, place) for name in numbers)))
    columns = [Column(BY_NAME[name].title, is_right=name in RIGHT) for name in telling]
    columns += [Column(HEADINGS.get(name, name)) for name in names]
    columns += [Column(HEADINGS.get(name, name), is_right=True) for name in numbers]
    return Table(tuple(columns), tuple(lines), title, above, tuple(below))


def _is_known(value: Any) -> bool:
    return isinstance(value, int | float) and not math.isnan(value)


def _cell(name: str, found: Mapping[str, Sequence[Any]], place: int) -> Cell:
    value = found[name][place] if name in found else None
    if not _is_known(value):
        return Cell()
    form = COUNT if name in COUNTS else UNIT if name.startswith("hd95") else SHARE
    return Cell(value=value, form=form)
