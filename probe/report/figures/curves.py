"""Curves of a metric by any number of a row; what layer, few-shot and size curves share.

Panels and lines are those of ``report table --across FIELD``: what stands in one panel was asked alike,
about the same samples.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module

from cache.commands.names import counted
from cache.errors import RequestError
from probe.metrics.intervals import Interval, estimate
from probe.report.figures.frame import Asked, Frame, nothing
from probe.report.findings.parts import Part, Shape, make_parts, titled
from probe.report.findings.standing import metric_of
from probe.report.rows.contenders import Contender
from probe.report.rows.fields import BY_NAME, is_number, written
from probe.report.rows.stored import StoredRow

TEST, VAL, PUBLISHED = "test", "val", "published"
USUAL = ("encoder-lr", "freeze-until", "cut-after", "k", "n_train")
OWN = {"layer": "layers", "shots": "shots", "size": "sizes"}  # field -> figure
LABELS = {
    "encoder_lr": "learning rate of the encoder",
    "head_lr": "learning rate of the head",
    "probe.freeze_until": "first block that trains, from 0",
    "probe.cut_after": "last block that is left, from 0",
    "k": "neighbours",
    "n_train": "training samples",
}
BARE = ("model", "pool", "kind", "protocol", "fold")  # words that need no name
DECADE = 10.0  # numbers so far apart stand on a logarithmic axis
INTERVAL, DEVIATION = "95 % interval", "± standard deviation"


@dataclass(frozen=True)
class Mark:
    """One number of a curve."""

    panel: str
    line: str
    along: str  # field of the x axis
    x: float  # inf: all there are
    metric: str
    of: str  # TEST, VAL, or PUBLISHED by a paper
    value: float  # nan: it is undefined, a gap
    low: float  # ends of its bar; nan: it has none
    high: float
    bar: str  # INTERVAL, DEVIATION or ""
    n: int  # samples that it was measured on; 0: unknown
    chosen: bool  # whether val, or folds, chose it


@dataclass(frozen=True)
class Curves:
    """What is drawn along what."""

    along: str  # field of the x axis
    label: str  # of the x axis
    panels: tuple[str, ...]  # fields that tell panels apart, beside how and on what was asked
    lines: tuple[str, ...]  # fields that tell lines apart
    least: int = 2  # numbers that make a line
    over: str = "over test"  # what bars are of
    is_log: bool = False  # whether the x axis is, with a tick at each number


def make(asked: Asked) -> Frame[Mark]:
    """Along ``asked.across``. Layers, shots and sizes have figures of their own, which are drawn.

    Raises:
        RequestError: nothing says along what, or no line has two numbers there.
    """
    if not asked.across:
        raise RequestError(f"curves along what? Say --across FIELD, such as {', '.join(USUAL)}")
    name = asked.across.replace("-", "_")
    if name in OWN:
        return import_module(f"probe.report.figures.{OWN[name]}").make(asked)
    if name not in BY_NAME and "." not in name:
        name = f"probe.{name}"  # a setting
    x = [float(word) for c in asked.contenders if is_number(word := written(c.field(name)))]
    is_log = bool(x) and min(x) > 0 and max(x) >= DECADE * min(x)
    label = LABELS.get(name) or name.rpartition(".")[2].replace("_", " ")
    curves = Curves(name, label, panels=(), lines=("model", "size"), is_log=is_log)
    frame = frame_of_curves(asked, curves, asked.contenders)
    if frame is None:
        setting = asked.across.replace("_", "-")
        raise nothing(
            f"rows with two numbers of {asked.across}, else asked alike",
            f"finetune --each {setting}=A,B",
        )
    return frame


def frame_of_curves(
    asked: Asked,
    curves: Curves,
    contenders: Sequence[Contender],
    chosen: frozenset[str] = frozenset(),
) -> Frame[Mark] | None:
    """The numbers of all curves; None where no line has enough.

    Those that read test have test's numbers, the others val's, in panels of their own.

    Args:
        asked: the metric, and who knows patients.
        curves: which.
        contenders: to draw; those without the field of the x axis are left out.
        chosen: ``place_of`` what val chose.
    """
    marks: list[Mark] = []
    n_short = 0
    shape = Shape(by=(*curves.panels, *curves.lines), across=curves.along)
    for split in (TEST, VAL):
        known = [
            c
            for c in contenders
            if is_number(written(c.field(curves.along)))
            and bool(c.first.row.measured.test) == (split == TEST)
        ]
        parts = make_parts(known, shape) if known else []
        titles = titled(parts, partial(title_of, along=curves.along))
        for title, part in zip(titles, parts, strict=True):
            for panel, lines in _panels(title, part, curves).items():
                name = f"{panel} (val)" if split == VAL else panel
                for line, of in lines.items():
                    n_short += len(of) < curves.least
                    if len(of) >= curves.least:
                        found = [_mark(c, name, line, curves, asked, split, chosen) for c in of]
                        marks += sorted(found, key=lambda mark: mark.x)
    notes = []
    if n_short:
        notes.append(f"left out: {counted(n_short, 'line')} of fewer than {curves.least} points")
    if not marks:
        return None
    metric = metric_of(asked.metric)
    return Frame(
        *("curves", tuple(marks), _caption(marks, curves.over), tuple(notes)),
        *(curves.label, metric.column or metric.name, curves.is_log),
    )


def title_of(part: Part, along: str) -> str:
    """What a part's contenders share, but for the field of the x axis."""
    words = [] if along == "data" else [part.contenders[0].dataset]
    for name in ("kind", "protocol", "k", "shots", "fold", "measured"):
        shared = {written(c.field(name)) for c in part.contenders}
        is_asked = name != "k" or "k" in part.contenders[0].first.row.answered.settings
        if name != along and is_asked and len(shared) == 1 and (word := shared.pop()):
            words.append(said_of(name, word))
    places = {c.field("place") for c in part.contenders}
    return ", ".join([*words, *(["layer chosen"] if places == {"chosen"} else [])])


def _panels(title: str, part: Part, curves: Curves) -> dict[str, dict[str, list[Contender]]]:
    """Panel -> line -> its contenders."""
    found: dict[str, dict[str, list[Contender]]] = defaultdict(lambda: defaultdict(list))
    n = len(curves.panels)
    for (words, _), contender in part.cells.items():
        said = [said_of(name, word) for name, word in zip(part.names, words, strict=True)]
        found[", ".join([title, *said[:n]])][", ".join(said[n:])].append(contender)
    return found


def said_of(name: str, word: str) -> str:
    """A field of a line or a panel, in words."""
    if name == "size":
        return f"{word}\N{NO-BREAK SPACE}px"
    if name == "measured":
        return f"{word} measured"
    if name == "shots":
        return counted(int(word), "shot")
    return word if name in BARE else f"{name} {word}"


def _mark(
    contender: Contender,
    panel: str,
    line: str,
    curves: Curves,
    asked: Asked,
    split: str,
    chosen: frozenset[str],
) -> Mark:
    value, low, high, bar = math.nan, math.nan, math.nan, ""
    if split == TEST and (found := contender.value(asked.metric)):
        value, low, high = found.value, found.low, found.high
        if math.isnan(low) and not math.isnan(found.sd):
            low, high, bar = value - found.sd, value + found.sd, DEVIATION
    elif split == VAL:
        value = contender.val(asked.metric)
        if len(contender.rows) == 1 and (of := val_interval(contender.first, asked)):
            low, high = of.low, of.high
    if not bar and not math.isnan(low):
        bar = INTERVAL
    return Mark(
        *(panel, line, curves.along, float(written(contender.field(curves.along)))),
        *(asked.metric, split),
        *(value, low, high, bar, _n(contender, split), place_of(contender) in chosen),
    )


def _n(contender: Contender, split: str) -> int:
    """Samples that were measured; of several folds all, of trainings those of one."""
    if split == TEST:
        return sum({of.row.posed.fold: of.row.n.get(TEST, 0) for of in contender.rows}.values())
    row = contender.first.row  # folds answer train, too
    return row.n.get(VAL, 0) + ("folds" in row.answered.settings) * row.n.get("train", 0)


def place_of(contender: Contender) -> str:
    """Which layer and pool of which encoder it is, asked by which kind, of which samples."""
    names = ("data", "target", "split", "model", "size", "kind", "layer", "pool", "depth")
    k = contender.first.row.answered.settings.get("k")
    return repr([*(written(contender.field(name)) for name in names), k])


def val_interval(of: StoredRow, asked: Asked) -> Interval | None:
    """That of a metric on val, which rows don't hold: by the stored scores, as test's is made.

    Returns:
        None: there is none.

    Raises:
        RequestError: the scores are missing or damaged.
    """
    arrays, row = of.scores(), of.row
    if "val_scores" not in arrays or asked.metric not in row.measured.val:
        return None
    try:
        groups = asked.people.groups_of(row, arrays["val_ids"])
        found = estimate(
            arrays["val_scores"],
            arrays["val_labels"],
            row.encoded.task,
            score_type=row.answered.score_type,
            groups=groups,
        )
    except RequestError:  # nobody knows the patients, or val lacks a class
        return None
    return found.metrics.get(asked.metric)


def _caption(marks: Sequence[Mark], over: str) -> str:
    """What bars are, of how many samples."""
    said = []
    for bar in dict.fromkeys(mark.bar for mark in marks if mark.bar):
        said.append(f"Bars: {bar} {'over folds or trainings' if bar == DEVIATION else over}.")
    for split in dict.fromkeys(mark.of for mark in marks):
        n = sorted({mark.n for mark in marks if mark.of == split})
        of = f"{n[0]}" if len(n) == 1 else f"{n[0]} to {n[-1]}"
        said.append(f"n of {split}: {of} samples.")
    return " ".join(said)
