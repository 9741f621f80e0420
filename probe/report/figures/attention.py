"""Attention of fused probes: at which layers and pools, of which encoders, they look."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cache.commands.names import counted, short_label
from cache.errors import RequestError
from probe.arrays import Array, Doubles
from probe.places import POOLS, Place, places_in
from probe.report.figures.frame import Asked, Frame, nothing
from probe.report.figures.heat import Grouped, Scale
from probe.report.figures.names import names_of
from probe.report.rows.contenders import Contender
from probe.report.rows.stored import StoredRow

FUSION = "fusion"  # the kind
STEP = 0.02  # the scale ends at a multiple of this
NEAR = 0.01  # of the sum of attention to 1
HOW = (
    "Attention of test samples to each layer and pool, in %: the mean over samples and heads; a line "
    "adds up to 100."
)
ISNT = (
    "It says where the probe looks, not which layer is needed: layers hold much of the same, and without "
    "one of them a probe may look elsewhere and answer as well."
)
LACKING = "it holds no attention; ask again"
FOREIGN = "its attention isn't one of the layers and pools that it names; ask again"


@dataclass(frozen=True)
class Look(Grouped):
    """Attention to one place; the value is its share."""

    dataset: str
    encoder: str  # of the place
    layer: int  # of several side by side the last
    pool: str
    sd: float  # over trainings or folds, of n - 1; nan of one
    n_averaged: int  # trainings or folds; 0: none has an image of the class
    uniform: float  # what a probe without preference gives
    n: int  # test images


@dataclass(frozen=True)
class Line:
    """Attention of some test images."""

    name: str  # of their class; "": all
    n: int  # images
    each: Doubles  # (S, T) of each training or fold that has some


@dataclass(frozen=True)
class Fused:
    """What the rows of one question hold."""

    of: Contender
    places: tuple[Place, ...]  # T
    encoders: tuple[str, ...]  # of each file
    lines: tuple[Line, ...]

    @property
    def columns(self) -> object:
        """Equal where columns are: those of encoders of one depth, if each is alone."""
        return self.encoders[1:] and self.encoders, frozenset(self.places)


def make(asked: Asked) -> Frame[Look]:
    """Data sets and encoders x places, a matrix for each set of places; or classes x places.

    Raises:
        RequestError: no row of fusion holds its attention.
    """
    if asked.by:
        raise RequestError("attention is kept of each class, --by class, and by no other column")
    left: Counter[str] = Counter()
    of_kind = [
        c
        for c in asked.contenders
        if c.first.row.answered.kind == FUSION and c.first.row.measured.test
    ]
    found = [fused for c in of_kind if (fused := _read(c, asked.by_class, left))]
    notes = tuple(f"Left out: {counted(n, 'row')}: {why}" for why, n in left.items())
    if not found:
        error = nothing("rows of fusion with their attention", f"probe --kind {FUSION}")
        raise RequestError("; ".join([str(error), *notes]))
    panels: dict[object, list[Fused]] = defaultdict(list)
    for nth, fused in enumerate(found):
        panels[nth if asked.by_class else fused.columns].append(fused)
    is_said = len({len(line.each) for fused in found for line in fused.lines if len(line.each)}) > 1
    titles: Counter[str] = Counter()
    tiles: list[Look] = []
    for panel in panels.values():
        title, names = _names(panel, asked.by_class)
        titles[title] += 1
        title += f" ({titles[title]})" if titles[title] > 1 else ""
        for fused, name in zip(panel, names, strict=True):
            tiles += _tiles(fused, title, name, is_said)
    high = max((tile.value for tile in tiles if tile.n_averaged), default=1.0)
    marks = tuple(sorted({tile.uniform for tile in tiles}))
    where = "line at" if len(marks) == 1 else "lines, from the left, at"
    label = f"attention; {where} {', '.join(f'1/{1 / of:.0f}' for of in marks)}: no preference"
    scale = Scale(0, math.ceil(high / STEP) * STEP, label, marks=marks, is_percent=True)
    n_rows = counted(sum(len(fused.of.rows) for fused in found), "row")
    said = _caption(found, tiles)
    return Frame("heat", tuple(tiles), said, notes, "layer, from 0", scale=scale, counted=n_rows)


def _read(of: Contender, by_class: bool, left: Counter[str]) -> Fused | None:
    """What the rows of a question hold; None: nothing. Rows that hold nothing are counted.

    Args:
        of: the rows.
        by_class: whether each class is a line.
        left: reason -> rows.
    """
    each: list[Array] = []
    labels: dict[str, Array] = {}  # of each fold; trainings answer the same images
    names = [""]
    for row in of.rows:
        try:
            arrays = row.scores()
            each.append(_attention(row, arrays, by_class))
        except RequestError as error:
            left[str(error)] += 1
            continue
        labels[row.row.posed.fold] = arrays["test_labels"]
        names = [str(name) for name in arrays["class_names"]] if by_class else names
    if not each:
        return None
    true = np.concatenate(list(labels.values()))
    is_of = np.equal(true, 1) if true.ndim == 2 else np.equal.outer(true, np.arange(len(names)))
    n = is_of.sum(axis=0).tolist() if by_class else [len(true)]
    stack = np.stack(each).astype(np.float64)  # (S, lines, T)
    has = ~np.isnan(stack.sum(axis=2))
    lines = tuple(Line(name, n[i], stack[has[:, i], i]) for i, name in enumerate(names))
    e = of.first.row.encoded
    parts = e.joined or (e,)
    encoders = [short_label(part.label) for part in parts]
    if len(set(encoders)) < len(parts):
        encoders = [f"{label} {p.size} px" for label, p in zip(encoders, parts, strict=True)]
    return Fused(of, places_in(of.first.row.answered.settings), tuple(encoders), lines)


def _attention(of: StoredRow, arrays: Mapping[str, Array], by_class: bool) -> Array:
    """(1, T) what a row holds in its arrays, or (C, T), nan of classes without an image.

    Raises:
        RequestError: it holds none, or what can't be any.
    """
    name = "attention_of_classes" if by_class else "attention"
    if name not in arrays or "test_labels" not in arrays:
        raise RequestError(LACKING)
    found = np.atleast_2d(arrays[name])
    try:
        places = places_in(of.row.answered.settings)
    except (KeyError, TypeError, ValueError) as error:
        raise RequestError(FOREIGN) from error
    n_files = len(of.row.encoded.joined) or 1
    n_lines = len(arrays["class_names"]) if by_class else 1
    is_whole = found.dtype.kind == "f" and found.shape == (n_lines, len(set(places)))
    if not (is_whole and all(place.file < n_files for place in places)):
        raise RequestError(FOREIGN)
    off = np.abs(found.astype(np.float64).sum(axis=1) - 1)
    if (found < 0).any() or (off > NEAR).any() or (np.isnan(off).any() and not by_class):
        raise RequestError(FOREIGN)
    return found


def _names(panel: Sequence[Fused], by_class: bool) -> tuple[str, list[str]]:
    """The title of a matrix and the name of each of its answers; what they share is in the title."""
    contenders = [fused.of for fused in panel]
    n = f"{len(panel[0].places)} places"
    models = {"+".join(fused.encoders) for fused in panel}
    datasets = {c.dataset for c in contenders}
    if by_class:
        return f"{datasets.pop()}, {models.pop()}, {n}", [""]
    if len(models) == 1:
        return f"{models.pop()}, {n}", names_of(contenders, ("kind", "model"))
    if len(datasets) == 1:
        return f"{datasets.pop()}, {n}", names_of(contenders, ("kind", "data"))
    return n, names_of(contenders, ("kind",))


def _tiles(fused: Fused, title: str, name: str, is_said: bool) -> Iterator[Look]:
    """The lines of an answer: encoder by encoder, of each pool by pool, of each layer by layer.

    Args:
        fused: the answer.
        title: of its matrix.
        name: its own.
        is_said: whether lines say how many trainings or folds they are means of, as they differ in it.
    """
    columns = sorted(
        enumerate(fused.places),
        key=lambda of: (of[1].file, POOLS.index(of[1].pool), of[1].layer, of[1].n_last),
    )
    for line in fused.lines:
        row = f"{name or line.name}, n\N{NO-BREAK SPACE}{line.n}"
        n_averaged = len(line.each)
        if is_said and n_averaged:
            row += f", {counted(n_averaged, 'fold' if fused.of.is_of_folds else 'training')}"
        for t, place in columns:
            values = line.each[:, t]
            mean = float(values.mean()) if n_averaged else math.nan
            sd = float(values.std(ddof=1)) if n_averaged > 1 else math.nan
            encoder = fused.encoders[place.file]
            group = f"{encoder}, {place.pool}" if len(fused.encoders) > 1 else place.pool
            first = place.layer - place.n_last + 1
            short = str(place.layer) if place.n_last == 1 else f"{first}-{place.layer}"
            yield Look(
                *(title, row, f"{group}, layer {short}", mean, _in_tile(mean)),
                *(f"± {100 * sd:.1f}" if n_averaged > 1 else "", False, group, short),
                *(fused.of.dataset, encoder, place.layer, place.pool),
                *(sd, n_averaged, 1 / len(columns), line.n),
            )


def _in_tile(share: float) -> str:
    """In percent, two digits: "4.2", "12"."""
    if math.isnan(share):
        return ""
    return f"{100 * share:.0f}" if share > 0.0995 else f"{100 * share:.1f}"


def _caption(found: Sequence[Fused], tiles: Sequence[Look]) -> str:
    """How the numbers were made, what no preference would be, and what they don't say."""
    uniform = sorted({tile.uniform for tile in tiles})
    each = " or ".join(f"1/{1 / of:.0f} ({100 * of:.1f} %)" for of in uniform)
    said = [HOW, f"A probe without preference gives each {each}."]
    n = sorted({tile.n_averaged for tile in tiles if tile.n_averaged})
    if n and n[-1] > 1:
        what = "folds and trainings" if any(of.of.is_of_folds for of in found) else "trainings"
        of = f"{n[0]}" if len(n) == 1 else f"{n[0]} to {n[-1]}"
        most = max(tile.sd for tile in tiles if tile.n_averaged > 1)
        said.append(
            f"Means of {of} {what}, whose standard deviation is {100 * most:.1f} points at most"
            f"{'; of one nobody knows it' if n[0] == 1 else ''}."
        )
    else:
        said.append("Of one training: another may look elsewhere.")
    if len(uniform) > 1:
        said.append("Fewer places share more: colours are to be compared within a matrix.")
    said.append(ISNT)
    if any(not tile.n_averaged for tile in tiles):
        said.append("Grey: no test sample is of this class.")
    return " ".join(said)
