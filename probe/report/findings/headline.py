"""Which comparison is the headline: one that was named, or that val chose; any other is exploratory.

The best of 12 equal encoders looks .027 better than it is in the accuracy of 156 images, and the best
of 864 by .054: whoever looks at a test set K times and reports the best must say K (Andrews et al.
2024).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cache.commands.names import counted
from cache.errors import RequestError
from probe.report.findings.comparisons import Asking, compare
from probe.report.findings.standing import metric_of
from probe.report.formats.cells import P_VALUE, number
from probe.report.rows.contenders import Contender
from probe.report.rows.ledger import Ledger
from probe.report.rows.people import People
from probe.report.rows.sides import Pair, pair_up, read_side
from probe.report.statistics.claims import Asked, read_claim

MOST = 4  # headlines above a page
NAMED, BY_VAL, EXPLORATORY = "named", "chosen on val", "exploratory"


@dataclass(frozen=True)
class Headline:
    """A comparison on one test set, and what it may be called."""

    standing: str  # NAMED, BY_VAL or EXPLORATORY
    metric: str
    why: str  # in words
    a: Contender | None = None  # None: there are no two to compare
    b: Contender | None = None
    is_best: bool = False  # of EXPLORATORY: whether the best on test is one of the two

    def state(self, people: People, level: float = 0.95) -> str:
        """One line: what is compared, with its interval and p, and what it may be called.

        Raises:
            RequestError: as ``comparisons.compare``.
        """
        if self.a is None or self.b is None:
            return self.why
        found = compare(Pair(self.a, self.b), people, Asking((self.metric,), level))
        difference = found.whole.differences[self.metric]
        ends = ""
        if not math.isnan(difference.low):
            ends = f" [{difference.low:+.3f} {difference.high:+.3f}]"
        return (
            f"{self.a.dataset}: {self.a.model} - {self.b.model}: {self.metric} "
            f"{difference.value:+.3f}{ends}, p {number(difference.p, P_VALUE)}; {self.why}"
        )


def headline(
    contenders: Sequence[Contender],
    metric: str,
    ledger: Ledger,
    *,
    question: Asked | None = None,
    pair: tuple[Contender, Contender] | None = None,
) -> Headline:
    """The headline of one test set.

    Args:
        contenders: all that read it, of one data set and one block.
        metric: that is compared, where the question names none.
        ledger: of the folder of results.
        question: that was named; None: whichever the ledger holds that fits.
        pair: that is compared anyhow; None: whichever is the headline.
    """
    first = contenders[0]
    n_looked = ledger.looked_at(first.first.row.test_set)
    looked = f"{n_looked} looked at on this test set"
    unfound = ""
    for named in [question] if question else _recorded(ledger):
        if named.datasets and first.dataset not in named.datasets:
            continue
        asked = _asked_for(named, contenders) if pair is None else pair
        if len(asked) == 2 and (pair is None or _is_of(named, pair)):
            why = _when(named, first.dataset, ledger, n_looked)
            return Headline(NAMED, named.metric or metric, why, *asked)
        if pair is None and question:
            which = "several pairs" if asked else "no pair"
            unfound = f'; "{question}" names {which} of these rows'
    by_val = best_on_val(contenders, metric)
    if by_val and (pair is None or {id(c) for c in pair} == {id(c) for c in by_val}):
        a, b = pair or (by_val[0], by_val[1])
        values = " and ".join(f"{c.val(metric):.3f}" for c in by_val[:2])
        n = len({c.model for c in contenders})
        why = f"{BY_VAL}: the two best of {n} encoders there ({metric} {values}); {looked}{unfound}"
        return Headline(BY_VAL, metric, why, a, b)
    best = _ranked(contenders, metric)
    a, b = pair or (best[0], best[1] if len(best) > 1 else None)
    is_best = bool(best) and any(c is best[0] for c in (a, b))
    which = "best" if is_best else "one"
    why = f"{EXPLORATORY}: {which} of {looked}{unfound}"
    return Headline(EXPLORATORY, metric, why, a, b, is_best)


def leads(
    sets: Sequence[Sequence[Contender]],
    metric: str,
    ledger: Ledger,
    question: Asked | None,
    people: People,
) -> tuple[str, ...]:
    """What stands above tables: the headline of each test set; of many, what was named alone.

    Args:
        sets: the contenders of each table and data set.
        metric: of the tables.
        ledger: of the folder of results.
        question: that was named, if any.
        people: that knows patients.
    """
    heads = [headline(of, metric, ledger, question=question) for of in sets if len(of) > 1]
    named = [head for head in heads if head.standing == NAMED]
    shown = named or heads
    if len(shown) <= MOST:
        return tuple(head.state(people) for head in shown)
    most = max(ledger.looked_at(of[0].first.row.test_set) for of in sets)
    return (
        f"{EXPLORATORY}: up to {most} looked at on a test set; `--question` says which comparison was "
        "named in advance, and one data set at a time is compared by `report compare`",
    )


def best_on_val(contenders: Sequence[Contender], metric: str) -> tuple[Contender, ...]:
    """The two encoders that are best on val, each as it is best; nothing where there aren't two."""
    sign = 1 if metric_of(metric).is_loss else -1
    known = [c for c in contenders if not math.isnan(c.val(metric))]
    known.sort(key=lambda c: sign * c.val(metric))
    best: dict[str, Contender] = {}
    for c in known:
        best.setdefault(c.model, c)
    two = tuple(best.values())[:2]
    return two if len(two) == 2 else ()


def _ranked(contenders: Sequence[Contender], metric: str) -> list[Contender]:
    """Contenders by test, the best first."""
    sign = 1 if metric_of(metric).is_loss else -1
    values = [(c, c.value(metric)) for c in contenders]
    known = [(c, v.value) for c, v in values if v is not None and not math.isnan(v.value)]
    return [c for c, _ in sorted(known, key=lambda one: sign * one[1])]


def _asked_for(question: Asked, contenders: Sequence[Contender]) -> tuple[Contender, ...]:
    """The pair that a question names: two contenders, nothing, or all of several pairs."""
    rows = [of for c in contenders for of in c.rows]
    try:
        found = pair_up(read_side(question.better, rows), read_side(question.other, rows))
    except RequestError:
        return ()
    return tuple(c for of in found for pair in of.pairs for c in (pair.a, pair.b))


def _is_of(question: Asked, pair: tuple[Contender, Contender]) -> bool:
    """Whether a pair is one that a question names."""
    rows = [of for c in pair for of in c.rows]
    try:
        sides = [read_side(text, rows) for text in (question.better, question.other)]
    except RequestError:
        return False
    ids = [{of.id for of in side.rows} for side in sides]
    of_pair = [{of.id for of in c.rows} for c in pair]
    return of_pair in (ids, ids[::-1])


def _when(question: Asked, dataset: str, ledger: Ledger, n_looked: int) -> str:
    """Whether a question was named before test was read."""
    for known in ledger.questions:
        if _same(known.text, question):
            n = known.read_before.get(dataset, 0)
            before = f"after {counted(n, 'reading')}" if n else "before its test set was read"
            return f'named on {known.time[:10]}, {before}: "{known.text}"'
    return (
        f'named now, after {counted(n_looked, "question")} of its test set: "{question}"; '
        "`report decide --question` names one before"
    )


def _recorded(ledger: Ledger) -> list[Asked]:
    """The questions of a ledger, as far as they are claims."""
    found = []
    for known in ledger.questions:
        try:
            found.append(read_claim(known.text))
        except RequestError:
            continue
    return found


def _same(text: str, question: Asked) -> bool:
    try:
        return read_claim(text) == question
    except RequestError:
        return False
