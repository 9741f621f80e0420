"""Which comparison is the headline: one that was named, or that val chose; any other is exploratory.

The best of 12 equal encoders looks .027 better than it is in the accuracy of 156 images, and the best
of 864 by .054: whoever looks at a test set K times and reports the best must say K (Andrews et al.
2024). What a comparison may be called is therefore decided by all rows that are stored, whichever of
them are shown: a question that fits several pairs names none of them, and val chooses among all.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cache.commands.names import counted
from cache.errors import RequestError
from probe.report.findings.claiming import ACC
from probe.report.findings.comparisons import Asking, compare
from probe.report.findings.standing import metric_of
from probe.report.formats.cells import P_VALUE, number
from probe.report.rows.beside import count_encoders
from probe.report.rows.comparable import make_blocks
from probe.report.rows.contenders import Contender, contenders_of
from probe.report.rows.ledger import Ledger, Question, read_ledger, read_question
from probe.report.rows.people import People
from probe.report.rows.sides import Pair, facts_of_both, pair_up, read_side
from probe.report.rows.stored import StoredRow, read_stored, stored_files
from probe.report.statistics.claims import Asked

MOST = 4  # headlines above a page
NAMED, BY_VAL, EXPLORATORY = "named", "chosen on val", "exploratory"
OTHER_VAL = "val chose none, for its numbers are of different samples"
Id = frozenset[str]  # of the rows of a contender


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
        """One line: what is compared, with its interval and p, and what it may be called."""
        if self.a is None or self.b is None:
            return self.why
        both = facts_of_both(self.a, self.b)
        both.pop("encoder", None)
        which = f"{self.a.dataset}: {self.a.model} - {self.b.model} ({', '.join(both.values())})"
        try:
            found = compare(Pair(self.a, self.b), people, Asking((self.metric,), level))
        except RequestError as error:
            return f"{which}: not compared: {error}; {self.why}"
        difference = found.whole.differences.get(self.metric)
        if difference is None:
            return f"{which}: no {self.metric}; {self.why}"
        ends = ""
        if not math.isnan(difference.low):
            ends = f" [{difference.low:+.3f} {difference.high:+.3f}]"
        return (
            f"{which}: {self.metric} {difference.value:+.3f}{ends}, "
            f"p {number(difference.p, P_VALUE)}; {self.why}"
        )


class Record:
    """All rows that are stored and read test, and the ledger."""

    def __init__(self, rows: Iterable[StoredRow], ledger: Ledger) -> None:
        self.ledger = ledger
        self._rows = [of for of in rows if of.row.measured.test]
        self._contenders: dict[str, list[Contender]] = {}  # by data set
        self._named: dict[tuple[Asked, frozenset[Id]], list[tuple[Id, Id]]] = {}

    def beside(self, shown: Sequence[Contender]) -> list[Contender]:
        """All contenders of one data set and block: those that are shown, and then the others.

        Args:
            shown: at least one, of one data set and one block.
        """
        dataset = shown[0].dataset
        if dataset not in self._contenders:
            rows = [of for of in self._rows if of.row.encoded.dataset == dataset]
            self._contenders[dataset] = contenders_of(rows)
        ids = set(map(id_of, shown))
        others = [c for c in self._contenders[dataset] if id_of(c) not in ids]
        return make_blocks([*shown, *others])[0].contenders

    def named_by(self, question: Asked, block: Sequence[Contender]) -> list[tuple[Id, Id]]:
        """The pairs of a block that a question names."""
        key = question, frozenset(map(id_of, block))
        if key not in self._named:
            # A shown part of a contender has its rows once more.
            rows = list({of.id: of for c in block for of in c.rows}.values())
            try:
                sides = read_side(question.better, rows), read_side(question.other, rows)
                found = [pair for of in pair_up(*sides) for pair in of.pairs]
            except RequestError:  # nothing here is called so
                found = []
            self._named[key] = [(id_of(pair.a), id_of(pair.b)) for pair in found]
        return self._named[key]


def read_record(root: Path) -> Record:
    """The record of a folder of results.

    Raises:
        OSError: the ledger can't be read.
    """
    rows, _ = read_stored(root, stored_files(root))
    return Record(rows, read_ledger(root, rows))


def id_of(of: Contender) -> Id:
    """What tells a contender from others: its rows."""
    return frozenset(row.id for row in of.rows)


def headline(
    shown: Sequence[Contender],
    metrics: Sequence[str],
    record: Record,
    question: Asked | None = None,
) -> Headline:
    """The headline of those that are shown of one test set.

    Args:
        shown: of one data set and one block; two are a comparison.
        metrics: that are compared; val chooses by the first.
        record: of the folder of results.
        question: that was named; None: whichever the ledger holds that fits.
    """
    dataset, here = shown[0].dataset, {id_of(c): c for c in shown}
    beside = record.beside(shown)
    else_called = _not_named(shown, beside, metrics[0], record.ledger)
    pair = tuple(id_of(c) for c in (else_called.a, else_called.b) if c)
    said = ""
    for named in [question] if question else _recorded(record.ledger):
        if named.datasets and dataset not in named.datasets:
            continue
        metric, found = named.metric or ACC, record.named_by(named, beside)
        if len(found) == 1 and set(found[0]) <= set(here) and metric in metrics:
            a, b = (here[of] for of in found[0])
            return Headline(NAMED, metric, _when(named, dataset, record.ledger, a), a, b)
        if metric in metrics and len(found) > 1 and any(set(of) == set(pair) for of in found):
            said = said or f'one of {len(found)} pairs that the question "{named}" names'
        elif question and metric not in metrics:
            said = f'"{named}" is by {metric}'
        elif question:
            which = {0: "no pair of these rows", 1: "another pair"}
            said = f'"{named}" names {which.get(len(found), f"{len(found)} other pairs")}'
    return replace(else_called, why="; ".join(filter(None, [else_called.why, said])))


def _not_named(
    shown: Sequence[Contender], beside: Sequence[Contender], metric: str, ledger: Ledger
) -> Headline:
    """What is to be compared of those shown, and called, where no question names it."""
    test_set, here = shown[0].first.row.test_set, {id_of(c): c for c in shown}
    looked = f"{ledger.looked_at(test_set)} looked at on this test set"
    # Where images are measured, patients are no rivals, and the other way round.
    measured = {c.field("measured") for c in shown}
    rivals = [c for c in beside if c.first.row.test_set == test_set]
    rivals = [c for c in rivals if c.field("measured") in measured]
    on_val = [c for c in rivals if not math.isnan(c.val(metric))]
    chosen = best_on_val(on_val, metric)
    if chosen and all(id_of(c) in here for c in chosen):
        values = " and ".join(f"{c.val(metric):.3f}" for c in chosen)
        n = count_encoders(c.first.row.encoded for c in on_val)
        why = f"{BY_VAL}: the two best of {n} there ({metric} {values}); {looked}"
        return Headline(BY_VAL, metric, why, chosen[0], chosen[1])
    ranked, best = _ranked(shown, metric), _ranked(rivals, metric)
    a, b = (*ranked[:2], None, None)[:2]
    is_best = bool(ranked and best) and ranked[0] is best[0]
    why = f"{EXPLORATORY}: {'best' if is_best else 'one'} of {looked}"
    why += f"; {OTHER_VAL} ({_told_val(on_val)})" if len(set(map(val_samples, on_val))) > 1 else ""
    return Headline(EXPLORATORY, metric, why, a, b, is_best)


def leads(
    sets: Sequence[Sequence[Contender]],
    metric: str,
    record: Record,
    question: Asked | None,
    people: People,
) -> tuple[str, ...]:
    """What stands above tables: the headline of each test set; of many, what was named alone.

    Args:
        sets: the contenders of each table and data set.
        metric: of the tables.
        record: of the folder of results.
        question: that was named, if any.
        people: that knows patients.
    """
    heads = [headline(of, (metric,), record, question) for of in sets if len(of) > 1]
    named = [head for head in heads if head.standing == NAMED]
    shown = named or heads
    if len(shown) <= MOST:
        return tuple(head.state(people) for head in shown)
    most = max(record.ledger.looked_at(of[0].first.row.test_set) for of in sets)
    return (
        f"{EXPLORATORY}: up to {most} looked at on a test set; `--question` names one comparison, "
        "and one data set at a time is compared by `report compare`",
    )


def best_on_val(contenders: Sequence[Contender], metric: str) -> tuple[Contender, ...]:
    """The two encoders that are best on val, each as it is best.

    Nothing where there aren't two, or where val isn't of the same samples for all: out of folds of
    train and val, say, for some of them.
    """
    sign = 1 if metric_of(metric).is_loss else -1
    known = [c for c in contenders if not math.isnan(c.val(metric))]
    if len(set(map(val_samples, known))) > 1:
        return ()
    known.sort(key=lambda c: sign * c.val(metric))
    best: dict[str, Contender] = {}
    for c in known:
        best.setdefault(c.model, c)
    two = tuple(best.values())[:2]
    return two if len(two) == 2 else ()


def chosen_one(contenders: Sequence[Contender], metric: str) -> tuple[Contender, str] | None:
    """The one of several answers that was chosen without test, and how; None where none was.

    That whose layer was chosen, where one was; else, or of several such, the best on val, of the same
    samples for all.

    Args:
        contenders: of one data set, that read test.
        metric: that val chooses by.
    """
    chosen = [c for c in contenders if c.field("place") == "chosen"]
    if len(chosen) == 1:
        return chosen[0], "the one whose layer was chosen"
    among = chosen or contenders
    values = [c.val(metric) for c in among]
    if any(map(math.isnan, values)) or len(set(map(val_samples, among))) > 1:
        return None
    best = (min if metric_of(metric).is_loss else max)(values)
    if values.count(best) > 1:
        return None
    return among[values.index(best)], f"the best on val ({metric} {best:.3f})"


def val_samples(of: Contender) -> frozenset[object]:
    """What a contender's numbers on val are of, in a test set of one split."""
    found = set()
    for each in of.rows:
        row, settings = each.row, each.row.answered.settings
        asked = [settings.get("refit"), "folds" in settings, settings.get("scores_of")]
        found.add((row.posed.fold, row.n.get("val"), *asked))
    return frozenset(found)


def _told_val(contenders: Sequence[Contender]) -> str:
    """Of which samples the numbers on val are, the fewest first: "60, 95 patients, 241 out of fold"."""
    told: dict[str, int] = {}
    for of in {val_samples(c): c for c in contenders}.values():
        settings = of.first.row.answered.settings
        n = sorted({_n_val(row) for row in of.rows})
        words = [
            "-".join(map(str, dict.fromkeys([n[0], n[-1]]))),
            str(settings.get("scores_of") or ""),
            "out of fold" if "folds" in settings else "",
            f"before --refit {settings['refit']}"
            if "folds" not in settings and settings.get("refit")
            else "",
            f"in each of {len(of.rows)} folds" if of.is_of_folds else "",
        ]
        told[" ".join(filter(None, words))] = n[0]
    return f"val n {', '.join(sorted(told, key=lambda said: (told[said], said)))}"


def _n_val(of: StoredRow) -> int:
    """Samples, or patients, that a row answered without test; of folds of train and val, all of these."""
    try:
        return len(of.scores()["val_ids"])
    except (RequestError, KeyError):
        return of.row.n.get("val", 0)


def _ranked(contenders: Sequence[Contender], metric: str) -> list[Contender]:
    """Contenders by test, the best first."""
    sign = 1 if metric_of(metric).is_loss else -1
    values = [(c, c.value(metric)) for c in contenders]
    known = [(c, v.value) for c, v in values if v is not None and not math.isnan(v.value)]
    return [c for c, _ in sorted(known, key=lambda one: sign * one[1])]


def _when(question: Asked, dataset: str, ledger: Ledger, of: Contender) -> str:
    """When a question was named: before test was read, or after."""
    said, known = named_when(question, ledger), _find(question, ledger)
    if known:
        n = known.read_before.get(dataset, 0)
        before = f"after {counted(n, 'reading')}" if n else "before its test set was read"
        return f'{said}, {before}: "{known.text}"'
    n_looked = ledger.looked_at(of.first.row.test_set)
    return (
        f'{said}, after {counted(n_looked, "question")} of its test set: "{question}"; '
        "`report decide --question` names one before"
    )


def named_when(question: Asked, ledger: Ledger) -> str:
    """When a question was named, by the ledger: "named on 2026-01-02", or "named now"."""
    known = _find(question, ledger)
    return f"named on {known.time[:10]}" if known else "named now"


def _find(question: Asked, ledger: Ledger) -> Question | None:
    return next((of for of in ledger.questions if _same(of.text, question)), None)


def _recorded(ledger: Ledger) -> list[Asked]:
    """The questions of a ledger, as far as they can be read."""
    found = []
    for known in ledger.questions:
        try:
            found.append(read_question(known.text))
        except RequestError:  # `report ledger` says why
            continue
    return found


def _same(text: str, question: Asked) -> bool:
    try:
        return read_question(text) == question
    except RequestError:
        return False
