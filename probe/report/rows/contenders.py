"""What tables and tests compare: an answer, or the folds, sites or trainings of one question together."""

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cache.format.key import canonical_json
from probe.folds import asked_of_all, count_splits, describe_choices, how_chosen
from probe.report.rows.beside import short_name
from probe.report.rows.fields import find_field
from probe.report.rows.stored import StoredRow
from probe.results import PATIENTS

SPREAD = (
    "mean ± standard deviation over folds or sites, whose training images overlap: no 95 % interval"
)
LACKING = (
    "a mean over classes is, in folds whose test images lack a class, over those that they have"
)
OVER_SEEDS = (
    "mean ± standard deviation (ddof {ddof}) over training seeds: no 95 % interval, which "
    "is of the test images"
)
UNLIKE = "folds of this mean were not all chosen alike: {}"
# Settings that follow from the encoder or the data, and are no other way of asking: what val or folds
# chose by, say, for whether val is large enough is a fact of the data.
OF_DATA = (
    *("layer", "pool", "n_last", "training_seed", "control", "read", "chosen_by", "score_type"),
    *("k_among", "left_out", "head_from", "head_weights", "places", "parts"),
)
OF_EPISODES = ("digest", "images")
USUAL_FORM = "multinomial"  # of linear probes


@dataclass(frozen=True)
class Value:
    """A metric of a contender."""

    value: float
    low: float = math.nan  # of its 95 % interval
    high: float = math.nan
    sd: float = math.nan  # over folds, sites or trainings; of few-shot over episodes


@dataclass(frozen=True)
class Contender:
    """Rows of one question: one, or those of its folds or sites, or of its trainings."""

    rows: tuple[StoredRow, ...]
    n_asked: int = 1  # rows that a mean over all folds or sites would be of

    @property
    def first(self) -> StoredRow:
        return self.rows[0]

    @property
    def model(self) -> str:
        return short_name(self.first.row.encoded)

    @property
    def dataset(self) -> str:
        return self.first.row.encoded.dataset

    @property
    def is_of_folds(self) -> bool:
        """Whether its rows are of several test sets."""
        return len({of.row.posed.fold for of in self.rows}) > 1

    @property
    def is_of_seeds(self) -> bool:
        """Whether its rows are trainings, answering the same test samples."""
        return len(self.rows) > 1 and not self.is_of_folds

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of its means must know, beside its rows' marks."""
        if len(self.rows) == 1:
            return ()
        if not self.is_of_folds:
            return (OVER_SEEDS.format(ddof=self._ddof),)
        said = [SPREAD]
        if any(_over_classes(of) for of in self.rows):
            said.append(LACKING)
        unlike = describe_choices([of.row.answered.settings for of in self.rows])
        return (*said, *([UNLIKE.format(unlike)] if unlike else []))

    @property
    def marks(self) -> tuple[str, ...]:
        """Its rows' marks, each once."""
        return tuple(dict.fromkeys(mark for of in self.rows for mark in of.row.marks))

    @property
    def is_random(self) -> bool:
        """Whether nobody trained its encoder."""
        return "random weights" in self.marks

    @property
    def _ddof(self) -> int:
        return 1 if self.is_of_folds else int(self.first.row.answered.chosen.get("ddof", 1))

    def field(self, name: str) -> Any:
        """A field that all its rows share; None where they differ."""
        field = find_field(name)
        values = [field.of(of) for of in self.rows]
        return values[0] if all(value == values[0] for value in values) else None

    def value(self, metric: str) -> Value | None:
        """A metric on test; None where a row hasn't it."""
        each = [of.row.measured.test.get(metric) for of in self.rows]
        if any(found is None for found in each):
            return None
        if len(self.rows) == 1:
            found = self.first.row.measured.test[metric]
            return Value(*found, sd=_episodes_sd(self.first, metric))
        found = [v.value for v in each if v is not None]
        if self.is_of_folds:
            found = [
                _over_classes(of).get(metric, v) for of, v in zip(self.rows, found, strict=True)
            ]
        return self.mean(found)

    def val(self, metric: str) -> float:
        """A metric on val, of several rows their mean; nan where a row hasn't it."""
        return statistics.fmean(of.row.measured.val.get(metric, math.nan) for of in self.rows)

    def mean(self, values: Sequence[float]) -> Value:
        """The mean and standard deviation of its rows' numbers, undefined where one is; of one row
        the number.
        """
        if len(values) == 1:
            return Value(values[0])
        if any(map(math.isnan, values)):
            return Value(math.nan)
        deviation = statistics.stdev if self._ddof else statistics.pstdev
        return Value(statistics.fmean(values), sd=deviation(values))

    def condition(self) -> dict[str, Any]:
        """How it was asked, whatever the encoder, its size and layer, and the data.

        Contenders that differ in it differ in more than what stands in their row of a table.
        """
        row = self.first.row
        settings = asked_of_all(row.answered.settings)
        asked = {name: value for name, value in settings.items() if name not in OF_DATA}
        drawn = asked.pop("few_shot", {})
        asked |= {f"few_shot.{n}": v for n, v in drawn.items() if n not in OF_EPISODES}
        if asked.get("form") == USUAL_FORM:  # which two classes, or several labels, don't say
            del asked["form"]
        if "text" in asked:  # whose key is the encoder's
            asked["text.n_prompts"] = asked.pop("text").get("n_prompts")
        # Among how many layers and pools is the encoder's.
        place = "chosen" if asked.pop("place_chosen", None) else "named"
        posed, protocol = row.posed, row.answered.protocol
        return {
            **{f"probe.{name}": value for name, value in asked.items()},
            "place": place,
            **({"chosen.k": True} if "k" in row.answered.chosen else {}),
            **{f"protocol.{name}": v for name, v in protocol.items() if name != "differs"},
            # By name, not by digest, which is one data set's: `comparable` looks at those.
            "target": {n: v for n, v in posed.target.items() if n not in ("labels", "task")},
            "split": {n: v for n, v in posed.split.items() if n in ("rule", "seed", "file")},
            "trained": posed.trained_on.dataset if posed.trained_on else "",
            "prepared": row.encoded.protocol,
            "folds": list(dict.fromkeys(of.row.posed.fold for of in self.rows)),
            "trainings": len({of.row.answered.training_seed for of in self.rows}),
        }


def differing(conditions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names whose values aren't the same in all conditions, in their order."""
    names = dict.fromkeys(name for condition in conditions for name in condition)
    first = conditions[0]
    return [n for n in names if any(c.get(n) != first.get(n) for c in conditions[1:])]


def sharing(contenders: Sequence[Contender]) -> list[set[str]]:
    """Data sets whose tables of patients are the same."""
    same: dict[int, set[str]] = defaultdict(set)
    for of in contenders:
        checksum = of.first.row.encoded.tables.get(PATIENTS)
        if checksum is not None:
            same[checksum].add(of.dataset)
    return [group for group in same.values() if len(group) > 1]


def contenders_of(rows: Sequence[StoredRow]) -> list[Contender]:
    """Rows that differ only in the fold, the site or the training seed together; others alone.

    Folds that were chosen in several ways stand together only where no fold was asked in two of
    them: that is --choose auto, and else each way is a question of its own.
    """
    alike: dict[tuple[str, str, int], list[StoredRow]] = {}
    seen: Counter[tuple[str, str, Fold]] = Counter()
    for of in rows:
        question = of.row.question, canonical_json(how_chosen(of.row.answered.settings))
        # The same fold twice is of two files of one key, not of two folds.
        asked = (*question, _fold(of))
        alike.setdefault((*question, seen[asked]), []).append(of)
        seen[asked] += 1
    joined: dict[str, list[list[StoredRow]]] = defaultdict(list)
    for part in sorted(alike.values(), key=len, reverse=True):
        folds = {_fold(of) for of in part}
        there = joined[part[0].row.question]
        apart = [whole for whole in there if folds.isdisjoint(map(_fold, whole))]
        apart[0].extend(part) if apart else there.append(part)
    place = {id(of): number for number, of in enumerate(rows)}
    wholes = [sorted(whole, key=lambda of: place[id(of)]) for w in joined.values() for whole in w]
    wholes.sort(key=lambda whole: place[id(whole[0])])
    names: dict[str, set[str]] = defaultdict(set)
    for of in rows:
        names[_rule(of)].add(_fold(of)[0])
    return [Contender(tuple(whole), _n_asked(whole, names)) for whole in wholes]


Fold = tuple[str, Any]  # name of the fold or site, training seed


def _fold(of: StoredRow) -> Fold:
    return of.row.posed.fold, of.row.answered.training_seed


def _n_asked(alike: Sequence[StoredRow], names: Mapping[str, set[str]]) -> int:
    """Rows that a mean over all folds or sites, of as many training seeds, would be of.

    Rows of sites didn't always hold how many there are: then as many as the table has rows of.

    Args:
        alike: rows of one question.
        names: of the folds that any row of a rule is of, see ``_rule``.
    """
    counts = [count_splits(of.row.posed.split) for of in alike]
    return max(1, *counts, len(names[_rule(alike[0])])) * len({_fold(of)[1] for of in alike})


def _rule(of: StoredRow) -> str:
    split = of.row.posed.split
    return canonical_json([of.row.encoded.dataset, split.get("rule"), split.get("seed")])


def _over_classes(of: StoredRow) -> dict[str, float]:
    """Means over the classes, or labels, that test has, where it lacks some and so has none of all.

    Else one class with fewer samples than there are folds would leave no mean over folds at all.
    """
    found, m = {}, of.row.measured
    for metric in ("auc", "average_precision"):
        each = [v for v in m.per_class.get(metric, ()) if v is not None and not math.isnan(v)]
        if each and metric in m.test and math.isnan(m.test[metric].value):
            found[metric] = statistics.fmean(each)
    return found


def _episodes_sd(of: StoredRow, metric: str) -> float:
    """Standard deviation over episodes, of n - 1."""
    values = of.row.measured.episodes.get(metric, ())
    if len(values) < 2 or any(map(math.isnan, values)):
        return math.nan
    return statistics.stdev(values)
