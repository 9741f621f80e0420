"""Choosing among candidates - strengths, k, layers, pools - without a look at test.

By val: every candidate is fitted on train, and val decides. By cross-validation: train and val are
one pool, divided into folds; each fold is answered by what was fitted on the others, and the pooled
answers decide: by the mean loss over samples, or where that is one of ranks by it of them all. Then the chosen one is fitted again, by default on all that the choice has seen.

A small val is a bad judge of many candidates. On BreastMNIST (78 val images), 24 layers and pools
times 13 strengths chosen on val look like an AUC of .923 and are .850 on test; chosen by five folds
they are .866, and the last layer alone is .858. So val decides where it is large, folds elsewhere.

Candidates come with the strongest regularisation first, and the first of equals is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cache.commands.settings import check, setting
from cache.errors import RequestError
from cache.splits.strata import count_units, divide, name_units
from cache.task import MISSING, MULTI_LABEL, REGRESSION
from probe.arrays import Array, Bools, Doubles, Floats, Indices, Texts
from probe.metrics.losses import judged_by
from probe.questions.question import Question, Split, has_groups, join, pick

HELD_OUT = "train+val"  # what scores out of fold are named, beside "val" and "test"
N_FOLDS = 5
FOLD_SEED = 0  # not the row's: the bootstrap's seed must not change what is chosen


CHOOSE = ("auto", "val", "cv")
REFIT = ("train", "train+val")
FEW = 500  # val samples: with fewer, and
FEW_OF_A_CLASS = 50  # with fewer of some class, --choose auto takes folds


@dataclass(frozen=True)
class ChoosingConfig:
    """How candidates are compared, and what the chosen one is fitted on.

    Raises:
        RequestError: a word that is none of ``CHOOSE`` or ``REFIT``.
    """

    how: str = setting(
        "auto",
        "on val, or by five folds of train and val, no patient or copy divided; auto: folds where "
        f"val has under {FEW} samples, or under {FEW_OF_A_CLASS} of some class",
        flag="--choose",
        among=CHOOSE,
    )
    refit: str | None = setting(
        None,
        "what the chosen one is fitted on",
        among=REFIT,
        shown="train where val decides, train+val after folds",
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Plan:
    """How one question's candidates are compared. n samples of train and val together."""

    train: Split
    val: Split
    fold: Indices | None  # (n,) of train, then val; None: val decides
    refit: str  # one of REFIT
    # Folds keep patients together: the checksum of their names, for the row; None: nobody knows any.
    groups: int | None = None
    n_copies: int = 0  # samples that folds keep together because they are copies of one another
    why: str = ""  # --choose auto decided, and not for the usual reason

    def rounds(self) -> Iterator[tuple[Split, Split]]:
        """What to fit on and what to answer then: train and val, or each fold's."""
        if self.fold is None:
            yield self.train, self.val
            return
        pool = join(self.train, self.val)
        for held_out in range(N_FOLDS):
            yield pick(pool, self.fold != held_out), pick(pool, self.fold == held_out)

    @property
    def n_held_out(self) -> list[int]:
        """Samples that each round answers; empty where there are none."""
        if self.fold is None:
            return [len(self.val)] if len(self.val) else []
        return np.bincount(self.fold, minlength=N_FOLDS).tolist()

    @property
    def n_fitted(self) -> int:
        """Samples of the smallest set that is fitted to."""
        n_train, n = len(self.train), len(self.train) + len(self.val)
        if self.fold is None:
            return n_train
        of_rounds = n - max(self.n_held_out)
        return min(n_train, of_rounds) if self.refit == "train" else of_rounds

    def gather(self, scores: Sequence[Doubles]) -> Doubles:
        """The rounds' scores in one array, in the order of val, or of train and then val."""
        if self.fold is None:
            return scores[0]
        gathered = np.empty((len(self.fold), *scores[0].shape[1:]), scores[0].dtype)
        for held_out, part in enumerate(scores):
            gathered[self.fold == held_out] = part
        return gathered

    @property
    def is_refitted(self) -> bool:
        """Whether the chosen one is fitted once more, on other samples than any round's."""
        return self.fold is not None or self.refit != "train"

    @property
    def final(self) -> Split:
        """What the chosen one is fitted on."""
        return self.train if self.refit == "train" else join(self.train, self.val)

    @property
    def held_out(self) -> Split:
        """What the rounds answered, in the order of ``gather``."""
        return self.val if self.fold is None else join(self.train, self.val)

    @property
    def held_out_name(self) -> str:
        return "val" if self.fold is None else HELD_OUT

    @property
    def rounds_settings(self) -> dict[str, Any]:
        """What the row's question holds of the rounds; nothing where train is fitted and val asked.

        Folds follow from ids, labels and split, which are in the question already, and from
        patients and copies, which are not: a file made to share has no hashes to tell copies by.
        """
        folds = {}
        if self.fold is not None:
            patients = {} if self.groups is None else {"groups": self.groups}
            copies = {"copies": self.n_copies} if self.n_copies else {}
            folds = {"folds": {"n": N_FOLDS, "seed": FOLD_SEED, **patients, **copies}}
        return {**folds, **({} if self.refit == "train" else {"refit": self.refit})}

    def settings(self, loss: str) -> dict[str, Any]:
        """``rounds_settings``, and by which loss one of several candidates was chosen."""
        judge = "val" if self.fold is None else judged_by(loss)
        return {"chosen_by": f"{judge} {loss}", **self.rounds_settings}

    def said(self, choice: Choice, loss: str) -> dict[str, Any]:
        """What the row says of the choice: each candidate's loss, and how often it won."""
        name = loss.replace(" ", "_").replace("-", "_")
        if self.fold is None:
            return {f"val_{name}": choice.losses.tolist()}
        return {f"out_of_fold_{name}": choice.losses.tolist(), "wins": choice.wins.tolist()}

    @property
    def marks(self) -> list[str]:
        if self.fold is None:
            refit = [] if self.refit == "train" else ["fitted on train and val"]
            return [*refit, *([self.why] if self.why else [])]
        kept = [*(["patient"] if self.groups is not None else [])]
        kept += ["copy"] if self.n_copies else []
        keeping = f", no {' or '.join(kept)} divided" if kept else ""
        return [
            f"compared by {N_FOLDS} folds of train and val{keeping} ({len(self.val)} val samples), "
            f"then fitted on {self.refit.replace('+', ' and ')}; val numbers are out of fold"
        ]


def as_val(
    splits: Mapping[str, Split], scores: dict[str, Doubles]
) -> tuple[Mapping[str, Split], dict[str, Doubles]]:
    """Answers out of fold stand in the place of val's: what they answer is all of train and val."""
    if HELD_OUT not in scores:
        return splits, scores
    pool = join(splits["train"], splits["val"])
    return {**splits, "val": pool}, {"val": scores[HELD_OUT], "test": scores["test"]}


def make_plan(
    config: ChoosingConfig, question: Question, splits: Mapping[str, Split], n_candidates: int
) -> Plan:
    """How to choose among the candidates of one question.

    Args:
        config: the wish.
        question: the samples that are fitted and chosen on.
        splits: their train and val, as ``probe.questions.question.divide_samples`` makes them.
        n_candidates: with one there is nothing to choose, and "auto" leaves val alone.

    Raises:
        RequestError: val has no samples and is needed, or folds can't be made.
    """
    train, val = splits["train"], splits["val"]
    why, folds = "", None
    is_few = n_candidates > 1 and has_few(train, val, question.task.word)
    if config.how == "cv" or (config.how == "auto" and is_few):
        try:
            folds = make_folds(question, join(train, val))
        except RequestError as error:
            if config.how == "cv" or not len(val):
                raise
            why = f"chosen on {len(val)} val samples: {error}"
    elif n_candidates > 1 and not len(val):
        raise RequestError(
            f"{question.title} has no val images to choose on, and nothing is chosen on test; "
            "--choose cv divides train into folds"
        )
    refit = config.refit or ("train" if folds is None else "train+val")
    groups = question.features.header.tables["samples/groups"] if has_groups(train) else None
    n_copies = 0 if folds is None else int(_is_copied(question, join(train, val)).sum())
    return Plan(train, val, folds, refit, groups, n_copies, why)


def has_few(train: Split, val: Split, task: str) -> bool:
    """Whether val is too small to choose on: under 500 samples, or under 50 of some class.

    Of several labels only the samples count: the loss is a mean over labels, and a rare one's has
    next to no say in it.
    """
    if len(val) < FEW:
        return True
    if task in (REGRESSION, MULTI_LABEL):
        return False
    n_classes = int(max(train.y.max(initial=0), val.y.max())) + 1
    n_train, n_val = (np.bincount(part.y, minlength=n_classes) for part in (train, val))
    return bool((n_val[n_train + n_val > 0] < FEW_OF_A_CLASS).any())


def make_folds(question: Question, pool: Split) -> Indices:
    """The fold of each sample: stratified by label, no patient and no exact copies divided.

    Copies that are divided are answered by heart. Near twins are divided, though they tell too:
    on BreastMNIST, where 164 of 624 train and val images are near twins of another, out-of-fold AUC
    of a ViT-S's last layer is .856 to .868 with them divided and .830 to .843 without. But groups
    of near twins have no bound: slices of one scan make a chain of all.

    Chance is of ids and ``FOLD_SEED``, so that every encoder of a data set is asked the same.

    Args:
        question: whose samples they are.
        pool: train and val.

    Returns:
        (n,) 0 to N_FOLDS - 1.

    Raises:
        RequestError: too few samples or patients, or a fold that leaves one class to fit on.
    """
    groups = _kept_together(question, pool)
    if (n := count_units(pool.ids, groups)) < N_FOLDS:
        what = "patients" if has_groups(pool) else "samples"
        raise RequestError(f"{N_FOLDS} folds need as many {what}, found {n} in train and val")
    fold = divide([1] * N_FOLDS, pool.ids, pool.y, groups, FOLD_SEED)
    for held_out in range(N_FOLDS):
        _check_fold(question, pool.y[fold != held_out])
    return fold


def _copies(question: Question, pool: Split) -> Indices:
    """(n,) a number for each sample, the same for exact copies; all different where nobody knows."""
    numbers, ids = question.features.copies, question.features.ids
    if numbers is None:
        return np.arange(len(pool))
    order = np.argsort(ids)
    return numbers[order[np.searchsorted(ids, pool.ids, sorter=order)]]


def _is_copied(question: Question, pool: Split) -> Bools:
    """(n,) the samples that have an exact copy in the pool."""
    _, place, counts = np.unique(_copies(question, pool), return_inverse=True, return_counts=True)
    return counts[place] > 1


def _kept_together(question: Question, pool: Split) -> Texts | None:
    """(n,) patients, joined where they share a copy; without copies as they are.

    What is joined is named by the smallest name in it, so that the order of rows doesn't matter.
    """
    copied = _is_copied(question, pool)
    if not copied.any():
        return pool.groups
    names, unit = np.unique(name_units(pool.ids, pool.groups), return_inverse=True)
    copy = np.unique(_copies(question, pool), return_inverse=True)[1]
    smallest = unit
    while True:  # a copy joins two patients, one of whom another copy joins with a third
        by_copy = _smallest_of(smallest, copy)
        by_unit = _smallest_of(by_copy, unit)
        if np.array_equal(by_unit, smallest):
            break
        smallest = by_unit
    is_joined = np.isin(smallest, smallest[smallest != unit])
    alone = np.full(len(pool), "") if pool.groups is None else pool.groups
    return np.where(is_joined, np.char.add("copies ", names[smallest]), alone)


def number_units(question: Question, pool: Split) -> Indices:
    """(n,) number of what folds keep together, from 0: a sample, a patient, copies."""
    names = name_units(pool.ids, _kept_together(question, pool))
    return np.unique(names, return_inverse=True)[1]


def _smallest_of(values: Indices, thing: Indices) -> Indices:
    """(n,) the smallest value among those of the same thing."""
    least = np.full(thing.max() + 1, values.max())
    np.minimum.at(least, thing, values)
    return least[thing]


def _check_fold(question: Question, labels: Array) -> None:
    """Refuse a fold whose others can't be fitted to."""
    if question.task.is_continuous:
        return
    if question.task.has_several_labels:
        unknown = (labels == MISSING).all(axis=0)
        if unknown.any():
            name = question.task.class_names[int(unknown.argmax())]
            raise RequestError(f"without one of {N_FOLDS} folds nothing is known of {name}")
    elif len(np.unique(labels)) < 2:
        raise RequestError(
            f"without one of {N_FOLDS} folds only {question.task.class_names[labels[0]]} is left to fit on"
        )


# ---------------------------------------------------------------------------- fitted candidates


class Choice(NamedTuple):
    """Which candidate it is, and how clear that was."""

    place: int
    losses: Doubles  # (candidates,) mean over all held-out samples
    wins: NDArray[np.int64]  # (candidates,) rounds in which each had the smallest loss


def choose(losses: Floats, sizes: Sequence[int]) -> Choice:
    """Take the candidate with the smallest mean loss, the first of equals.

    Args:
        losses: (K, candidates) mean loss of each candidate in each of K rounds, the strongest
            regularisation first.
        sizes: (K,) held-out samples of each round: what its mean weighs.

    Raises:
        RequestError: no candidates, or a loss that is nan.
    """
    losses = np.asarray(losses, np.float64)
    if losses.ndim != 2 or not losses.size:
        raise RequestError(f"a choice needs losses (rounds, candidates), found {losses.shape}")
    if np.isnan(losses).any():
        raise RequestError(f"candidate {np.isnan(losses).any(axis=0).argmax()} has no loss")
    mean = np.average(losses, axis=0, weights=sizes)
    wins = np.bincount(losses.argmin(axis=1), minlength=losses.shape[1])
    return Choice(int(mean.argmin()), mean, wins)


class Fitted(Protocol):
    """Candidates that were fitted to the same samples, the strongest regularisation first."""

    def losses(self, x: Floats, y: Array) -> Doubles:
        """(candidates,) mean loss of each on (Q, D) features and their labels."""
        ...

    def scores(self, x: Floats, place: int) -> Doubles:
        """(Q, C) scores of one candidate."""
        ...


LossOfScores = Callable[[Doubles, Array], float]  # of (n, C) and labels


class Chosen(NamedTuple):
    """The chosen candidate, and what it says of samples it wasn't fitted to."""

    choice: Choice
    fitted: Any  # a Fitted, on what the plan fits last; scores(x, choice.place) answers
    held_out: Doubles  # (n, C) in the order of Plan.held_out

    def scores(self, x: Floats) -> Doubles:
        """(Q, C) the chosen one's scores."""
        return self.fitted.scores(x, self.choice.place)


def fit_and_choose(
    plan: Plan,
    fit: Callable[[Split], Fitted],
    n_candidates: int,
    ranked_loss: Callable[[Any], LossOfScores | None],
) -> Chosen:
    """Fit every candidate in every round, choose one, and fit it on what the plan says.

    Args:
        plan: the rounds; features are read twice in each.
        fit: fits every candidate to a split, always in the same order.
        n_candidates: how many there are.
        ranked_loss: of what was fitted, the loss of one candidate's scores, where it is one of ranks;
            None: a mean over samples, which the fitted one takes itself.
    """
    fitted = [fit(fit_on) for fit_on, _ in plan.rounds()]

    def answers(place: int) -> Doubles:
        rounds = zip(fitted, plan.rounds(), strict=True)
        return plan.gather([one.scores(held_out.x, place) for one, (_, held_out) in rounds])

    choice = Choice(0, np.empty(0), np.empty(0, np.int64))  # of one candidate, without val
    ranked = ranked_loss(fitted[0])
    if ranked and n_candidates > 1:
        pooled = [ranked(answers(i), plan.held_out.y) for i in range(n_candidates)]
        choice = choose(np.array([pooled]), [len(plan.held_out)])
    elif not ranked and plan.n_held_out:
        losses = [
            one.losses(held_out.x, held_out.y)
            for one, (_, held_out) in zip(fitted, plan.rounds(), strict=True)
        ]
        choice = choose(np.stack(losses), plan.n_held_out)
    last = fit(plan.final) if plan.is_refitted else fitted[0]
    return Chosen(choice, last, answers(choice.place))
