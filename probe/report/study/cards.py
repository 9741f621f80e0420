"""The card of a data set: who is in it, how it is divided, what is known of it, how it looks."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cache.commands.names import counted
from cache.errors import CacheError
from cache.task import MISSING, MULTI_LABEL, REGRESSION
from probe.arrays import Array, Bools
from probe.report.findings.looks import class_looks, picture
from probe.report.formats.cells import COUNT, PLAIN, Cell, Column, Page, Table
from probe.report.rows.contenders import Contender
from probe.report.rows.people import People, Unfound
from probe.report.study.parts import Block, Image, Strip

if TYPE_CHECKING:
    from cache.features import Features

SPLITS = ("train", "val", "test")
MOST_CLASSES = 12  # that are shown as pictures
N_PICTURES = 8  # of a class
NO_LICENCE = "not stated"


def cards(contenders: Sequence[Contender], people: People) -> Iterator[Block]:
    """A table of counts and a strip of pictures of each data set, in the order of the rows.

    Args:
        contenders: all that the page is of.
        people: that knows feature files.
    """
    for dataset in dict.fromkeys(c.dataset for c in contenders):
        of_set = [c for c in contenders if c.dataset == dataset]
        features = _features(of_set, people)
        yield _card(dataset, of_set, features)
        if features is not None and (strip := _strip(features)):
            yield strip


def _features(of_set: Sequence[Contender], people: People) -> Features | None:
    """A feature file that any of them was asked of."""
    tried = set()
    for c in of_set:
        digest = c.first.row.encoded.digest
        if digest in tried:
            continue
        tried.add(digest)
        try:
            return people.file_of(c.first.row)
        except Unfound:
            continue
    return None


def _card(dataset: str, of_set: Sequence[Contender], features: Features | None) -> Page:
    row = of_set[0].first.row
    above = [("task", row.encoded.task)]
    notes: list[str] = []
    if features is None:
        cells = tuple(Cell(value=row.n.get(split, 0), form=COUNT) for split in SPLITS)
        columns = (Column(""), *(Column(split, is_right=True) for split in SPLITS))
        table = Table(columns, ((Cell("samples"), *cells),), dataset, tuple(above))
        gone = "no feature file of it was found: classes, patients and pictures stand there"
        return Page((table,), notes=(gone, *_said(of_set)))
    above += [("images", f"{features.n_rows} of {features.key.get('source_size') or '?'} px")]
    if features.n_rows != len(features.ids):
        above.append(("samples", str(len(features.ids))))
    above.append(
        ("patients", "unknown" if features.groups is None else str(len(set(features.groups))))
    )
    above.append(("licence", str(features.notes.get("licence") or NO_LICENCE)))
    notes += [str(text) for text in features.notes.get("data", ())]
    rows = [*_classes(features)]
    n_classes = len(rows)
    rows.append(_counts("samples", features, np.ones(len(features.ids), bool)))
    if features.groups is not None:
        patients = [len(set(features.groups[features.split == split])) for split in SPLITS]
        counts = (*patients, len(set(features.groups)))
        rows.append((Cell("patients"), *(Cell(value=n, form=COUNT) for n in counts)))
    columns = (Column("class"), *(Column(name, is_right=True) for name in (*SPLITS, "all")))
    laid = dict.fromkeys(filter(None, (_laid(c) for c in of_set)))
    notes += [f"rows were asked with {', '.join(laid)}; counts are of the stored split"] * bool(
        laid
    )
    table = Table(columns, tuple(rows), dataset, tuple(above), feet=len(rows) - n_classes)
    return Page((table,), notes=(*notes, *_said(of_set)))


def _classes(features: Features) -> Iterator[tuple[Cell, ...]]:
    if features.task == REGRESSION:
        for name, of in (("mean", np.nanmean), ("standard deviation", np.nanstd)):
            parts = [features.labels[features.split == split] for split in SPLITS]
            values = [float(of(x)) if len(x) else float("nan") for x in (*parts, features.labels)]
            yield (Cell(name), *(Cell(value=value, form=PLAIN) for value in values))
        return
    for number, name in enumerate(features.class_names):
        yield _counts(str(name), features, _of_class(features, number))
    missing = features.labels == MISSING
    if features.task != MULTI_LABEL and missing.any():
        yield _counts("no label", features, missing)


def _of_class(features: Features, number: int) -> Bools:
    if features.task == MULTI_LABEL:
        return features.labels[:, number] == 1
    return features.labels == number


def _counts(name: str, features: Features, which: Bools) -> tuple[Cell, ...]:
    each = [int((which & (features.split == split)).sum()) for split in SPLITS]
    return (Cell(name), *(Cell(value=n, form=COUNT) for n in (*each, int(which.sum()))))


def _laid(of: Contender) -> str:
    """The split and the labels that were laid over the file's own."""
    posed = of.first.row.posed
    split = f"the split {posed.split_words}" if posed.split_words else ""
    labels = f"the labels {posed.target_words}" if posed.target_words else ""
    return " and ".join(filter(None, [split, labels]))


def _said(of_set: Sequence[Contender]) -> Iterator[str]:
    """Leaks, as rows count them, and which encoders may have seen the images."""
    found = dict.fromkeys(_leaks(c) for c in of_set)
    yield from found
    seen: dict[str, dict[str, None]] = {}
    for c in of_set:
        seen.setdefault(str(c.field("seen") or "unknown"), {})[c.model] = None
    words = (f"{said} ({', '.join(models)})" for said, models in seen.items())
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


def _strip(features: Features) -> Strip | None:
    """A few training images of each class, side by side."""
    if features.thumbnails is None:
        return None
    try:
        found = [of for of in class_looks(features, SPLITS[0], N_PICTURES) if of.rows]
    except (CacheError, OSError):  # `cache verify` says what is wrong
        return None
    images = [
        Image(
            sheet([picture(features, row) for row in of.rows]),
            f"{len(of.rows)} training images of {of.name}",
            (f"{of.name}: {len(of.rows)} of {counted(of.n, 'training image')}",),
        )
        for of in found[:MOST_CLASSES]
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
