"""Curves of a metric by any number of a row; what layer, few-shot and size curves share.

Panels and lines are those of ``report table --across FIELD``: what stands in one panel was asked alike,
about the same samples.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
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
from probe.report.rows.people import count_patients
from probe.report.rows.stored import StoredRow
from probe.results import PATIENTS

TEST, VAL, PUBLISHED = "test", "val", "published"
OUT_OF_FOLD = "train and val, out of fold"
SHORT = {TEST: "", VAL: "val", OUT_OF_FOLD: OUT_OF_FOLD}  # behind a panel's title
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
    of: str  # TEST, VAL, OUT_OF_FOLD, or PUBLISHED by a paper
    value: float  # nan: it is undefined, a gap
    low: float  # ends of its bar; nan: it has none
    high: float
    bar: str  # INTERVAL, DEVIATION or ""
    n: int  # samples, or patients, that it was measured on; 0: unknown
    chosen: bool  # whether val, or folds, chose it
    n_patients: int = 0  # that these are of; 0: each is of another, or nobody knows


@dataclass(frozen=True)
class Curves:
    """What is drawn along what."""

    along: str  # field of the x axis
    label: str  # of the x axis
    panels: tuple[str, ...]  # fields that tell panels apart, beside how and on what was asked
    lines: tuple[str, ...]  # fields that tell lines apart
    least: int = 2  # numbers that make a line
    is_whole: bool = False  # whether all lines of a panel make one curve, so one may be a point
    over: str = "over {units} of test"  # what bars are of
    is_log: bool = False  # whether the x axis is, with a tick at each number
    told_of: Callable[[Contender], str] = lambda _: ""  # what else its panel says of a contender


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
    short: list[Contender] = []
    shape = Shape(by=(*curves.panels, *curves.lines), across=curves.along)
    for is_test in (True, False):
        known = [
            c
            for c in contenders
            if is_number(written(c.field(curves.along)))
            and bool(c.first.row.measured.test) == is_test
        ]
        parts = make_parts(known, shape) if known else []
        titles = titled(parts, partial(title_of, along=curves.along))
        for title, part in zip(titles, parts, strict=True):
            for panel, lines in _panels(title, part, curves).items():
                n_whole = len({c.field(curves.along) for of in lines.values() for c in of})
                for line, of in lines.items():
                    if (n_whole if curves.is_whole else len(of)) < curves.least:
                        short += of
                        continue
                    found = [_mark(c, panel, line, curves, asked, chosen) for c in of]
                    marks += sorted(found, key=lambda mark: mark.x)
    if not marks:
        return None
    metric = metric_of(asked.metric)
    return Frame(
        *("curves", tuple(marks), _caption(marks, curves.over), tuple(_left(marks, short, curves))),
        *(curves.label, metric.column or metric.name, curves.is_log),
    )


def _left(marks: Sequence[Mark], short: Sequence[Contender], curves: Curves) -> Iterator[str]:
    """Who has no curve at all, for too few numbers; one that has another isn't looked for."""
    drawn = {word for mark in marks for word in f"{mark.panel}, {mark.line}".split(", ")}
    names = dict.fromkeys(c.model for c in short if c.model not in drawn)
    if names:
        yield f"Left out: {', '.join(names)}, with fewer than {curves.least} numbers on this axis"


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
        told = filter(None, (curves.told_of(contender), SHORT[_asked_of(contender)]))
        panel = ", ".join([title, *said[:n]])
        found[" ".join([panel, *(f"({words})" for words in told)])][", ".join(said[n:])].append(
            contender
        )
    return found


def _asked_of(contender: Contender) -> str:
    """Whose numbers it has: test's, or those that were had without test."""
    row = contender.first.row
    if row.measured.test:
        return TEST
    return OUT_OF_FOLD if "folds" in row.answered.settings else VAL


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
    chosen: frozenset[str],
) -> Mark:
    value, low, high, bar = math.nan, math.nan, math.nan, ""
    split = _asked_of(contender)
    if split == TEST and (found := contender.value(asked.metric)):
        value, low, high = found.value, found.low, found.high
        if math.isnan(low) and not math.isnan(found.sd):
            low, high, bar = value - found.sd, value + found.sd, DEVIATION
    elif split != TEST:
        value = contender.val(asked.metric)
        if len(contender.rows) == 1 and (of := val_interval(contender.first, asked)):
            low, high = of.low, of.high
    if not bar and not math.isnan(low):
        bar = INTERVAL
    n, n_patients = counts(contender, split, asked)
    return Mark(
        *(panel, line, curves.along, float(written(contender.field(curves.along)))),
        *(asked.metric, split),
        *(value, low, high, bar, n, place_of(contender) in chosen, n_patients),
    )


def counts(contender: Contender, split: str, asked: Asked) -> tuple[int, int]:
    """Samples, or patients, that were measured, and the patients that samples are of.

    Of several folds all are counted, of trainings those of one.
    """
    each = {of.row.posed.fold: of for of in contender.rows}.values()
    found = [_count(of, split, asked) for of in each if split == TEST or of is contender.first]
    return sum(n for n, _ in found), sum(patients for _, patients in found)


def _count(of: StoredRow, split: str, asked: Asked) -> tuple[int, int]:
    row = of.row
    n = row.n.get(TEST, 0) if split == TEST else row.n.get(VAL, 0)
    n += row.n.get("train", 0) if split == OUT_OF_FOLD else 0
    are_patients = row.answered.settings.get("scores_of") == PATIENTS
    if row.encoded.tables.get(PATIENTS) is None and not are_patients:
        return n, 0
    try:
        ids = of.scores()[f"{TEST if split == TEST else VAL}_ids"]
        groups = asked.people.groups_of(row, ids)
    except (RequestError, KeyError):  # nobody knows the patients, or no scores are stored
        return n, 0
    if groups is None:  # they are what is measured
        return len(ids), len(ids)
    n_patients = count_patients(groups)
    return len(ids), n_patients if n_patients < len(ids) else 0


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
    """What bars are, of how many samples and patients."""
    said = []
    for bar in dict.fromkeys(mark.bar for mark in marks if mark.bar):
        of = [mark for mark in marks if mark.bar == bar]
        words = "samples" if not all(mark.n_patients for mark in of) else "patients"
        words = "samples or patients" if 0 < sum(m.n_patients > 0 for m in of) < len(of) else words
        how = "over folds or trainings" if bar == DEVIATION else over.format(units=words)
        said.append(f"Bars: {bar} {how}.")
    alike: dict[tuple[str, bool], list[Mark]] = defaultdict(list)
    for mark in marks:
        alike[mark.of, mark.n == mark.n_patients].append(mark)
    for (split, are_patients), of in alike.items():
        n = f"{_range([mark.n for mark in of])} {'patients' if are_patients else 'samples'}"
        if not are_patients and all(mark.n_patients for mark in of):
            n += f" of {_range([mark.n_patients for mark in of])} patients"
        said.append(f"n of {split}: {n}.")
    return " ".join(said)


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:_}" if low == high else f"{low:_} to {high:_}"
