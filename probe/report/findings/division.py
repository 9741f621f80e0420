"""Which samples are of which split, and what their labels are, as rows were asked of them.

A feature file has a split and labels of its own, and rows may have been asked with others: by
``--split``, ``--split-file``, ``--labels``, or before the file's were corrected. A row keeps the ids
and labels of what it scored; what it learnt from follows from those, as far as anybody knows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cache.errors import RequestError
from cache.format.sample_tables import SPLITS
from cache.task import MISSING, MULTI_LABEL, SEGMENTATION
from probe.arrays import Array, Bools, Indices, Texts
from probe.report.rows.contenders import Contender
from probe.report.rows.people import People, Unfound
from probe.report.rows.stored import StoredRow

if TYPE_CHECKING:
    from cache.features import Features  # h5py takes a while

TRAIN, VAL, TEST = SPLITS
OF_A_TABLE = "file"  # the rule of splits that may leave samples out
MOST_READ = 8  # rows, whose scores are looked into for what the others don't keep
CHANGED = "as rows were asked, before the file's split or labels changed"


@dataclass(frozen=True)
class Members:
    """The samples of a split that have a label."""

    ids: Texts  # (n,)
    labels: Array  # (n,) or (n, C)


@dataclass(frozen=True)
class Division:
    """The samples of a feature file as rows of one test set were asked of them."""

    features: Features  # with that split and these labels; "" is the split of what is in none
    name: str  # in words; "": as stored
    n: Mapping[str, int]  # samples of each split, of folds of all their tests
    known: tuple[str, ...]  # splits whose samples are known one by one
    is_stored: bool = False
    n_folds: int = 1  # or sites, whose test sets stand together

    @property
    def notes(self) -> tuple[str, ...]:
        """What the file says of its data, but for a split that these rows weren't asked with."""
        said = map(str, self.features.notes.get("data") or ())
        return tuple(words for words in said if self.is_stored or not words.startswith("split: "))

    def over(self, file: Features) -> Features:
        """Another encoder's file of the same samples, as these were asked."""
        if self.is_stored:
            return file
        own = self.features
        order = np.argsort(own.ids)
        place = order[np.minimum(np.searchsorted(own.ids, file.ids, sorter=order), len(order) - 1)]
        split = np.where(own.ids[place] == file.ids, own.split[place], "")
        return file.laid_over(split, own.labels[place], own.task, own.class_names)


def divisions(contenders: Sequence[Contender], people: People) -> list[Division]:
    """How the samples of one data set were divided, that of the most contenders first.

    Those of which no feature file is there are left out.

    Args:
        contenders: of that data set.
        people: that knows feature files.
    """
    found: dict[tuple[str, str], list[Contender]] = defaultdict(list)
    for c in contenders:
        trained = c.first.row.posed.trained_on
        found[c.first.row.test_set, trained.dataset if trained else ""].append(c)
    each = (divide(of, people) for of in sorted(found.values(), key=len, reverse=True))
    return [division for division in each if division is not None]


def tested(contenders: Sequence[Contender], people: People) -> Features | None:
    """A feature file whose test samples are those that most rows were asked of; of folds there is
    none, and of masks none whose labels were asked.

    Args:
        contenders: of one data set.
        people: that knows feature files.
    """
    if all(c.first.row.encoded.task == SEGMENTATION for c in contenders):
        return None
    found = (of for of in divisions(contenders, people) if TEST in of.known and of.n_folds == 1)
    return next((of.features for of in found), None)


def divide(contenders: Sequence[Contender], people: People) -> Division | None:
    """How samples were divided; None where no feature file has them.

    Args:
        contenders: of one test set, at least one.
        people: that knows feature files.
    """
    rows = [of for c in contenders for of in c.rows]
    features = _file(rows, people)
    if features is None:
        return None
    if is_stored(rows[0], features):
        n = {split: int((features.split == split).sum()) for split in SPLITS}
        return Division(features, "", n, tuple(s for s in SPLITS if n[s]), is_stored=True)
    folds: dict[str, list[StoredRow]] = defaultdict(list)
    for of in rows:
        folds[of.row.posed.fold].append(of)
    each = [_joined(of, features) for of in folds.values()]
    if len(each) == 1:
        members, arrays = each[0]
        n = _sizes(folds.popitem()[1])
    else:  # whose trains overlap
        arrays = next((a for _, a in each if a), {})
        tests = [m[TEST] for m, _ in each if TEST in m]
        members = {} if len(tests) < len(each) else {TEST: _together(tests)}
        n = {TEST: sum(_sizes(of).get(TEST, 0) for of in folds.values())}
    return _laid(rows[0], features, members, arrays, n, len(each))


def _file(rows: Sequence[StoredRow], people: People) -> Features | None:
    """A feature file with the samples, one whose own split and labels were asked, if there is one."""
    found = None
    for of in {of.row.encoded.digest: of for of in reversed(rows)}.values():
        try:
            features = people.file_of(of.row)
        except Unfound:
            continue
        if found is None or is_stored(of, features):
            found = features
    return found


def is_stored(of: StoredRow, features: Features) -> bool:
    """Whether a row's split and labels are those that a file of its data set has now."""
    row, tables = of.row, features.header.tables
    if row.posed.split or row.posed.target or row.posed.trained_on:
        return False
    return all(row.encoded.samples.get(n) == tables[f"samples/{n}"] for n in ("labels", "split"))


def _sizes(rows: Sequence[StoredRow]) -> dict[str, int]:
    """Samples of each split of this data set, by rows of one split."""
    full = [of for of in rows if of.row.answered.shots is None]
    has_train = full and not rows[0].row.posed.trained_on  # episodes learnt from some of it
    splits = SPLITS if has_train else (TEST,)
    return {split: max(of.row.n.get(split, 0) for of in full or rows) for split in splits}


def _joined(
    rows: Sequence[StoredRow], features: Features
) -> tuple[dict[str, Members], Mapping[str, Array]]:
    """What rows of one split know together, and the arrays of one of them."""
    wanted = {split for split, n in _sizes(rows).items() if n}
    found: dict[str, Members] = {}
    arrays: Mapping[str, Array] = {}
    for of in sorted(rows, key=_telling)[:MOST_READ]:
        try:
            read = of.scores()
        except RequestError:  # another row may tell
            continue
        more = {s: m for s, m in members_of(of, read, features).items() if s in wanted - set(found)}
        found |= more
        arrays = arrays or (read if more else {})
        if wanted <= set(found):
            break
    return found, arrays


def _telling(of: StoredRow) -> tuple[bool, ...]:
    """Rows that keep the most samples first."""
    settings = of.row.answered.settings
    return (
        settings.get("scores_of") == "patients",
        of.row.answered.shots is not None,
        not of.row.measured.test,
        "folds" not in settings,
    )


def _together(parts: Sequence[Members]) -> Members:
    """The samples of several test sets, each once."""
    ids, first = np.unique(np.concatenate([of.ids for of in parts]), return_index=True)
    return Members(ids, np.concatenate([of.labels for of in parts])[first])


def _laid(
    first: StoredRow,
    features: Features,
    members: Mapping[str, Members],
    arrays: Mapping[str, Array],
    n: Mapping[str, int],
    n_folds: int,
) -> Division:
    row, own = first.row, features.header.tables["samples/labels"]
    has_own = not row.posed.target and row.encoded.samples.get("labels") == own
    labels, names = features.labels, tuple(features.class_names)
    parts = list(members.values())
    if not has_own and parts:
        names = tuple(map(str, arrays["class_names"]))
        like = parts[0].labels
        nobody_knows = np.nan if like.dtype.kind == "f" else MISSING
        labels = np.full((len(features.ids), *like.shape[1:]), nobody_knows, like.dtype)
    split = np.full(len(features.ids), "", features.split.dtype)
    known = []
    for name, of in members.items():
        places = places_of(features, of.ids)
        split[places] = name
        if not has_own:
            labels[places] = of.labels
        known += [name]
    task = row.encoded.task
    if task == SEGMENTATION:  # which structures each sample has
        labels, task = np.where(labels < 0, MISSING, labels > 0), MULTI_LABEL
    laid = features.laid_over(split, labels, task, names)
    return Division(
        laid, _words(first, n_folds), n, tuple(s for s in SPLITS if s in known), False, n_folds
    )


def _words(of: StoredRow, n_folds: int) -> str:
    posed = of.row.posed
    folds = f"test sets of {n_folds} folds or sites together" if n_folds > 1 else posed.fold
    words = [posed.split_words, folds]
    words.append(f"labels {posed.target_words}" if posed.target_words else "")
    words.append(f"test of what learnt from {posed.trained_on.dataset}" if posed.trained_on else "")
    return ", ".join(filter(None, words)) or CHANGED


def members_of(
    of: StoredRow, arrays: Mapping[str, Array], features: Features
) -> dict[str, Members]:
    """The samples of each split that a row was asked with, as far as it says so.

    Args:
        of: the row.
        arrays: its scores.
        features: a file of its data set; of external data for test its own, for train and val that
            of the data it learnt from.
    """
    row, settings = of.row, of.row.answered.settings
    if is_stored(of, features):
        found = {split: features.split == split for split in SPLITS}
        known = known_labels(features.labels)
        return {split: _taken(features, here & known) for split, here in found.items()}
    there: dict[str, Members] = {}
    for split in SPLITS:
        if len(arrays.get(f"{split}_ids", ())):
            there[split] = Members(arrays[f"{split}_ids"], arrays[f"{split}_labels"])
    if settings.get("scores_of") == "patients":
        there = _samples_of(there, of, features)
    if VAL in there and "folds" in settings:  # train, and val behind it
        both, n = there[VAL], row.n[TRAIN]
        there |= {TRAIN: _part(both, slice(None, n)), VAL: _part(both, slice(n, None))}
    # Of a split that was drawn, train is what isn't held out: where both others are kept, and nothing
    # was left out.
    posed = row.posed
    is_drawn = bool(posed.split) and posed.split.get("rule") != OF_A_TABLE
    is_told = is_drawn and all(s in there or not row.n.get(s) for s in (VAL, TEST))
    if TRAIN not in there and is_told and not (posed.target or posed.trained_on):
        held_out = [there[split].ids for split in (VAL, TEST) if split in there]
        rest = known_labels(features.labels) & ~np.isin(features.ids, np.concatenate(held_out))
        if row.answered.shots is not None or rest.sum() == row.n[TRAIN]:
            there[TRAIN] = _taken(features, rest)
    return there


def _part(of: Members, kept: slice) -> Members:
    return Members(of.ids[kept], of.labels[kept])


def _taken(features: Features, which: Bools | Indices) -> Members:
    return Members(features.ids[which], features.labels[which])


def _samples_of(
    patients: Mapping[str, Members], of: StoredRow, features: Features
) -> dict[str, Members]:
    """The samples of patients, those who come first first; nothing where it can't be told."""
    row = of.row
    by_folds = "folds" in row.answered.settings
    if by_folds and (row.posed.leaks or {}).get("val_groups") != 0:
        patients = {split: of for split, of in patients.items() if split == TEST}
    if row.posed.target or features.groups is None:
        return {}
    names = np.where(features.groups == "", features.ids, features.groups)
    known, found = known_labels(features.labels), {}
    for split, members in patients.items():
        order = np.argsort(members.ids)
        spots = np.searchsorted(members.ids, names, sorter=order)
        place = order[np.minimum(spots, len(order) - 1)]
        samples = np.flatnonzero(known & (members.ids[place] == names))
        n = row.n[split]
        n += row.n[TRAIN] if split == VAL and by_folds else 0
        if len(samples) == n:  # else some of a patient's are in another split
            found[split] = _taken(features, samples[np.argsort(place[samples], kind="stable")])
    return found


def known_labels(labels: Array) -> Bools:
    """(S,) whether anything is known of a sample."""
    if labels.dtype.kind == "f":
        return ~np.isnan(labels)
    return np.asarray((labels >= 0) if labels.ndim == 1 else (labels >= 0).any(axis=1), bool)


def places_of(features: Features, ids: Texts) -> Indices:
    """(n,) which sample of a file each id is.

    Raises:
        RequestError: some aren't there.
    """
    order = np.argsort(features.ids)
    found = order[np.minimum(np.searchsorted(features.ids, ids, sorter=order), len(order) - 1)]
    if not np.array_equal(features.ids[found], ids):
        raise RequestError(f"{features.path} hasn't all samples of the row; ask the probe anew")
    return found
