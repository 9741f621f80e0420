"""Splits by rule: which sample trains, chooses, tests, where its owner doesn't say, or says otherwise.

A rule, a seed and the samples' ids, labels and groups make the same split on every machine and in
whatever order the rows stand. ``split_rules`` reads rules, ``strata`` divides, ``split_files`` keeps a
split as a file.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.format.sample_tables import SPLITS
from cache.splits.rules import Drawn, SplitRule
from cache.splits.strata import count_units, divide, name_units
from cache.task import MULTI_LABEL, REGRESSION

TRAIN, VAL, TEST = range(3)  # indices into SPLITS
LEFT_OUT = 255  # in no split

REST_SHARES = (90, 10)  # train and val of what isn't the site that tests


@dataclass(frozen=True)
class _Pool:
    """Samples to be divided, and the seed that divides them."""

    ids: NDArray[np.str_]  # (S,) unique
    labels: NDArray[Any]
    groups: NDArray[np.str_] | None
    seed: int

    def only(self, mask: NDArray[np.bool_]) -> "_Pool":
        """Those that a mask (S,) names."""
        groups = None if self.groups is None else self.groups[mask]
        return _Pool(self.ids[mask], self.labels[mask], groups, self.seed)

    def divide(self, shares: Sequence[int]) -> NDArray[np.intp]:
        """(S,) the part of each, as ``strata.divide`` has it."""
        return divide(shares, self.ids, self.labels, self.groups, self.seed)

    @property
    def n_units(self) -> int:
        return count_units(self.ids, self.groups)

    @property
    def what(self) -> str:
        """What the units are."""
        return "samples" if self.groups is None else "groups"


@dataclass(frozen=True)
class NamedSplit:
    """One split of S samples."""

    name: str  # "fold 2/5", "site A"; empty where a rule makes only this one
    split: NDArray[np.uint8]  # (S,) index into SPLITS, or LEFT_OUT
    notes: tuple[str, ...] = ()  # what a reader of numbers must know


def make_splits(
    rule: SplitRule,
    ids: NDArray[np.str_],
    labels: NDArray[Any],
    task: str,
    groups: NDArray[np.str_] | None = None,
    meta: Mapping[str, NDArray[Any]] | None = None,
    seed: int = 0,
    class_names: Sequence[str] = (),
) -> list[NamedSplit]:
    """The splits that a rule makes of S samples: one, or one for each fold or site.

    By shares, in folds and beside a site, samples are stratified by label (continuous ones by
    deciles), and a group is never divided.

    Args:
        rule: how.
        ids: (S,) unique.
        labels: (S,) class numbers, (S, C) of several labels, or (S,) floating; see cache.labels.columns.
        task: one of cache.task.TASKS; where a sample has one class, too small ones are noted.
        groups: (S,) patients, where known; an empty text is no group.
        meta: columns of (S,) for "site-out".
        seed: of "shares", "kfold" and what isn't the site; "systematic" and "test" have no chance.
        class_names: for the notes.

    Raises:
        RequestError: too few samples or groups, or no such column or value.
    """
    pool = _Pool(np.asarray(ids), labels, groups, seed)
    if rule.kind == "test":
        return [NamedSplit("", np.full(len(ids), TEST, np.uint8))]
    if rule.kind == "systematic":
        return [NamedSplit("", _systematic_split(rule, pool))]
    if rule.kind == "site-out":
        return _sites_out(rule, pool, meta or {})
    there = [i for i, share in enumerate(rule.numbers) if share]  # of shares
    n_parts = rule.numbers[0] if rule.kind == "kfold" else len(there)
    if pool.n_units < n_parts:
        raise RequestError(
            f"{rule} divides into {n_parts}, and there are {pool.n_units} {pool.what}"
        )
    notes = ()
    if task not in (MULTI_LABEL, REGRESSION):
        notes = _small_classes(n_parts, pool, class_names)
    if rule.kind == "kfold":
        return _folds(rule, pool, notes)
    part = pool.divide([rule.numbers[i] for i in there])
    return [NamedSplit("", np.array(there, np.uint8)[part], notes)]


def divided_groups(
    split: NDArray[np.integer], groups: NDArray[np.str_] | None
) -> NDArray[np.bool_]:
    """(S,) samples of groups that a split divides; what is LEFT_OUT of it divides nothing.

    Args:
        split: (S,) index into SPLITS, or LEFT_OUT.
        groups: (S,) patients, where known; an empty text is no group.
    """
    if groups is None:
        return np.zeros(len(split), bool)
    names, group = np.unique(groups, return_inverse=True)
    known = split != LEFT_OUT
    seen = np.zeros((len(names), len(SPLITS)), bool)
    seen[group[known], split[known]] = True
    return (seen.sum(axis=1) > 1)[group] & (groups != "")


def continue_split(
    drawn: Drawn,
    earlier: NDArray[np.uint8],
    ids: NDArray[np.str_],
    labels: NDArray[Any],
    groups: NDArray[np.str_] | None = None,
) -> NDArray[np.uint8]:
    """A split that was drawn before, for samples of which some have changed or come to it.

    Who is in it stays, whatever its label is now. Only the others are drawn, stratified, so that
    the whole comes near the rule's shares; a new image of a known patient follows its patient, and
    the samples of patients that the earlier split divides (somebody corrected whose they are) are
    drawn as if they were new.

    Args:
        drawn: how; of shares or one fold, where chance alone decides.
        earlier: (S,) index into SPLITS; LEFT_OUT of what is new.
        ids: (S,) unique.
        labels: as ``make_splits`` takes them.
        groups: (S,) patients, where known.

    Returns:
        (S,) index into SPLITS.
    """
    shares = drawn.rule.shares
    parts = np.array([i for i, share in enumerate(shares) if share])
    place = np.full(LEFT_OUT + 1, -1)
    place[parts] = np.arange(len(parts))
    given = place[np.where(divided_groups(earlier, groups), LEFT_OUT, earlier)]
    unit = np.unique(name_units(ids, groups), return_inverse=True)[1]
    of_unit = np.full(unit.max(initial=-1) + 1, -1)
    of_unit[unit[given >= 0]] = given[given >= 0]
    present = [shares[part] for part in parts]
    found = divide(present, ids, labels, groups, drawn.seed, of_unit[unit])
    return parts[found].astype(np.uint8)


def _folds(rule: SplitRule, pool: _Pool, notes: tuple[str, ...]) -> list[NamedSplit]:
    n_folds = rule.numbers[0]
    fold = pool.divide([1] * n_folds)
    wanted = [rule.numbers[1] - 1] if len(rule.numbers) == 2 else range(n_folds)
    splits = []
    for i in wanted:
        split = np.full(len(fold), TRAIN, np.uint8)
        split[fold == (i + 1) % n_folds] = VAL
        split[fold == i] = TEST
        splits.append(NamedSplit(f"fold {i + 1}/{n_folds}", split, notes))
    return splits


# ---------------------------------------------------------------------------- systematic


def systematic(n: int, k: int) -> NDArray[np.int64]:
    """k of n places, evenly spaced, as Baharoon et al. 2023 pick them.

    Their code is ``np.arange(0, n, n / k).round()``; where rounding of n / k would give one place
    more, beyond the end, it is left out.

    Raises:
        RequestError: k isn't between 0 and n.
    """
    if not 0 <= k <= n:
        raise RequestError(f"{k} of {n} can't be picked")
    return np.arange(0, n, n / k)[:k].round().astype(np.int64) if k else np.empty(0, np.int64)


def _systematic_split(rule: SplitRule, pool: _Pool) -> NDArray[np.uint8]:
    n_test, n_val = rule.numbers
    names, unit = np.unique(name_units(pool.ids, pool.groups), return_inverse=True)
    if n_test + n_val >= len(names):
        raise RequestError(
            f"{rule} leaves none of {len(names)} {pool.what} to train; ask for fewer"
        )
    part = np.full(len(names), TRAIN, np.uint8)
    part[systematic(len(names), n_test)] = TEST
    rest = np.flatnonzero(part == TRAIN)
    part[rest[systematic(len(rest), n_val)]] = VAL
    return part[unit]


# ---------------------------------------------------------------------------- sites


def _sites_out(rule: SplitRule, pool: _Pool, meta: Mapping[str, NDArray[Any]]) -> list[NamedSplit]:
    if rule.column not in meta:
        there = ", ".join(meta) or "none"
        raise RequestError(
            f"no meta column {rule.column!r} for {rule}; there is {there}; if the images stand in a "
            f"table, extract with --meta-cols {rule.column} adds it and keeps the features"
        )
    site = meta_texts(meta[rule.column])
    values = sorted({*site.tolist()} - {""})
    if len(values) < 2:
        raise RequestError(f"{rule} needs two sites and more; {rule.column} has {values}")
    if rule.value is not None and rule.value not in values:
        raise RequestError(f"{rule.column} has no {rule.value!r}; it has {', '.join(values)}")
    wanted = values if rule.value is None else [rule.value]
    return [_site_out(rule.column, value, site, pool) for value in wanted]


def _site_out(column: str, value: str, site: NDArray[np.str_], pool: _Pool) -> NamedSplit:
    groups = pool.groups
    split = np.full(len(site), LEFT_OUT, np.uint8)
    split[site == value] = TEST
    rest = (site != value) & (site != "")
    notes = []
    if n := int((site == "").sum()):
        notes.append(f"{n} samples without {column} are left out")
    if groups is not None:
        both = rest & (groups != "") & np.isin(groups, groups[site == value])
        if n := int(both.sum()):
            notes.append(f"{n} samples elsewhere of groups that are also at {value} are left out")
        rest &= ~both
    if pool.only(rest).n_units < 2:
        raise RequestError(f"without {column} {value} there is too little left to train on")
    split[rest] = pool.only(rest).divide(REST_SHARES)
    return NamedSplit(f"{column} {value}", split, tuple(notes))


def meta_texts(values: NDArray[Any]) -> NDArray[np.str_]:
    """A meta column as texts: numbers as they would be typed, what is missing as ""."""
    if values.dtype.kind != "f":
        return values.astype(np.str_)
    return np.array([_typed(value) for value in values.tolist()], np.str_)


def _typed(value: float) -> str:
    if math.isnan(value):
        return ""
    return str(int(value)) if value.is_integer() else repr(value)


# ---------------------------------------------------------------------------- what is said of a split


def _small_classes(n_parts: int, pool: _Pool, class_names: Sequence[str]) -> tuple[str, ...]:
    """The classes that can't be in every part, named."""
    notes = []
    for c in np.unique(pool.labels[pool.labels >= 0]).tolist():
        n = pool.only(pool.labels == c).n_units
        if n < n_parts:
            name = class_names[c] if c < len(class_names) else f"class {c}"
            notes.append(f"{name} has {n} {pool.what}, too few for each of {n_parts} parts")
    return tuple(notes)


def split_digest(ids: NDArray[np.str_], split: NDArray[np.integer]) -> str:
    """SHA-256 of a split, whatever the order of its samples; 64 hex digits.

    Args:
        ids: (S,) unique.
        split: (S,) index into SPLITS; what is left out doesn't count.
    """
    pairs = zip(np.asarray(ids).tolist(), np.asarray(split).tolist(), strict=True)
    lines = sorted(f"{name}\0{SPLITS[i]}\n" for name, i in pairs if i != LEFT_OUT)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
