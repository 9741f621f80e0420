"""Each two encoders over all data sets: the multi-comparison matrix of Ismail-Fawaz et al. 2023.

Sets are won and lost by the tests of all pairs on each set (``findings.pairwise``), not by which number
is larger; and nobody is joined into groups of equals.
"""

import math
from dataclasses import dataclass

from cache.commands.names import counted
from probe.arrays import Doubles
from probe.report.figures.curves import said_of, title_of
from probe.report.figures.frame import Asked, Frame, nothing
from probe.report.figures.heat import Scale, Tile
from probe.report.findings.contest import Contest, Line, make_contest
from probe.report.findings.pairwise import Duel, pairwise
from probe.report.findings.parts import Part, Shape, make_parts, titled
from probe.report.findings.standing import Untested, metric_of
from probe.report.rows.fields import no_metric

CAPTION = (
    "Tile: how much {better} the row's {metric} is than the column's, the mean over data sets{shared}. Below it, "
    "where there is room, sets where the row is separated above the column / can't be told / separated below, by tests of "
    "all pairs on each set ({how}). Behind a name its mean where it has all sets. {corner}"
)
CORNER = "Corner: p below {level:g} by the signed-rank test over sets, Holm over all pairs."
NO_CORNER = "Over the sets no pair has a signed-rank p below {level:g} by Holm{why}."
LEAST = 0.05  # of a metric: smaller differences are pale
SHAPE = Shape()


@dataclass(frozen=True)
class Pair(Tile):
    """One encoder beside another, both ways round; the value is how much better the row is."""

    metric: str
    n_sets: int
    n_units: int  # sets that share patients are one
    above: int  # sets where the row is separated above the column
    open: int
    below: int
    p: float  # exact signed-rank over units; nan: one set
    adjusted: float  # by Holm over all pairs of the panel


def make(asked: Asked) -> Frame[Pair]:
    """A matrix for each table of ``report table --metric`` that has two encoders.

    Raises:
        RequestError: none has.
    """
    metric = metric_of(asked.metric)
    having = [c for c in asked.contenders if c.value(asked.metric) is not None]
    if not having:
        raise no_metric(asked.metric, asked.rows)
    parts = [part for part in make_parts(having, SHAPE) if len(part.lines) > 1]
    contests = [make_contest(part, metric, SHAPE, asked.people) for part in parts]
    titles = titled(parts, _title)
    pairs, notes = [], []
    for title, contest in zip(titles, contests, strict=True):
        found = list(_pairs(title, contest))
        if all(pair.n_sets == 0 for pair in found):
            notes.append(f"Left out: {title}: no two encoders share a data set")
            continue
        pairs += found
        notes += [
            f"{title}, {column}: not tested: {family.why}"
            for column, family in contest.families.items()
            if isinstance(family, Untested)
        ]
    if not pairs:
        raise nothing("two encoders that were asked alike", "probe --kind linear --model A,B")
    most = max(LEAST, *(abs(pair.value) for pair in pairs if not math.isnan(pair.value)))
    label = f"difference in {asked.metric}"
    scale = Scale(-most, most, label, is_diverging=True)
    return Frame("heat", tuple(pairs), _caption(contests, pairs), tuple(notes), scale=scale)


def _pairs(title: str, contest: Contest) -> list[Pair]:
    duels = {(duel.a, duel.b): duel for duel in pairwise(contest)}
    duels |= {(b, a): duel.turned() for (a, b), duel in duels.items()}
    order = _best_first(contest)
    names = {line: _name(contest, line) for line in order}
    found = []
    for a in order:
        for b in order:
            words = title, names[a], names[b].partition("\n")[0]
            found.append(_pair(words, contest, duels[a, b]) if a != b else _empty(words, contest))
    return found


def _pair(words: tuple[str, str, str], contest: Contest, duel: Duel) -> Pair:
    if not duel.sets:
        return _empty(words, contest)
    text = f"{round(duel.gain, 3) + 0.0:+.3f}".replace("0.", ".", 1)
    more = f"{duel.won}/{duel.open}/{duel.lost}"
    is_told = duel.adjusted < SHAPE.level
    counts = len(duel.sets), duel.n_units, duel.won, duel.open, duel.lost
    metric = contest.metric.name
    return Pair(*words, duel.gain, text, more, is_told, metric, *counts, duel.p, duel.adjusted)


def _empty(words: tuple[str, str, str], contest: Contest) -> Pair:
    """Of an encoder and itself, or two that share no set."""
    counts = 0, 0, 0, 0, 0, math.nan, math.nan
    return Pair(*words, math.nan, "", "", False, contest.metric.name, *counts)


def _best_first(contest: Contest) -> list[Line]:
    """By the average; those that lack a set behind."""
    sign = 1.0 if contest.metric.is_loss else -1.0
    average = dict(zip(contest.lines, _means(contest), strict=True))
    return sorted(contest.lines, key=lambda line: (math.isnan(average[line]), sign * average[line]))


def _means(contest: Contest) -> Doubles:
    """(K,) over the units; nan where a line lacks a set. One set has no units."""
    return contest.average if contest.units else contest.values.mean(axis=0)


def _name(contest: Contest, line: Line) -> str:
    average = _means(contest)[contest.lines.index(line)]
    words = map(said_of, contest.part.names, line)
    name = ", ".join(filter(None, words))
    return name if math.isnan(average) else f"{name}\n{average:.3f}"


def _title(part: Part) -> str:
    sets = list(dict.fromkeys(c.dataset for c in part.contenders))
    named = sets[0] if len(sets) == 1 else counted(len(sets), "data set")
    return f"{named}, {title_of(part, SHAPE.across)}"


def _caption(contests: list[Contest], pairs: list[Pair]) -> str:
    metric = contests[0].metric
    tested = [f for c in contests for f in c.families.values() if not isinstance(f, Untested)]
    how = "; ".join(dict.fromkeys(family.describe() for family in tested)) or "none was made"
    is_shared = any(len(unit) > 1 for c in contests for unit in c.units)
    shared = ", those that share patients counted once" if is_shared else ""
    whys = list(dict.fromkeys(c.why_not for c in contests if c.why_not))
    is_told = any(pair.is_marked for pair in pairs)
    corner = (CORNER if is_told else NO_CORNER).format(
        level=SHAPE.level, why=f": {whys[0]}" if whys else ""
    )
    better = "lower" if metric.is_loss else "higher"
    return CAPTION.format(better=better, metric=metric.name, shared=shared, how=how, corner=corner)
