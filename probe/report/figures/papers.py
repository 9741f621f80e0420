"""Papers' figures in the papers' shape: our numbers, printed ones beside them, and gaps where rows lack."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

from cache.commands.names import counted
from cache.errors import RequestError
from probe.report.figures.cost import Spot
from probe.report.figures.curves import DEVIATION, INTERVAL, PUBLISHED, TEST, Mark
from probe.report.figures.dots import Dot
from probe.report.figures.frame import Asked, Frame
from probe.report.findings.fits import Fits, say_otherwise, say_several
from probe.report.pages.papers import say_gaps
from probe.report.published.figures import CURVES, METRIC, Place, PrintedFigure
from probe.report.published.numbers import Number
from probe.report.rows.contenders import Value
from probe.report.rows.fields import find_field, is_number, written

PRINTED = "Hollow: as printed, of unknown n{sd}."
DEVIATIONS = ", bars ± the printed standard deviation"
MADE = "What is missing is made by:"
OF_RANKS = (
    "1 is the best; ranks of the mean rank over the data sets that are named, or printed. Blue, joined: no "
    "other is ahead in both. Ranks have no intervals: `report table` says which can be told."
)
NONE = "No row of ours fits."
RELATIVE = "What is relative has no bars; `report compare` tests differences."


def make(figure: PrintedFigure, asked: Asked) -> Frame[Mark | Dot] | Frame[Spot]:
    """The marks that rows fill and that are printed; what lacks ends in the commands that make it.

    Raises:
        RequestError: nothing is printed, and no row fits.
    """
    places = list(figure.places())
    fits = Fits(asked.contenders)
    if figure.against:
        return _ranked(figure, places, fits)
    drawn = {place: list(_values(place, fits)) for place in places}
    lines = {(p.panel, p.line) for p, values in drawn.items() if values}
    marks = [
        _mark(figure, place, *each)
        for place, values in drawn.items()
        for each in values or ([LACKING] if (place.panel, place.line) in lines else [])
    ]
    gaps = say_gaps(list(_lacking(places, fits)), MADE)
    if not marks:
        made = " ".join([*gaps[:1], "; ".join(gaps[1:])])
        raise RequestError(f"nothing to draw of {figure.called}: no row fits. {made}")
    ours = {p: found[0] for p in places if len(found := fits.nearest(p.number)) == 1}
    several = [found for p in places if len(found := fits.nearest(p.number)) > 1]
    said = [
        f"{len(ours)} of {counted(len(places), 'mark')} {'is' if len(ours) == 1 else 'are'} ours"
    ]
    said += map(say_several, several)
    said += [say_otherwise(place.number, of) for place, of in ours.items()]
    caption = f"After {figure.paper}, {figure.place}. {_caption(marks, figure)}"
    metrics = {mark.metric for mark in marks}
    metric = metrics.pop() if len(metrics) == 1 else "metric"
    axes = (figure.x, figure.y or metric) if figure.shape == CURVES else (figure.x or metric, "")
    notes = tuple(dict.fromkeys(filter(None, said)))
    return Frame(figure.shape, tuple(marks), caption, (*notes, *gaps), *axes, figure.is_log)


Drawn = tuple[Value, int, bool]  # value, n, whether it is printed
LACKING: Drawn = Value(math.nan), 0, False


def _lacking(places: Sequence[Place], fits: Fits) -> dict[Number, None]:
    """Numbers that no row fits, each once."""
    wanted = dict.fromkeys(n for p in places for n in (p.number, p.base) if n)
    return {number: None for number in wanted if not fits.nearest(number)}


def _ranked(figure: PrintedFigure, places: Sequence[Place], fits: Fits) -> Frame[Spot]:
    """Ranks of models over data sets, as printed and ours, against those of another task."""
    assert figure.against
    along: dict[str, dict[str, float]] = {}
    printed: dict[str, dict[str, float]] = {}
    ours: dict[str, dict[str, float]] = {}
    n_test = 0
    for number in figure.against():
        along.setdefault(number.dataset, {})[number.model] = number.value
    for place in places:
        number = place.number
        if number.printed:
            printed.setdefault(number.dataset, {})[number.model] = number.value
        if found := _ours(number, METRIC, fits):
            ours.setdefault(number.dataset, {})[number.model] = found[0].value
            n_test += found[1]
    models = list(dict.fromkeys(place.line for place in places))
    spots: list[Spot] = []
    x = ranks_over(along, models)
    for told, each in (("as printed", printed), ("ours", ours)):
        whole = {name: values for name, values in each.items() if len(values) == len(models)}
        y = ranks_over(whole, models) if whole else {}
        panel = f"{told}: {', '.join(whole)}"
        for model in y:
            ahead = [m for m in y if x[m] <= x[model] and y[m] <= y[model]]
            is_best = all((x[m], y[m]) == (x[model], y[model]) for m in ahead)
            axes = figure.x, x[model], figure.y, y[model], math.nan, math.nan
            spots.append(Spot(panel, model, *axes, n_test if each is ours else 0, "", is_best))
    caption = f"After {figure.paper}, {figure.place}. {OF_RANKS}"
    gaps = say_gaps(list(_lacking(places, fits)), MADE)
    return Frame("cost", tuple(spots), caption, (figure.unknown, *gaps), figure.x, figure.y)


def ranks_over(
    values: Mapping[str, Mapping[str, float]], models: Sequence[str]
) -> dict[str, float]:
    """1 is the best: ranks of the mean over data sets of ranks there; equal ones share a rank.

    Args:
        values: data set -> model -> number, the larger the better.
        models: that each has.
    """

    def rank(of: Mapping[str, float]) -> dict[str, float]:
        return {
            m: 1
            + sum(of[o] > of[m] for o in models)
            + (sum(of[o] == of[m] for o in models) - 1) / 2
            for m in models
        }

    each = [rank(of) for of in values.values()]
    return rank({m: -statistics.fmean(of[m] for of in each) for m in models})


def _values(place: Place, fits: Fits) -> Iterator[Drawn]:
    """What is drawn there: what is printed, and ours."""
    number, base = place.number, place.base
    if place.what == METRIC and number.printed and number != base and (not base or base.printed):
        sd = math.nan if number.std is None or base else number.std
        yield _relative(Value(number.value, sd=sd), base and Value(base.value)), 0, True
    ours = _ours(number, place.what, fits)
    theirs = base and _ours(base, place.what, fits)
    if ours and not (base and theirs is None):
        yield _relative(ours[0], theirs and theirs[0]), ours[1], False


def _ours(number: Number, what: str, fits: Fits) -> tuple[Value, int] | None:
    """The value and n of the one contender that fits; None: none does, or several."""
    fitting = fits.nearest(number)
    if len(fitting) != 1:
        return None
    [of] = fitting
    n = of.first.row.n.get(TEST, 0)
    if what == METRIC:
        value = of.value(number.our_metric or "")
        return value and (value, n)
    words = [written(find_field(what).of(row)) for row in of.rows]
    if not all(map(is_number, words)):
        return None
    return Value(statistics.fmean(map(float, words))), n


def _relative(value: Value, base: Value | None) -> Value:
    """In % more than the base; without one as it is."""
    if base is None:
        return value
    return Value(100 * (value.value / base.value - 1) if base.value else math.nan)


def _mark(figure: PrintedFigure, place: Place, of: Value, n: int, is_printed: bool) -> Mark | Dot:
    low, high, bar = of.low, of.high, INTERVAL
    if math.isnan(low) and not math.isnan(of.sd):
        low, high, bar = of.value - of.sd, of.value + of.sd, DEVIATION
    bar = "" if math.isnan(low) else bar
    metric = place.number.our_metric or place.number.metric
    if place.what != METRIC:
        metric = place.what.rpartition(".")[2].replace("_", " ")
    zero = 0.0 if place.base else math.nan
    if figure.shape == CURVES:
        split = PUBLISHED if is_printed else TEST
        ends = of.value, low, high, bar
        return Mark(place.panel, place.line, figure.x, place.x, metric, split, *ends, n, False)
    ends = of.value, low, high
    return Dot(place.panel, place.name, place.line, metric, *ends, n, n, "sample", zero, is_printed)


def _caption(marks: Sequence[Mark | Dot], figure: PrintedFigure) -> str:
    printed = [m for m in marks if (m.of == PUBLISHED if isinstance(m, Mark) else m.is_published)]
    n = sorted({mark.n for mark in marks if mark.n})
    is_relative = any(place.base for place in figure.places())
    said = [f"{figure.unknown[0].upper()}{figure.unknown[1:]}."] if figure.unknown else []
    if n and not is_relative:
        said.append("Bars: 95 % interval over test, of several trainings ± standard deviation.")
    if printed:
        has_sd = any(not math.isnan(mark.low) for mark in printed)
        said.append(PRINTED.format(sd=DEVIATIONS if has_sd else ""))
    said += [RELATIVE] if is_relative else []
    of_test = f"n of test: {n[0]}{f' to {n[-1]}' if len(n) > 1 else ''} samples." if n else NONE
    return " ".join([*said, of_test])
