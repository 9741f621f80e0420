"""Whether the order of encoders depends on how they are asked: ranks under each probe, and tau.

Ranks are of one data set and metric. Whether two ranks of an encoder differ by more than noise is
asked of simultaneous sets of ranks (``statistics.families``), one family a probe, at level/probes:
sets without a common rank belong to ranks that differ.
"""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from cache.errors import RequestError
from cache.format.key import canonical_json
from probe.report.findings.fits import say_several
from probe.report.findings.leading import BEST, LAST, place_word, places_among
from probe.report.findings.standing import Untested, metric_of, stand
from probe.report.formats.cells import (
    P_VALUE,
    PLAIN,
    SHARE,
    SIGNED,
    UNIT,
    Cell,
    Column,
    Page,
    Table,
)
from probe.report.rows.answers import test_sets
from probe.report.rows.comparable import NOT_TO_COMPARE, describe_conflicts, make_blocks
from probe.report.rows.contenders import Contender
from probe.report.rows.fields import find_field, written
from probe.report.rows.people import People
from probe.report.rows.typed import OF_QUESTION, Line, join, line_of
from probe.report.statistics.across import kendall
from probe.report.statistics.families import Family, Ranks
from probe.report.statistics.orders import describe_taus, ranks_of, tau_p

KINDS = ("knn", "ridge", "linear")
USUAL = ("kind", "place", "k")  # what tells probes apart
# What must be the same beside it, for ranks to be of one question.
SAME = (
    *("data", "target", "split", "trained", "prepared", "measured", "shots", "episodes", "scale"),
    *("aggregate", "pooling", "protocol", "mode"),
)
WHO = ("--model", "--data", "--size")
TESTED = (
    "[low high] behind a rank: its simultaneous set. Sets that have no rank in common are of ranks "
    "that differ, at level {level:g} over all {n} probes together; others may differ by noise alone"
)
ONE_LAYER = "the best of one: its feature file holds no other layer and pool"
NOTHING = "nothing was asked to be"
MISSING = "Missing answers are made by:"  # below it a command a line
SQUARE = "tau below the diagonal, its p above"
TAU = (
    "tau: Kendall's tau-b, 1 the same order, -1 turned around. p: the share of all orders that agree "
    "or disagree as much; it tells agreement from none, not one order from another"
)

Asked = tuple[str, ...]  # the words of a probe, as ``word_of`` has them


@dataclass
class Part:
    """Contenders of one data set that were asked about the same samples, by probe and encoder."""

    contenders: list[Contender]
    differs: str = ""  # from the data set's first part
    cells: dict[tuple[Asked, str], list[Contender]] = field(default_factory=dict)

    @property
    def probes(self) -> list[Asked]:
        return sorted(dict.fromkeys(asked for asked, _ in self.cells), key=_order)

    @property
    def models(self) -> list[str]:
        return list(dict.fromkeys(model for _, model in self.cells))

    def one(self, asked: Asked, model: str) -> Contender | None:
        """The only contender of a cell."""
        found = self.cells.get((asked, model), [])
        return found[0] if len(found) == 1 else None

    def ranked(self, asked: Asked) -> list[str]:
        """Encoders with one answer to a probe."""
        return [model for model in self.models if self.one(asked, model)]


def page_of_sensitivity(
    contenders: Sequence[Contender],
    metrics: Sequence[str],
    people: People | None,
    by: Sequence[str] = USUAL,
    level: float = 0.05,
) -> Page:
    """Tables of ranks and of tau, for each data set and metric.

    Args:
        contenders: to rank.
        metrics: by their names in rows.
        people: that knows patients, for tests; None: nothing is tested.
        by: fields that tell probes apart.
        level: the chance that any two sets of ranks without a common rank are wrong.

    Raises:
        RequestError: there are no two probes of two encoders each.
    """
    parts = make_parts(contenders, by)
    tables: list[Table] = []
    lead, alone = [], []
    for part in parts:
        for name in metrics:
            of_metric = _having(part, name)
            probes = [asked for asked in of_metric.probes if len(of_metric.ranked(asked)) > 1]
            if len(probes) < 2:
                alone.append(f"{_title(part)}, {name}")
                continue
            ranking = Ranking(of_metric, name, tuple(probes), people, level)
            tables += ranking.tables()
            lead.append(ranking.headline())
    if not tables:
        raise RequestError(
            "ranks need two probes that two encoders each have answered on one data set; "
            "`probe --kind linear --layer auto` and `--kind knn --layer auto` make four"
        )
    notes = [TAU]
    if alone:
        notes.append(f"Left out, for fewer than two probes rank two encoders: {'; '.join(alone)}")
    if any("other " in part.differs for part in parts):
        notes.append(NOT_TO_COMPARE)
    missing = say_missing([_reading(part, metrics) for part in parts], by)
    notes += [MISSING, *missing] if missing else []
    return Page(tuple(tables), lead=tuple(lead), notes=tuple(notes))


def make_parts(contenders: Sequence[Contender], by: Sequence[str]) -> list[Part]:
    """Contenders that may be ranked together."""
    alike: dict[str, list[Contender]] = defaultdict(list)
    for contender in contenders:
        same = [written(contender.field(name)) for name in SAME if name not in by]
        condition = contender.condition()  # in which fields don't say these
        same += [written(condition[name]) for name in ("trainings", "folds")]
        alike[canonical_json(same)].append(contender)
    parts = []
    for members in alike.values():
        blocks = make_blocks(members)
        for block in blocks:
            part = Part(block.contenders, describe_conflicts(block, blocks[0]))
            for contender in block.contenders:
                asked = tuple(word_of(contender, name) for name in by)
                part.cells.setdefault((asked, contender.model), []).append(contender)
            parts.append(part)
    titles: Counter[str] = Counter()
    for part in parts:  # which may differ in folds or trainings alone
        titles[title := _title(part)] += 1
        if titles[title] > 1:
            part.differs = "; ".join(filter(None, (part.differs, f"no. {titles[title]}")))
    return parts


def word_of(contender: Contender, name: str) -> str:
    """A field as it stands in a probe's name; "" where it says nothing.

    The place is "last layer", "best layer" (chosen among several without test) or its number. Of k
    only one that was asked for: what was chosen is the encoder's.
    """
    settings = contender.first.row.answered.settings
    if name == "k":
        return f"k {settings['k']}" if "k" in settings else ""
    if name == "place":
        return place_word(contender)
    word = written(contender.field(name))
    return word if name in ("kind", "model", "data") or not word else f"{name} {word}"


def _order(asked: Asked) -> list[tuple[int, float, str]]:
    """kNN first, the last layer before the best, numbers by size."""
    places = {word: place for place, word in enumerate((*KINDS, LAST, BEST))}
    found = []
    for word in asked:
        tail = word.rpartition(" ")[2]
        size = float(tail) if tail.isdecimal() else 0.0
        found.append((places.get(word, len(places)), size, word))
    return found


@dataclass(frozen=True)
class Pair:
    """Two probes' orders of the n encoders that both have answered."""

    one: Asked
    other: Asked
    n: int
    tau: float = math.nan
    p: float = math.nan
    largest: float = math.nan  # change of a rank
    who: tuple[str, ...] = ()  # changes so much
    moved: tuple[str, ...] | None = None  # changes by more than noise; None: not tested


@dataclass(frozen=True)
class Ranking:
    """Ranks of the encoders of a part by one metric."""

    part: Part
    metric_name: str
    probes: tuple[Asked, ...]
    people: People | None
    level: float
    _families: dict[tuple[Asked, tuple[str, ...]], Family | Untested] = field(default_factory=dict)

    def tables(self) -> list[Table]:
        """Values and ranks of each encoder, and tau of each two probes."""
        return [self._ranks(), self._taus()]

    def _ranks(self) -> Table:
        metric = metric_of(self.metric_name)
        form = UNIT if metric.has_unit else SHARE
        columns = [Column("model")]
        cells: dict[str, list[Cell]] = {model: [Cell(model)] for model in self.part.models}
        below: list[str] = []
        for asked in self.probes:
            over = _name(asked)
            columns += [
                Column(metric.column or metric.name, over, True),
                Column("rank", over, True),
            ]
            models = self.part.ranked(asked)
            ranks = dict(zip(models, ranks_of(self._scores(asked, models)), strict=True))
            sets = self._sets(asked, models)
            if isinstance(sets, Untested):
                below.append(f"{over}: not tested: {sets.why}")
            for model in self.part.models:
                contender = self.part.one(asked, model)
                if contender is None:
                    several = self.part.cells.get((asked, model), [])
                    crowded = Cell(f"{len(several)} rows", notes=(say_several(several),))
                    cells[model] += [crowded if several else Cell(), Cell()]
                    continue
                found = contender.value(self.metric_name)
                assert found is not None
                low, high = (None, None) if isinstance(sets, Untested) else sets[model]
                notes = (ONE_LAYER,) if len(places_among(contender)) == 1 else ()
                cells[model] += [
                    Cell(value=found.value, form=form, notes=notes),
                    Cell(value=ranks[model], low=low, high=high, form=PLAIN),
                ]
        if self.people and len(below) < len(self.probes):
            below.insert(0, TESTED.format(level=self.level, n=len(self.probes)))
        rows = tuple(tuple(row) for row in cells.values())
        return Table(tuple(columns), rows, self._title("ranks"), below=_once(below))

    def _taus(self) -> Table:
        """A square: tau of each two probes below its diagonal, and what it is worth above."""
        numbers = [str(n) for n in range(1, len(self.probes) + 1)]
        rows = [
            [Cell(f"{n} {_name(asked)}")] for n, asked in zip(numbers, self.probes, strict=True)
        ]
        of = {(pair.one, pair.other): pair for pair in self.pairs}
        for row, one in zip(rows, self.probes, strict=True):
            for other in self.probes:
                if found := of.get((other, one)):
                    row.append(Cell(value=found.tau, form=SIGNED))
                elif found := of.get((one, other)):
                    row.append(Cell(value=found.p, form=P_VALUE))
                else:
                    row.append(Cell())
        columns = (Column("probe"), *(Column(n, is_right=True) for n in numbers))
        below = (*self._changes(), *(describe_taus(pair.n) for pair in self.pairs if pair.n > 1))
        return Table(
            columns, tuple(map(tuple, rows)), self._title("order"), below=_once((SQUARE, *below))
        )

    def _changes(self) -> Iterator[str]:
        """The largest change of a rank, and every change that is more than noise."""
        known = [pair for pair in self.pairs if pair.largest > 0]
        if known:
            pair = max(known, key=lambda pair: pair.largest)
            between = f"from {_name(pair.one)} to {_name(pair.other)}"
            yield f"largest change of a rank: {pair.largest:g}, {', '.join(pair.who)}, {between}"
        if known and self.pairs[0].moved is None:
            yield "changes of rank: not tested against noise"
        for pair in self.pairs:
            if pair.moved:
                between = f"from {_name(pair.one)} to {_name(pair.other)}"
                yield f"more than noise: {', '.join(pair.moved)}, {between}"

    @cached_property
    def pairs(self) -> list["Pair"]:
        """Each two probes, by the encoders that both have."""
        return [self._pair(*two) for two in itertools.combinations(self.probes, 2)]

    def _pair(self, one: Asked, other: Asked) -> "Pair":
        models = [model for model in self.part.ranked(one) if self.part.one(other, model)]
        if len(models) < 2:
            return Pair(one, other, len(models))
        a, b = (ranks_of(self._scores(asked, models)) for asked in (one, other))
        changes = np.abs(b - a)
        largest = float(changes.max())
        who = [m for m, by in zip(models, changes, strict=True) if by == largest and largest]
        moved = self._moved(one, other, models)
        return Pair(one, other, len(models), kendall(a, b), tau_p(a, b), largest, tuple(who), moved)

    def _moved(self, one: Asked, other: Asked, models: Sequence[str]) -> tuple[str, ...] | None:
        """Encoders whose two sets of ranks have no rank in common; None where nothing was tested."""
        a, b = self._sets(one, models), self._sets(other, models)
        if isinstance(a, Untested) or isinstance(b, Untested):
            return None
        return tuple(m for m in models if a[m].high < b[m].low or b[m].high < a[m].low)

    def headline(self) -> str:
        """How far all orders agree, and whose rank depends on the probe beyond noise."""
        taus = [pair.tau for pair in self.pairs if not math.isnan(pair.tau)]
        said = f"{_title(self.part)}, {self.metric_name}: "
        said += f"tau {min(taus):+.2f} to {max(taus):+.2f}" if taus else "no tau"
        known = [pair.moved for pair in self.pairs if pair.moved is not None]
        moved = dict.fromkeys(model for of in known for model in of)
        if moved:
            return f"{said}; the probe changes the rank of {', '.join(moved)} by more than noise"
        return f"{said}; no rank is shown to change by more than noise" if known else said

    def _scores(self, asked: Asked, models: Sequence[str]) -> np.ndarray:
        """(K,) of which larger is better."""
        sign = -1.0 if metric_of(self.metric_name).is_loss else 1.0
        found = [self.part.one(asked, model) for model in models]
        values = [c.value(self.metric_name) for c in found if c]
        return sign * np.array([v.value for v in values if v])

    def _sets(self, asked: Asked, models: Sequence[str]) -> Mapping[str, Ranks] | Untested:
        """Simultaneous sets of ranks among these models."""
        if self.people is None:
            return Untested(NOTHING)
        key = asked, tuple(models)
        if key not in self._families:
            found = [c for model in models if (c := self.part.one(asked, model))]
            try:
                sets = test_sets(found, self.people)
                self._families[key] = stand(sets, self.metric_name, self.level / len(self.probes))
            except RequestError as error:
                self._families[key] = Untested(str(error))
        family = self._families[key]
        if isinstance(family, Untested):
            return family
        return dict(zip(models, family.ranks, strict=True))

    def _title(self, what: str) -> str:
        return f"{_title(self.part)}: {what} by {self.metric_name}"


def _having(part: Part, metric_name: str) -> Part:
    """The contenders that have a metric, and it is a number."""

    def has(contender: Contender) -> bool:
        found = contender.value(metric_name)
        return found is not None and not math.isnan(found.value)

    cells = {key: [c for c in members if has(c)] for key, members in part.cells.items()}
    return Part(part.contenders, part.differs, {key: of for key, of in cells.items() if of})


def _reading(part: Part, metric_names: Sequence[str]) -> Part:
    """The contenders that have read test: others leave no gap."""
    there = [c for c in part.contenders if any(c.value(name) for name in metric_names)]
    cells = {key: [c for c in of if c in there] for key, of in part.cells.items()}
    return Part(there, part.differs, {key: of for key, of in cells.items() if of})


def _title(part: Part) -> str:
    said = [written(part.contenders[0].field("data"))]
    for name in SAME[1:]:
        words = {written(contender.field(name)) for contender in part.contenders}
        if len(words) == 1 and (word := words.pop()):
            said.append(f"{find_field(name).title} {word}")
    return ", ".join([*said, *([part.differs] if part.differs else [])])


def _name(asked: Asked) -> str:
    return ", ".join(word for word in asked if word)


def _once(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in words if word))


def say_missing(parts: Sequence[Part], by: Sequence[str]) -> list[str]:
    """The commands that fill the gaps: probes that other encoders of a data set have answered.

    Of the usual probes (kNN, ridge and logistic regression, of the last layer and the best) those
    that nobody has answered, too. Each has the labels, split and whatever else says the question
    of the answers that it stands beside.
    """
    return [str(line) for line in join(line for part in parts for line in _missing_of(part, by))]


def _missing_of(part: Part, by: Sequence[str]) -> Iterator[Line]:
    if not part.contenders:
        return
    probes, first = list(part.probes), part.contenders[0].first.row
    if tuple(by) == USUAL and not first.answered.protocol and first.answered.shots is None:
        there = {asked[:2] for asked in probes}
        usual = itertools.product(KINDS, (LAST, BEST))
        probes += [(*asked, "") for asked in usual if asked not in there]
    missing = []
    for asked in probes:
        words = dict(zip(by, asked, strict=True))
        like = next((of[0] for (word, _), of in part.cells.items() if word == asked), None)
        for model in part.models:
            if (asked, model) not in part.cells:
                one = next(c for c in part.contenders if c.model == model)
                missing += [line] if (line := _line(like, words, one)) else []
    all_flags = [line.flags for line in missing]
    for line in missing:  # --layer auto answers of the last layer, too
        if "--layer" in line.flags or {**line.flags, "--layer": ("auto",)} not in all_flags:
            yield line


def _line(like: Contender | None, words: Mapping[str, str], one: Contender) -> Line | None:
    """The line by which an encoder answers as another has; None where it can't.

    Args:
        like: who has answered; None: nobody, and it is a usual probe.
        words: the probe.
        one: an answer of the encoder, to the same question.
    """
    mine = line_of(one.first)
    if like:
        line = line_of(like.first)
        question = line.of(*OF_QUESTION)
        line = line.without("--layer", "--pool", *WHO, *OF_QUESTION)
    else:
        line = Line("probe", {"--kind": (words["kind"],)})
        line = line.asking({"--k": ("auto",)} if words["kind"] == "knn" else {})
        question = mine.of(*OF_QUESTION)
    place, layers = words.get("place") or words.get("layer") or LAST, _layers(one)
    if place == BEST:
        line = line.asking({"--layer": ("auto",)})
    elif place != LAST:
        layer = place.removeprefix("layer ")
        if layer not in (layers[:-1] if "place" in words else layers):
            return None
        line = line.asking({"--layer": (layer,)})
    if words.get("pool"):
        line = line.asking({"--pool": (words["pool"].removeprefix("pool "),)})
    return line.asking({**question, **mine.of(*WHO)})


def _layers(contender: Contender) -> list[str]:
    """The layers of an encoder's file, by number; the last one, which every file has, at the end."""
    layers = contender.first.row.encoded.key.get("layers", {})
    return list(map(str, layers.get("stored") or range(layers.get("of") or 0)))
