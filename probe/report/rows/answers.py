"""What several contenders answered to the same test samples, in one order."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cache.errors import RequestError
from probe.arrays import Array, Indices, Texts
from probe.report.rows.contenders import Contender
from probe.report.rows.people import People
from probe.report.rows.stored import StoredRow
from probe.report.statistics.paired import Answers, Samples


@dataclass(frozen=True)
class TestSet:
    """N test samples, and K contenders' answers to them."""

    __test__ = False  # no test of pytest's

    rows: tuple[StoredRow, ...]  # (K,) the first of each contender here
    ids: Texts  # (N,)
    samples: Samples
    answers: tuple[Answers, ...]  # (K,)
    fold: str = ""
    is_together: bool = False  # whether episodes are the same draws

    @property
    def n_train(self) -> int:
        """Samples that the first contender was fitted on."""
        row = self.rows[0].row
        both = row.answered.settings.get("refit") == "train+val"
        return row.n.get("train", 0) + (row.n.get("val", 0) if both else 0)


def test_sets(contenders: Sequence[Contender], people: People) -> list[TestSet]:
    """The test sets of contenders: one, or one for each fold that all of them were asked on.

    Args:
        contenders: K of one data set, of one block.
        people: that knows the patients.

    Raises:
        RequestError: scores are missing, or of other samples or labels; no fold is common.
    """
    folds = [list(dict.fromkeys(of.row.posed.fold for of in c.rows)) for c in contenders]
    common = [fold for fold in folds[0] if all(fold in of for of in folds[1:])]
    if not common:
        names = ", ".join(c.model for c in contenders)
        raise RequestError(f"{names}: no fold or site was asked of all of them")
    return [_test_set(contenders, fold, people) for fold in common]


test_sets.__test__ = False  # type: ignore[attr-defined]


def _test_set(contenders: Sequence[Contender], fold: str, people: People) -> TestSet:
    rows, found = [], []
    for contender in contenders:
        of_fold = [of for of in contender.rows if of.row.posed.fold == fold]
        rows.append(of_fold[0])
        found.append(_read(of_fold))
    first = found[0]
    answers = []
    for contender, of in zip(contenders, found, strict=True):
        place = _places(contender, of, contenders[0], first)
        answers.append(Answers(of.scores[..., place, :], of.score_type))
    row = rows[0].row
    groups = people.groups_of(row, first.ids)
    are_patients = row.answered.settings.get("scores_of") == "patients"
    samples = Samples(first.labels, row.encoded.task, groups, first.class_names, are_patients)
    drawn = [of.row.answered.settings.get("few_shot", {}).get("digest") for of in rows]
    is_together = drawn[0] is not None and len(set(drawn)) == 1
    return TestSet(tuple(rows), first.ids, samples, tuple(answers), fold, is_together)


@dataclass(frozen=True)
class _Scores:
    ids: Texts
    labels: Array
    scores: Array  # (n, C), of trainings or episodes (S, n, C)
    score_type: str
    class_names: tuple[str, ...]


def _read(rows: Sequence[StoredRow]) -> _Scores:
    """The scores of one row, or of several trainings on the same samples."""
    each = []
    for of in rows:
        arrays = of.scores()
        if "test_scores" not in arrays or not len(arrays["test_ids"]):
            raise RequestError(f"{of.path or of.row.encoded.label}: test wasn't read")
        each.append(arrays)
    first, score_type = each[0], rows[0].row.answered.score_type
    for of, arrays in zip(rows, each, strict=True):
        if not np.array_equal(arrays["test_ids"], first["test_ids"]):
            raise RequestError(
                f"{of.path}: its test samples are other than those of {rows[0].path}"
            )
    n_classes = first["test_scores"].shape[-1]
    names = tuple(map(str, first.get("class_names", range(n_classes))))
    scores = [arrays["test_scores"] for arrays in each]
    if len(scores) > 1 and scores[0].ndim == 3:
        raise RequestError(f"{rows[0].path}: episodes of several trainings can't be compared")
    joined = scores[0] if len(scores) == 1 else np.stack(scores)
    return _Scores(first["test_ids"], first["test_labels"], joined, score_type, names)


def _places(a: Contender, of: _Scores, b: Contender, first: _Scores) -> Indices:
    """Where the first contender's samples stand in another's scores.

    Raises:
        RequestError: they are other samples, or have other labels.
    """
    order = np.argsort(of.ids, kind="stable")
    spots = np.minimum(np.searchsorted(of.ids, first.ids, sorter=order), len(order) - 1)
    places = order[spots]
    who = f"{_named(a)} and {_named(b)} on {a.dataset}"
    alike = of.ids[places] == first.ids
    if len(of.ids) != len(first.ids) or not alike.all():
        both = int(alike.sum())
        raise RequestError(
            f"{who}: test samples are other, {both} are common of {len(of.ids)} and "
            f"{len(first.ids)}; ask both with the same split"
        )
    differs = of.labels[places] != first.labels
    if differs.any():
        n = int(differs.reshape(len(places), -1).any(axis=1).sum())
        raise RequestError(f"{who}: {n} test samples have other labels; ask both again")
    return places


def _named(contender: Contender) -> str:
    return f"{contender.model} (row {contender.first.id[:8]})"
