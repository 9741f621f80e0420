"""What two encoders know together: each alone, both side by side, and the mean of their scores.

Side by side, or averaged, is compared with **each** of the two: against the better one alone, which was
picked on the same test images, it would look worse or better by chance. It is better than both where it
is better than each (`statistics.families.better_than_all`), by Holm over all that stand in one table of a
data set.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cache.errors import CacheError, RequestError
from cache.format.key import canonical_json
from cache.task import NEVER_WRONG
from probe.places import Place, places_in
from probe.report.findings.alike import layers_alike
from probe.report.findings.comparisons import Asking, compare, pooled
from probe.report.findings.division import TEST, divide
from probe.report.findings.headline import val_samples
from probe.report.findings.leading import place_word
from probe.report.findings.standing import metric_of
from probe.report.rows.answers import test_sets
from probe.report.rows.beside import layer_from_end
from probe.report.rows.comparable import make_blocks
from probe.report.rows.contenders import Contender
from probe.report.rows.people import People
from probe.report.rows.sides import (
    FITTED,
    OF_ALL_KINDS,
    OF_ENCODER,
    Pair,
    asked,
    differences_of,
    facts,
)
from probe.report.statistics.agreement import Agreement, agreement
from probe.report.statistics.families import better_than_all, holm
from probe.report.statistics.paired import Difference

JOINED, AVERAGED = "joined", "averaged"
LINEAR, STACK, EQUAL = "linear", "stack", "equal"  # kinds; and the weights of averaged scores
NO_KINDS = (STACK, "control", "finetune")  # whose rows are no encoder's own answer


@dataclass(frozen=True)
class Candidate:
    """Two encoders on one data set, and their rows that were asked alike."""

    a: Contender
    b: Contender
    joined: Contender | None = None
    averaged: Contender | None = None

    def way(self, name: str) -> Contender | None:
        return self.joined if name == JOINED else self.averaged


@dataclass(frozen=True)
class Against:
    """Both together beside each alone."""

    way: str  # JOINED or AVERAGED
    contender: Contender
    better: Difference  # less the one that is better on test
    worse: Difference  # less the other
    p: float  # that it is better than both
    adjusted: float = math.nan  # by Holm over the family

    @property
    def gain(self) -> float:
        """How much better than the better one."""
        return _gain(self.better)


@dataclass(frozen=True)
class Together:
    """A pair, compared."""

    of: Candidate
    ways: tuple[Against, ...]
    alike: Agreement | None  # None: numbers are no answers that are right or wrong
    cka: float = math.nan
    why_no_cka: str = ""


@dataclass(frozen=True)
class Study:
    """The pairs of one data set that were asked alike."""

    pairs: tuple[Together, ...]
    n_tests: int  # of the family
    best: Together | None  # the pair whose joined row val prefers
    lacking: Mapping[str, tuple[Candidate, ...]]  # way -> pairs without such a row
    failed: tuple[str, ...] = ()

    @property
    def first(self) -> Contender:
        return self.pairs[0].of.a


def candidates(contenders: Sequence[Contender]) -> list[list[Candidate]]:
    """The pairs that two encoders' own rows make, those of one data set that were asked alike together.

    Args:
        contenders: of any data sets, that read test: of encoders alone and of two side by side.
    """
    by_set: dict[str, list[Contender]] = defaultdict(list)
    for c in contenders:
        by_set[c.dataset].append(c)
    blocks = [block.contenders for of in by_set.values() for block in make_blocks(of)]
    return [found for block in blocks for found in _of_block(block)]


def _of_block(block: Sequence[Contender]) -> Iterator[list[Candidate]]:
    alone: dict[str, list[Contender]] = defaultdict(list)
    for c in block:
        row = c.first.row
        if not row.encoded.joined and row.answered.kind not in NO_KINDS and _places(c):
            # Layers that val chose are another question than those that were named.
            alone[canonical_json([c.condition(), layer_from_end(row)])].append(c)
    together = [c for c in block if len(c.first.row.encoded.joined) == 2]
    joined = [c for c in together if c.first.row.answered.kind not in NO_KINDS]
    averaged = [c for c in together if _is_average(c)]
    for members in alone.values():
        by_encoder: dict[str, list[Contender]] = defaultdict(list)
        for c in members:
            by_encoder[c.first.row.encoded.digest].append(c)
        found = []
        for one, other in itertools.combinations(by_encoder.values(), 2):
            each = [_candidate(a, b, joined, averaged) for a in one for b in other]
            having = [of for of in each if of.joined or of.averaged]
            # Random weights are in a pair only where somebody joined them.
            is_random = any(c.is_random for c in (*one, *other))
            found += having or ([] if is_random else each[:1])
        if found:
            yield found


def _candidate(
    a: Contender, b: Contender, joined: Sequence[Contender], averaged: Sequence[Contender]
) -> Candidate:
    kind = a.field("kind")
    is_of_kind = [c for c in joined if c.field("kind") == kind]
    # What is averaged are linear probes.
    means = averaged if kind == LINEAR else ()
    return Candidate(a, b, _nearest(is_of_kind, a, b), _nearest(means, a, b))


def _is_average(of: Contender) -> bool:
    settings = of.first.row.answered.settings
    return settings["kind"] == STACK and settings.get("weights") == EQUAL


def _nearest(among: Sequence[Contender], a: Contender, b: Contender) -> Contender | None:
    """The one of both encoders that was asked as they were, if there is one."""
    fitting = [c for c in among if _is_of_both(c, a, b)]
    return min(fitting, key=lambda c: len(apart(c, a)), default=None)


def apart(together: Contender, alone: Contender) -> list[str]:
    """In what both together were asked otherwise than one alone, but for what follows from it."""
    if together.field("kind") != alone.field("kind"):
        return []
    names = [of.name for of in differences_of(together, alone)]
    return [name for name in names if name not in (*OF_ENCODER, FITTED)]


def _is_of_both(together: Contender, a: Contender, b: Contender) -> bool:
    parts = [part.digest for part in together.first.row.encoded.joined]
    digests = [of.first.row.encoded.digest for of in (a, b)]
    if sorted(parts) != sorted(digests):
        return False
    if any(_alike(together) != _alike(of) for of in (a, b)):
        return False
    return all(
        _places(together, parts.index(digest)) == _places(of)
        for digest, of in zip(digests, (a, b), strict=True)
    )


def _alike(of: Contender) -> list[Any]:
    """What all kinds share of how it was asked."""
    said = asked(of)
    return [*(said.get(name) for name in OF_ALL_KINDS), said.get("place"), of.field("aggregate")]


def _places(of: Contender, file: int = 0) -> set[Place]:
    """Where it saw a feature file, whichever it is."""
    try:
        places = places_in(of.first.row.answered.settings)
    except (KeyError, TypeError, ValueError):
        return set()
    return {replace(place, file=0) for place in places if place.file == file}


def study(
    found: Sequence[Candidate], people: People, asking: Asking, has_cka: bool = True
) -> Study:
    """Compare the pairs of one data set that were asked alike.

    Args:
        found: of ``candidates``.
        people: that knows patients and feature files.
        asking: one metric, and the level of intervals.
        has_cka: whether feature files are read.

    Raises:
        RequestError: none of the pairs can be compared.
    """
    metric = asking.metrics[0]
    pairs: list[Together] = []
    failed: dict[str, None] = {}
    for of in found:
        try:
            ways = [_against(of, way, people, asking) for way in (JOINED, AVERAGED)]
            pairs.append(Together(of, tuple(filter(None, ways)), _alike_of(of, people)))
        except RequestError as error:
            failed[str(error)] = None
    if not pairs:
        raise RequestError("; ".join(failed))
    pairs = _adjusted(pairs)
    if has_cka:
        pairs = _with_cka(pairs, people)
    ways = (JOINED, AVERAGED) if found[0].a.field("kind") == LINEAR else (JOINED,)
    lacking = {way: tuple(of for of in found if of.way(way) is None) for way in ways}
    n_tests = sum(not math.isnan(way.p) for of in pairs for way in of.ways)
    return Study(tuple(pairs), n_tests, _best(pairs, metric), lacking, tuple(failed))


def _against(of: Candidate, name: str, people: People, asking: Asking) -> Against | None:
    together, (metric,) = of.way(name), asking.metrics
    if together is None:
        return None
    each = []
    for alone in (of.a, of.b):
        whole = compare(Pair(together, alone), people, asking).whole
        if metric not in whole.differences:
            return None
        each.append(whole.differences[metric])
    each.sort(key=_gain)  # the smallest gain is over the better one
    gains = np.array([_gain(d) for d in each])
    p = better_than_all(gains, np.array([d.p for d in each]))
    return Against(name, together, each[0], each[1], p)


def _gain(of: Difference) -> float:
    return -of.value if metric_of(of.metric).is_loss else of.value


def _alike_of(of: Candidate, people: People) -> Agreement | None:
    sets = test_sets([of.a, of.b], people)
    if sets[0].samples.task in NEVER_WRONG:
        return None
    whole = pooled(sets)
    a, b = whole.answers
    return agreement(a, b, whole.samples)


def _adjusted(pairs: Sequence[Together]) -> list[Together]:
    adjusted = iter(holm(np.array([way.p for of in pairs for way in of.ways], np.float64)))
    return [
        replace(of, ways=tuple(replace(w, adjusted=float(next(adjusted))) for w in of.ways))
        for of in pairs
    ]


def _best(pairs: Sequence[Together], metric: str) -> Together | None:
    """The pair whose joined row is best on val, or out of fold; of as good ones the first.

    None where a joined row has no such number, or they are of other samples.
    """
    each = [(of, way.contender) for of in pairs for way in of.ways if way.way == JOINED]
    values = [c.val(metric) for _, c in each]
    if len(each) < 2 or any(map(math.isnan, values)) or len({val_samples(c) for _, c in each}) > 1:
        return None
    best = (min if metric_of(metric).is_loss else max)(values)
    return each[values.index(best)][0]


def _with_cka(pairs: Sequence[Together], people: People) -> list[Together]:
    """Debiased CKA on the test samples, of pairs whose feature files are there."""
    encoders = list({id(c): c for of in pairs for c in (of.of.a, of.of.b)}.values())
    places: list[Place] = []
    known: dict[int, int] = {}
    whys: dict[int, str] = {}
    files = {file.digest: file for file in people.files}
    division = divide([pairs[0].of.a], people)
    has_test = division is not None and TEST in division.known
    for c in encoders:
        file, at = files.get(c.first.row.encoded.digest), _places(c)
        if file is None:
            whys[id(c)] = f"the feature file of {c.model} isn't below {people.folder}"
        elif len(at) > 1:
            whys[id(c)] = "several places side by side: `report figure cka` compares one with one"
        else:
            known[id(c)] = len(places)
            places.append(replace(at.pop(), features=division.over(file) if division else file))
    try:
        found = layers_alike(places, split=TEST if has_test else "all").cka if places else None
    except (RequestError, CacheError, OSError) as error:
        found, whys = None, dict.fromkeys(map(id, encoders), str(error))
    marked = []
    for of in pairs:
        ends = id(of.of.a), id(of.of.b)
        why = next((whys[end] for end in ends if end in whys), "")
        value = math.nan if found is None or why else float(found[known[ends[0]], known[ends[1]]])
        marked.append(replace(of, cka=value, why_no_cka=why))
    return marked


def words_of(of: Contender) -> str:
    """How it was asked, whichever encoder it is of: "linear, last layer"."""
    left = ("encoder", "size", "place", FITTED)
    said = [words for name, words in facts(of).items() if name not in left]
    return ", ".join([*said, "layer chosen" if of.field("place") == "chosen" else place_word(of)])
