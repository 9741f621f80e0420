"""What a report tells in full: of each test set one answer, and what files know of its samples.

Of several answers to one test set the one is told that the headline of a study's first table names first:
the better of a named question, val's choice, or the best on test, which is then exploratory. Of external test sets it is the
same encoder, asked the same way, as was reported where it learnt; so that both are of one model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cache.commands.names import counted
from cache.errors import RequestError
from cache.task import BINARY
from probe.report.findings.division import Division, divide
from probe.report.findings.headline import Record, headline
from probe.report.findings.leading import compared_by, leading_parts
from probe.report.rows.answers import TestSet, test_sets
from probe.report.rows.comparable import make_blocks
from probe.report.rows.contenders import Contender
from probe.report.rows.people import People
from probe.report.statistics.claims import Asked
from probe.report.statistics.subgroups import Val
from probe.results import Row

if TYPE_CHECKING:
    from cache.features import Features

ALONE = "the only answer to its test set"
ONE_OF = "exploratory: one of {} looked at on this test set"
SAME = "the encoder and probe that are reported of {}"
SEVERAL = "folds and trainings have thresholds of their own: ask one of them, by --where"
EPISODES = "few-shot episodes have thresholds of their own: ask without --shots"


@dataclass(frozen=True)
class Reported:
    """One answer to one test set."""

    contender: Contender
    why: str  # why this one is told
    rivals: tuple[Contender, ...]  # all that answered this test set, itself too
    beside: tuple[Contender, ...]  # those of them that it was chosen among, asked alike
    test: TestSet | None = None  # its scores; None: see lacking
    val: Val | None = None  # its answers to val, which it wasn't fitted to
    lacking: str = ""  # why scores can't be told
    division: Division | None = None  # of its samples; None: no feature file has them
    positive: int = 1  # of two classes the number of the one that is told

    @property
    def asked(self) -> tuple[str, ...]:
        """What a reader must know of its numbers: of how many episodes or rows they are means."""
        row, n = self.row, len(self.contender.rows)
        said = []
        if row.answered.shots is not None:
            episodes = row.answered.settings["few_shot"].get("episodes")
            said.append(f"mean of {episodes} episodes of {counted(row.answered.shots, 'shot')}")
        if n > 1:
            of = "folds or sites" if self.contender.is_of_folds else "trainings"
            said.append(f"mean ± standard deviation of {n} {of}")
        return tuple(said)

    @property
    def standing(self) -> str:
        """What its numbers may be called, in short: "exploratory: best of 14 looked at..."."""
        return self.why.split("; ")[0]

    @property
    def dataset(self) -> str:
        return self.contender.dataset

    @property
    def name(self) -> str:
        """The data set, and which split or labels were laid over it."""
        posed = self.row.posed
        split = "" if self.is_external else posed.split_words
        words = [self.dataset, split, posed.target_words, self._measured]
        return ", ".join(filter(None, words))

    @property
    def _measured(self) -> str:
        return str(self.contender.field("measured") or "")

    @property
    def folds(self) -> list[Row]:
        """One row of each fold or site; of one test set its first."""
        found: dict[str, Row] = {}
        for of in self.contender.rows:
            found.setdefault(of.row.posed.fold, of.row)
        return list(found.values())

    @property
    def row(self) -> Row:
        """Of several rows the first."""
        return self.contender.first.row

    @property
    def is_external(self) -> bool:
        """Whether it learnt from another data set."""
        return self.row.posed.trained_on is not None

    @property
    def by_folds(self) -> bool:
        """Whether what stands as val are answers out of fold to train and val."""
        return "folds" in self.row.answered.settings

    @property
    def features(self) -> Features | None:
        """A file with its samples, the split and labels that it was asked with; None: there is none."""
        return self.division.features if self.division else None


@dataclass(frozen=True)
class Reports:
    """One report of each test set, and what decides and counts."""

    reported: tuple[Reported, ...]
    record: Record
    people: People
    metric: str
    question: Asked | None = None
    prevalence: float | None = None  # that predictive values are told at, too

    @property
    def internal(self) -> tuple[Reported, ...]:
        return tuple(of for of in self.reported if not of.is_external)

    @property
    def external(self) -> tuple[Reported, ...]:
        return tuple(of for of in self.reported if of.is_external)

    @property
    def datasets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(of.dataset for of in self.reported))


def report_on(
    contenders: Sequence[Contender],
    metric: str,
    record: Record,
    people: People,
    question: Asked | None = None,
    positive: str = "",
) -> list[Reported]:
    """One answer of each test set, internal ones first.

    Args:
        contenders: that read test, or not.
        metric: by which the best is.
        record: of the folder of results.
        people: that knows feature files.
        question: that was named, if any.
        positive: the class that a yes is, by name; "": the second of two.

    Raises:
        RequestError: two classes of no test set have such a name.
    """
    groups: dict[tuple[str, str], list[Contender]] = defaultdict(list)
    for c in contenders:
        row = c.first.row
        if row.measured.test:
            trained = row.posed.trained_on.dataset if row.posed.trained_on else ""
            groups[row.test_set, trained].append(c)
    blocks = [
        (trained, b.contenders) for (_, trained), of in groups.items() for b in make_blocks(of)
    ]
    having = [c for c in contenders if c.value(metric) is not None]
    sets = [of for p in leading_parts(having, metric, record, question) for of in p.sets()]
    found: list[Reported] = []
    for trained, block in sorted(blocks, key=lambda one: bool(one[0])):
        full = [c for c in block if c.first.row.answered.shots is None] or block
        usual = next((of for of in sets if any(c is of[0] for c in block)), full)
        chosen, why = _choose(
            trained, full, usual, found, compared_by(metric, question), record, question
        )
        found.append(_read(Reported(chosen, why, tuple(block), tuple(usual)), people))
    return _turned(found, positive) if positive else found


def _turned(found: Sequence[Reported], positive: str) -> list[Reported]:
    of_two = [of for of in found if of.test and of.test.samples.task == BINARY]
    names = {id(of): [str(n) for n in of.test.samples.class_names] for of in of_two if of.test}
    if not any(positive in of for of in names.values()):
        there = ", ".join(dict.fromkeys(repr(n) for of in names.values() for n in of)) or "none"
        raise RequestError(
            f"no test set has two classes, one of them {positive!r}; there are {there}"
        )
    return [
        replace(of, positive=names[id(of)].index(positive))
        if positive in names.get(id(of), ())
        else of
        for of in found
    ]


def _choose(
    trained: str,
    full: Sequence[Contender],
    usual: Sequence[Contender],
    found: Sequence[Reported],
    metric: str,
    record: Record,
    question: Asked | None,
) -> tuple[Contender, str]:
    for of in found if trained else ():
        same = [c for c in full if of.dataset == trained and _is_same(c, of.contender)]
        if same:
            return same[0], SAME.format(trained)
    if len(usual) == 1:
        n = record.ledger.looked_at(usual[0].first.row.test_set)
        return usual[0], ONE_OF.format(n) if n > 1 else ALONE
    head = headline(usual, (metric,), record, question)
    return (head.a, head.why) if head.a else (usual[0], f"the first; {head.why}")


def _is_same(a: Contender, b: Contender) -> bool:
    names = ("model", "size", "kind", "layer", "pool", "depth", "fitted")
    return all(a.field(name) == b.field(name) for name in names)


def _read(of: Reported, people: People) -> Reported:
    row, several = of.contender.first.row, len(of.contender.rows) > 1
    of = replace(of, division=divide((of.contender, *of.rivals), people))
    if several or row.answered.shots is not None:
        return replace(of, lacking=SEVERAL if row.answered.shots is None else EPISODES)
    try:
        (test,) = test_sets([of.contender], people)
        arrays = of.contender.first.scores()
    except RequestError as error:
        return replace(of, lacking=str(error))
    val = None
    if len(arrays.get("val_labels", ())):
        val = Val(arrays["val_scores"], arrays["val_labels"])
    return replace(of, test=test, val=val)
