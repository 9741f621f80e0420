"""Rules of splits as they are typed: "80/10/10", "kfold:5", "site-out:hospital"."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cache.errors import RequestError

RULES = "80/10/10, 80/20, kfold:5, kfold:5:1, site-out:COLUMN, site-out:COLUMN=VALUE, systematic:T,V, test"
MIN_FOLDS = 3  # one tests, one chooses, the others train


@dataclass(frozen=True)
class SplitRule:
    """How samples are divided; ``str`` gives the one text that ``parse`` reads as the same rule."""

    kind: str  # "shares", "systematic", "kfold", "site-out", "test"
    numbers: tuple[int, ...] = ()  # shares of train, val, test; (test, val); (folds,), (folds, one)
    column: str = ""  # of kind "site-out"
    value: str | None = None  # of kind "site-out": the one that tests; None: each in turn

    @classmethod
    def parse(cls, text: str) -> "SplitRule":
        """Read a rule as it is typed.

        "80/10/10": per cent of train, val and test; "80/20": no val. "kfold:5": five splits, fold i
        tests, the next one chooses, the others train; "kfold:5:2" the second of them.
        "site-out:COLUMN": each value of a meta column tests in turn, of the others 90 % train and
        10 % choose; "site-out:COLUMN=VALUE" one of them. "systematic:70,50": 70 evenly spaced
        samples test and 50 of the rest choose, in order of their ids; groups where they are known.
        "test": all test.

        Raises:
            RequestError: no such rule, or numbers that it can't have.
        """
        word, colon, rest = text.strip().partition(":")
        if word == "test" and not colon:
            return cls("test")
        if word == "site-out" and rest:
            column, equals, value = rest.partition("=")
            return cls("site-out", column=column, value=value if equals else None)
        if word == "kfold":
            return _kfold(_numbers(rest.split(":"), text), text)
        if word == "systematic":
            return _systematic(_numbers(rest.split(","), text), text)
        return _shares(_numbers(text.split("/"), text), text)

    @property
    def uses_chance(self) -> bool:
        """Whether another seed makes another split."""
        return self.kind in ("shares", "kfold", "site-out")

    @property
    def shares(self) -> tuple[int, ...]:
        """How much of the whole is train, val, test, where chance alone decides; else empty.

        Fold 2 of "kfold:5:2" tests and another one chooses: (3, 1, 1). What ids ("systematic") or
        columns ("site-out") decide has none.
        """
        if self.kind == "kfold":
            return (self.numbers[0] - 2, 1, 1)
        return self.numbers if self.kind == "shares" else ()

    @property
    def makes_several(self) -> bool:
        """Whether it makes a split for each fold or site."""
        return (self.kind == "kfold" and len(self.numbers) == 1) or (
            self.kind == "site-out" and self.value is None
        )

    def __str__(self) -> str:
        if self.kind == "shares":
            train, val, test = self.numbers
            return f"{train}/{val}/{test}" if val else f"{train}/{test}"
        if self.kind == "site-out":
            return f"site-out:{self.column}" + ("" if self.value is None else f"={self.value}")
        separator = "," if self.kind == "systematic" else ":"
        numbers = separator.join(map(str, self.numbers))
        return f"{self.kind}:{numbers}" if numbers else self.kind


DRAWN = "drawn_split"  # the note of a feature file whose split no owner gave
# How files from before that note say it among what they say of their data.
DRAWN_WORDS = re.compile(r"split: (\S+) by \w+, seed (\d+) \((?:the owner has none|as asked)\)")


@dataclass(frozen=True)
class Drawn:
    """How a data set was divided whose owner gave no split, or another than was asked for."""

    rule: SplitRule
    seed: int

    @classmethod
    def read(cls, notes: Mapping[str, Any]) -> "Drawn | None":
        """What a feature file's notes say of it; None: the split is the owner's, or nobody knows."""
        said = notes.get(DRAWN)
        if isinstance(said, Mapping):
            rule, seed = str(said.get("rule")), said.get("seed")
            return cls(SplitRule.parse(rule), seed) if isinstance(seed, int) else None
        for line in notes.get("data") or ():
            if found := DRAWN_WORDS.fullmatch(str(line)):
                return cls(SplitRule.parse(found[1]), int(found[2]))
        return None

    @property
    def note(self) -> dict[str, Any]:
        """What ``read`` reads."""
        return {"rule": str(self.rule), "seed": self.seed}

    def __str__(self) -> str:
        return f"{self.rule}, seed {self.seed}"


def _numbers(words: list[str], text: str) -> list[int]:
    words = [word.strip() for word in words]
    if not all(word.isascii() and word.isdigit() for word in words):
        raise RequestError(f"a split is one of {RULES}; not {text!r}")
    return [int(word) for word in words]


def _kfold(numbers: list[int], text: str) -> SplitRule:
    if len(numbers) > 2 or numbers[0] < MIN_FOLDS:
        raise RequestError(
            f"k-fold takes {MIN_FOLDS} folds and more (one tests, one chooses, the others train), "
            f"as in kfold:5, and the number of one of them, as in kfold:5:1; not {text!r}"
        )
    if len(numbers) == 2 and not 1 <= numbers[1] <= numbers[0]:
        raise RequestError(f"folds are numbered 1 to {numbers[0]}; not {text!r}")
    return SplitRule("kfold", tuple(numbers))


def _systematic(numbers: list[int], text: str) -> SplitRule:
    if len(numbers) != 2 or not numbers[0]:
        raise RequestError(
            "a systematic split takes the number of test samples, then of val samples, as in "
            f"systematic:70,50; not {text!r}"
        )
    return SplitRule("systematic", tuple(numbers))


def _shares(numbers: list[int], text: str) -> SplitRule:
    if len(numbers) not in (2, 3) or sum(numbers) != 100:
        raise RequestError(
            "a split by shares takes per cent of train, val and test, which sum to 100, as in "
            f"80/10/10 or (no val) 80/20; not {text!r}"
        )
    return SplitRule("shares", (numbers[0], *([0] if len(numbers) == 2 else []), *numbers[1:]))
