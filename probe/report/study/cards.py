"""The card of a data set: who is in it, how it is divided, what is known of it, how it looks."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cache.commands.names import counted
from cache.errors import CacheError
from cache.task import MISSING, MULTI_LABEL, REGRESSION, SEGMENTATION
from probe.arrays import Array, Bools
from probe.report.findings.division import Division, divisions
from probe.report.findings.looks import class_looks, picture
from probe.report.formats.cells import COUNT, PLAIN, Cell, Column, Page, Table
from probe.report.rows.beside import encoders_of
from probe.report.rows.contenders import Contender
from probe.report.rows.people import People, count_patients
from probe.report.study.parts import Block, Image, Strip

if TYPE_CHECKING:
    from cache.features import Features

SPLITS = ("train", "val", "test")
MOST_CLASSES = 12  # that are shown as pictures
N_PICTURES = 8  # of a class
MOST_DIVISIONS = 3  # splits and labels of a data set that are counted
NO_LICENCE = "not stated"
STORED = "the stored split"
SEVERAL = "these rows were asked with {} splits or labels, one table each"


def cards(contenders: Sequence[Contender], people: People) -> Iterator[Block]:
    """A table of counts and a strip of pictures of each data set, in the order of the rows.

    Args:
        contenders: all that the page is of.
        people: that knows feature files.
    """
    for dataset in dict.fromkeys(c.dataset for c in contenders):
        of_set = [c for c in contenders if c.dataset == dataset]
        found = divisions(of_set, people)
        yield _card(dataset, of_set, found)
        if found and (strip := _strip(found[0])):
            yield strip


def _card(dataset: str, of_set: Sequence[Contender], found: Sequence[Division]) -> Page:
    row = of_set[0].first.row
    above = [("task", row.encoded.task)]
    if not found:
        cells = tuple(Cell(value=row.n.get(split, 0), form=COUNT) for split in SPLITS)
        columns = (Column(""), *(Column(split, is_right=True) for split in SPLITS))
        table = Table(columns, ((Cell("samples"), *cells),), dataset, tuple(above))
        gone = "no feature file of it was found: classes, patients and pictures stand there"
        return Page((table,), notes=(gone, *_said(of_set)))
    features = found[0].features
    above += [("images", f"{features.n_rows} of {features.key.get('source_size') or '?'} px")]
    if features.n_rows != len(features.ids):
        above.append(("samples", str(len(features.ids))))
    above.append(
        ("patients", "unknown" if features.groups is None else str(count_patients(features.groups)))
    )
    above.append(("licence", str(features.notes.get("licence") or NO_LICENCE)))
    notes = [] if len(found) == 1 else [SEVERAL.format(len(found))]
    notes += dict.fromkeys(words for division in found for words in division.notes)
    tables = [_table(dataset, division) for division in found[:MOST_DIVISIONS]]
    tables[0] = replace(tables[0], above=tuple(above))
    if more := [of.name or STORED for of in found[MOST_DIVISIONS:]]:
        notes.append(f"not counted here: {'; '.join(more)}")
    return Page(tuple(tables), notes=(*notes, *_said(of_set)))


def _table(dataset: str, of: Division) -> Table:
    """Samples of each class, and patients, in each split."""
    features = of.features
    splits = [split for split in SPLITS if of.n.get(split)]
    is_whole = SPLITS[0] in of.known and len(of.known) == len(splits)  # else no sums are known
    columns = [Column("class"), *(Column(name, is_right=True) for name in splits)]
    columns += [Column("all", is_right=True)] * is_whole
    rows = [*_classes(of, splits, is_whole)]
    n_classes = len(rows)
    rows.append(_counts("samples", of, np.ones(len(features.ids), bool), splits, is_whole))
    if features.groups is not None:
        each = [features.groups[features.split == split] for split in of.known]
        patients = dict(zip(of.known, map(count_patients, each), strict=True))
        if is_whole:
            patients["all"] = count_patients(features.groups[features.split != ""])
        names = [*splits, *["all"] * is_whole]
        rows.append((Cell("patients"), *(_count(patients.get(name)) for name in names)))
    below = []
    if is_whole and (n := int((features.split == "").sum())):
        below.append(f"{n} of {counted(len(features.ids), 'sample')} in none of these splits")
    return Table(
        tuple(columns),
        tuple(rows),
        ", ".join(filter(None, [dataset, of.name])),
        feet=len(rows) - n_classes,
        below=tuple(below),
    )


def _count(n: int | None) -> Cell:
    return Cell("") if n is None else Cell(value=n, form=COUNT)


def _classes(of: Division, splits: Sequence[str], is_whole: bool) -> Iterator[tuple[Cell, ...]]:
    features = of.features
    if features.task == REGRESSION:
        for name, mean in (("mean", np.nanmean), ("standard deviation", np.nanstd)):
            parts = [
                features.labels[features.split == s] if s in of.known else None for s in splits
            ]
            parts += [features.labels[features.split != ""]] * is_whole
            values = [None if x is None or not len(x) else float(mean(x)) for x in parts]
            cells = (Cell("") if x is None else Cell(value=x, form=PLAIN) for x in values)
            yield (Cell(name), *cells)
        return
    for number, name in enumerate(features.class_names):
        yield _counts(str(name), of, _of_class(features, number), splits, is_whole)
    if features.task in (MULTI_LABEL, SEGMENTATION):
        return
    missing = (features.labels == MISSING) & (features.split != "")
    if missing.any():
        yield _counts("no label", of, missing, splits, is_whole)


def _of_class(features: Features, number: int) -> Bools:
    if features.task in (MULTI_LABEL, SEGMENTATION):  # 1, or pixels of the class
        return features.labels[:, number] > 0
    return features.labels == number


def _counts(
    name: str, of: Division, which: Bools, splits: Sequence[str], is_whole: bool
) -> tuple[Cell, ...]:
    there = of.features.split
    each = [int((which & (there == s)).sum()) if s in of.known else None for s in splits]
    if which.all():  # rows say how many they are, at least
        each = [of.n[s] if n is None else n for s, n in zip(splits, each, strict=True)]
    each += [int((which & (there != "")).sum())] * is_whole
    return (Cell(name), *map(_count, each))


def _said(of_set: Sequence[Contender]) -> Iterator[str]:
    """Leaks, as rows count them, and which encoders may have seen the images.

    Of encoders side by side each stands there alone, mostly; random weights have seen nothing.
    """
    found = dict.fromkeys(_leaks(c) for c in of_set)
    yield from found
    seen: dict[str, dict[str, None]] = {}
    alone = {c.model for c in of_set if not c.first.row.encoded.joined}
    for c in of_set:
        e = c.first.row.encoded
        if not c.is_random and not (e.joined and alone.issuperset(encoders_of([e]))):
            seen.setdefault(str(c.field("seen") or "unknown"), {})[c.model] = None
    words = (f"{said} ({', '.join(models)})" for said, models in seen.items())
    if seen:
        yield f"seen in the encoders' pretraining: {'; '.join(words)}"


def _leaks(of: Contender) -> str:
    leaks = of.first.row.posed.leaks
    if leaks is None:
        return "whether splits share copies or patients is unknown"
    which = "" if leaks["n"] else "val_"
    exact, near, groups = (leaks[f"{which}{what}"] for what in ("exact", "near", "groups"))
    twins = (
        "copies unknown"
        if exact is None
        else f"{('1 exact copy' if exact == 1 else f'{exact} exact copies')}, {near} near"
    )
    patients = "patients unknown" if groups is None else counted(groups, "patient")
    where = "test" if leaks["n"] else "val"
    return f"also in an earlier split than {where}: {twins}; {patients}"


def _strip(of: Division) -> Strip | None:
    """A few training images of each class, side by side; of folds, all of whom are tested, any."""
    features, split = of.features, (*of.known, SPLITS[0])[0]
    if features.thumbnails is None:
        return None
    try:
        found = [each for each in class_looks(features, split, N_PICTURES) if each.rows]
    except (CacheError, OSError):  # `cache verify` says what is wrong
        return None
    unit = "image" if features.n_rows == len(features.ids) else "sample"  # of several images
    what = f"training {unit}" if split == SPLITS[0] else f"{split} {unit}"
    images = [
        Image(
            sheet([picture(features, row) for row in each.rows]),
            f"{counted(len(each.rows), what)} of {each.name}",
            (f"{each.name}: {len(each.rows)} of {counted(each.n, what)}",),
        )
        for each in found[:MOST_CLASSES]
    ]
    more = len(found) - MOST_CLASSES
    return Strip("", tuple(images), f"{more} more classes aren't pictured" * (more > 0))


def sheet(pictures: Sequence[Array]) -> bytes:
    """Small grey pictures side by side, as PNG.

    Args:
        pictures: each (t, t) of uint8.
    """
    from PIL import Image as Picture

    gap = np.zeros((len(pictures[0]), 1), np.uint8)
    parts = [part for each in pictures for part in (each, gap)]
    file = io.BytesIO()
    Picture.fromarray(np.hstack(parts[:-1])).save(file, "png", optimize=True)
    return file.getvalue()
