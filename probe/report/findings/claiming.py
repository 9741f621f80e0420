"""Claims that one model is better than another, by rows' answers and by printed numbers."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cache.commands.names import near_names
from cache.errors import RequestError
from cache.task import CLASSIFICATION, MULTI_LABEL
from probe.metrics.classification import predict
from probe.report.findings.comparisons import Asking, compare, is_loss, metrics_for
from probe.report.published.names import SHORT_NAMES
from probe.report.published.numbers import Number, published
from probe.report.rows.answers import TestSet, test_sets
from probe.report.rows.fields import metric_named
from probe.report.rows.people import People
from probe.report.rows.sides import Pair, describe
from probe.report.statistics.claims import (
    CONTRADICTED,
    HOLDS,
    P_FALSE,
    P_SURE,
    UNTOLD,
    Asked,
    Claim,
    of_answers,
    of_numbers,
)
from probe.report.statistics.discordant import discordance

ACC = "acc"
WORDS = re.compile("[a-z0-9]+")


@dataclass(frozen=True)
class Known:
    """A claim of stored rows, and how it was judged."""

    claim: Claim
    pair: Pair
    metric: str
    how: str  # of what P(false), or the one-sided p, is


def of_pair(pair: Pair, metric: str, people: People) -> Known:
    """A claim that a pair's A is better than its B, by their scores.

    Of one answer an image, accuracy of single images is judged by who is right where they differ.
    All else goes by the one-sided p of the paired test, of patients by swaps of patients, say; that is
    no P(false), and a claim holds by it where the two-sided p is at most .05.

    Raises:
        RequestError: as ``rows.answers.test_sets``, or the rows don't have the metric.
    """
    name = metric_named(metric) if metric else ACC
    found = compare(pair, people, Asking((name,)))
    d = found.whole.differences.get(name)
    a, b = describe(pair.a), describe(pair.b)
    if d is None:
        usual = metrics_for(pair.a.first.row.encoded.task, Asking())[0]
        raise RequestError(f'{pair.dataset}: its rows have no {name}; say "by {usual}"')
    is_single = not (pair.a.is_of_folds or pair.b.is_of_folds) and d.n_units == d.n
    claim = Claim(a, b, pair.dataset, UNTOLD, n=d.n)
    if name == ACC and is_single:
        (test,) = test_sets([pair.a, pair.b], people)
        if _has_one_answer(test):
            right = [
                predict(x.runs[0], test.samples.task, x.score_type) == test.samples.labels
                for x in test.answers
            ]
            counts = discordance(right[0], right[1])
            what = "patients" if test.samples.are_patients else "images"
            how = f"A alone is right on {counts.only_a} {what}, B on {counts.only_b}"
            return Known(of_answers(a, b, pair.dataset, right[0], right[1]), pair, name, how)
    lead = -d.value if is_loss(name) else d.value
    if math.isnan(d.p):
        why = "; ".join(d.notes) or "nothing tests it"
        return Known(replace(claim, lead=lead, why=why), pair, name, "")
    chance = d.p / 2 if lead > 0 else 1 - d.p / 2
    verdict = HOLDS if chance <= P_FALSE else CONTRADICTED if chance >= P_SURE else UNTOLD
    claim = replace(claim, verdict=verdict, lead=lead, p=chance)
    how = f"one-sided p by {d.test}, {d.n_units} {d.unit}s"
    if name == ACC and d.n_units < d.n:
        how += "; of images alone it would be another number, for a patient's aren't independent"
    return Known(claim, pair, name, how)


def _has_one_answer(test: TestSet) -> bool:
    """Whether each sample has one right answer, and each model one answer to it."""
    task = test.samples.task
    is_one = task in CLASSIFICATION and task != MULTI_LABEL
    return is_one and all(len(x.runs) == 1 for x in test.answers)


@dataclass(frozen=True)
class Naming:
    """Printed numbers that a word names, or why none."""

    numbers: tuple[Number, ...]
    why: str = ""


def printed_claims(
    asked: Asked,
    papers: Sequence[str] = (),
    mode: str = "",
    *,
    seeds_as_one: bool = False,
) -> tuple[list[Claim], list[str]]:
    """A claim in the papers' tables, in each setting that both models were printed in.

    Args:
        asked: the claim.
        papers: which; none: all.
        mode: what was trained, as printed, "linear"; "": any.
        seeds_as_one: see ``claims.of_numbers``.

    Returns:
        The claims, and what is to be said of models that weren't found, or not alone.
    """
    numbers = [n for n in published() if not papers or n.paper.name in papers]
    numbers = [n for n in numbers if not n.quoting and (not mode or mode in n.mode.split("/"))]
    if asked.datasets:
        wanted = {d.lower() for d in asked.datasets}
        numbers = [n for n in numbers if n.dataset in wanted or (n.our_dataset or "") in wanted]
    metric = metric_named(asked.metric) if asked.metric else ACC
    numbers = [n for n in numbers if n.our_metric == metric]
    claims: list[Claim] = []
    notes: list[str] = []
    for paper in dict.fromkeys(n.paper.name for n in numbers):
        of_paper = [n for n in numbers if n.paper.name == paper]
        sides = [_named(word, of_paper) for word in (asked.better, asked.other)]
        if any(side.why for side in sides):
            notes += [f"{paper}: {side.why}" for side in sides if side.why]
            continue
        settings = {_setting(n): n for n in sides[1].numbers}
        for n in sides[0].numbers:
            if (other := settings.get(_setting(n))) is not None:
                claims.append(of_numbers(n, other, seeds_as_one=seeds_as_one))
    return claims, notes


def _setting(n: Number) -> tuple[object, ...]:
    return n.table, n.dataset, n.size, n.resize, n.mode, n.metric


def _named(word: str, numbers: Sequence[Number]) -> Naming:
    """The numbers of one model: by its printed name, ours, or the words that its name begins with."""
    models = dict.fromkeys(n.model for n in numbers)
    ours = {n.model: n.encoder for n in numbers}
    called = {m: {m, ours[m] or "", SHORT_NAMES.get(ours[m] or "", "")} for m in models}
    exact = [m for m in models if word.lower() in {name.lower() for name in called[m]}]
    parts = WORDS.findall(word.lower())
    found = exact or [m for m in models if WORDS.findall(m.lower())[: len(parts)] == parts]
    if len(found) == 1:
        return Naming(tuple(n for n in numbers if n.model == found[0]))
    if found:
        return Naming((), f"{word!r} is one of {', '.join(found)}: name it whole")
    known = [*models, *(name for name in ours.values() if name)]
    return Naming(
        (), f"no numbers of {word!r}; {near_names(word, known, 'models are ' + ', '.join(models))}"
    )
