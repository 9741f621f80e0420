"""k-nearest-neighbour probe: exact search, then a vote among the neighbours' labels.

The default follows Wu et al. 2018 (https://arxiv.org/abs/1805.01978): cosine similarity and a
vote weighted by exp(similarity / temperature). DINOv2 keeps its temperature, 0.07, and reports
k = 10, 20, 100 and 200. Doerrich et al. 2024 (https://arxiv.org/abs/2404.15786) is
``Knn(k=(11,), metric="euclidean")``: raw features and one vote for each neighbour. Huix et al.
2024 (``defaults/trainer.py`` of their release) is ``Knn(k=(200,), temperature=0.1)``: their
exp(similarity / temperature), divided by its sum, is the same softmax by another name.

Of several labels at once the weighted vote is a weighted mean of the neighbours' labels, and
``vote="mlknn"`` Zhang and Zhou's ML-kNN, see ``probe.solvers.mlknn``.

One search, at the largest k, serves every k.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cache.commands.names import format_bytes
from cache.commands.settings import check, given, setting
from cache.commands.terminal import split_words
from cache.errors import RequestError
from cache.task import Task
from probe.answer import Answer
from probe.arrays import Array, Doubles, Floats
from probe.choosing.in_episode import (
    TooFewError,
    by_patient_settings,
    count_units,
    mark_of,
    said_of,
    units_of,
)
from probe.choosing.plan import N_FOLDS, Choice, Plan, choose, number_units
from probe.episodes.prior import class_shares
from probe.kinds.kind import Episodes, Kind, Problem
from probe.metrics.calibration import Votes
from probe.metrics.classification import UNNORMALISED
from probe.metrics.losses import loss_name, loss_of
from probe.questions.question import Question, Split, n_to_fit, pick
from probe.solvers.faiss_library import faiss_versions
from probe.solvers.knn import ByK, Voting, largest_k, left_out_scores, scores
from probe.solvers.neighbours import METRICS, bytes_held
from probe.solvers.votes import MLKNN, VOTES

AUTO = "auto"  # of --k
USUAL = (10, 20, 100, 200)
LARGE_K = 0.1  # of the training set: a larger k asks most of the images, not the near ones
TOLD_BYTES = 10**9  # of memory that a search takes; less is not worth a line
K_OF_EPISODES = (1, 3, 5, 11, 21)  # one of which a few-shot episode may choose


def _read_k(text: str) -> tuple[bool, tuple[int, ...]]:
    """ "auto:1,5" as True and (1, 5); "auto" as True and (): one of a list is to be chosen."""
    word, colon, listed = text.partition(":")
    is_auto = word.strip() == AUTO
    if is_auto and not colon:
        return True, ()
    words = split_words("--k", listed if is_auto else text)
    return is_auto, tuple(map(int, words))


@dataclass(frozen=True)
class Knn(Voting, Kind):
    """A vote among the nearest training images, by exact search.

    Raises:
        RequestError: k is empty, below 1 or named twice; an unknown metric or vote; a weighted
            vote on Euclidean distances; a temperature that isn't positive and finite; a published
            fault of a vote that has none.
    """

    k: tuple[int, ...] = setting(
        USUAL,  # DINOv2's
        f"numbers of neighbours, comma separated ({','.join(map(str, USUAL))}; with --shots 1); "
        f"{AUTO}: the best of these without test, {AUTO}:1,5,25 of others; with --shots each "
        f"episode's own, by leaving one out ({','.join(map(str, K_OF_EPISODES))})",
        least=1,
        unlike=True,
        takes="numbers from 1 up, each once",
        read=_read_k,
        shown="",
    )
    metric: str = setting(
        "cosine", "by which neighbours are near", among=METRICS
    )  # "euclidean" is on raw features
    vote: str | None = setting(
        None,
        "weighted by exp(similarity / temperature), one vote each, or of several labels Zhang & "
        "Zhou's ML-kNN",
        among=VOTES,
        shown="weighted; majority with --metric euclidean",
    )
    temperature: float = setting(0.07, "of the weighted vote", above=0)  # Wu et al.'s
    one_k: bool = False  # answer for one of k alone, the best without test; else for each
    self_counts: bool = False  # of mlknn: count a bank row among its own neighbours, as published
    # Of the weighted vote: shares of the largest k's weights, cut off at each smaller one, as
    # DINOv2 publishes it (eval/knn.py); see ``scores``.
    cut_off: bool = False

    name = "knn"
    section = "kinds knn and segment-knn"
    candidate = "k"
    takes_numbers = True
    refits = True

    def __post_init__(self) -> None:
        check(self)
        if self.metric == "euclidean" and self.vote == "weighted":
            raise RequestError(
                "the weighted vote needs cosine similarities, found euclidean: distances have no "
                "common scale for a temperature; use the majority vote or the cosine metric"
            )
        if self.self_counts and self.vote != MLKNN:
            raise RequestError(f"only --vote {MLKNN} counts neighbours of the bank's own rows")
        if self.cut_off and (self.rule != "weighted" or self.one_k):
            raise RequestError(
                "only the weighted vote is cut off at each k, and none of k is chosen then; leave out "
                "--as-published"
            )

    @classmethod
    def read(cls, options: argparse.Namespace, base: Mapping[str, Any]) -> Knn:
        typed = given(options, cls)
        is_auto, k = typed.pop("k", (False, ()))
        if is_auto:
            typed["one_k"] = True
        # An episode has few images: the nearest one, or a choice among few.
        if not k and options.shots and "k" not in base:
            k = K_OF_EPISODES if is_auto else (1,)
        knn = cls(**{**base, **typed, **({"k": k} if k else {})})
        if "temperature" in typed and knn.rule != "weighted":
            raise RequestError(f"--temperature belongs to the weighted vote, not to {knn.rule}")
        return knn

    @property
    def voting(self) -> dict[str, Any]:
        """What a row's question holds, beside k."""
        return {
            "metric": self.metric,
            "vote": self.rule,
            **({"temperature": self.temperature} if self.rule == "weighted" else {}),
            **({"self_counts": True} if self.self_counts else {}),
            # The other numbers of neighbours change nothing, else.
            **({"cut_off_from": max(self.k), "score_type": UNNORMALISED} if self.cut_off else {}),
        }

    # ------------------------------------------------------------ answers

    def answer(self, problem: Problem) -> Iterator[Answer]:
        """One answer for each k that the training images allow, or for the best of these.

        One search serves them all.
        """
        plan = problem.plan(len(self.k) if self.one_k else 1)
        fitting = tuple(k for k in self.k if k + self.n_needed <= plan.n_fitted)
        if not fitting:
            return
        if self.one_k:  # the first of equals is taken: the most neighbours, the smoothest vote
            fitting = tuple(sorted(fitting, reverse=True))
        knn, task = replace(self, k=fitting), problem.task
        by_k, test = knn._ask(plan, problem.splits["test"].x, task)
        common, said, answered = {**knn.voting, **plan.rounds_settings}, {}, fitting
        if self.one_k:
            loss = loss_name(task.word)
            common |= {"k_among": list(fitting), **plan.settings(loss)}
            choice = knn._choose(plan, by_k, task)
            answered = (fitting[choice.place],)
            said = {"k": answered[0], **plan.said(choice, loss)}
        n_bank = len(plan.final)
        left_out = knn._left_out(problem, answered) if problem.keeps_left_out(plan) else {}
        for k in answered:
            marks = list(plan.marks)
            if k > LARGE_K * n_bank:
                marks.append(f"k is {k / n_bank:.0%} of the {n_bank} training images")
            if self.one_k and len(fitting) > 1 and k in (fitting[0], fitting[-1]):
                marks.append(f"the chosen k {k} is the end of the list")
            yield Answer(
                {**({} if self.one_k else {"k": k}), **common},
                said,
                {plan.held_out_name: by_k[k], "test": test[k]},
                marks,
                self.votes(k, plan.final.y, task),
                left_out=left_out.get(k),
            )

    def _left_out(self, problem: Problem, ks: tuple[int, ...]) -> ByK:
        """k -> (n, C) scores of train, each by others than its own patient and copies.

        Without k of which these leave fewer; empty of ML-kNN, which would learn anew for each sample.
        """
        train, task = problem.splits["train"], problem.task
        units = number_units(problem.fitted_on, train)
        fitting = tuple(k for k in ks if k <= largest_k(self, units))
        # Where votes are cut off, the largest k is a part of all.
        if self.rule == MLKNN or not fitting or (self.cut_off and fitting != ks):
            return {}
        knn = replace(self, k=fitting)
        return left_out_scores(knn, train.x, train.y, units, task.word, task.n_outputs)

    def votes(self, k: int, bank_labels: Array, task: Task) -> Votes | None:
        """What its scores are shares of; ML-kNN smooths by itself, and numbers have no shares."""
        if task.is_continuous or self.rule == MLKNN:
            return None
        return Votes(k, class_shares(bank_labels, task))

    def _loss(self, scores: Doubles, labels: Array, k: int, bank: Split, task: Task) -> float:
        """Of answers by k neighbours in a bank."""
        return loss_of(scores, labels, task.word, votes=self.votes(k, bank.y, task))

    def _choose(self, plan: Plan, by_k: ByK, task: Task) -> Choice:
        """The k with the smallest loss on what the plan holds out, of equals the first."""
        labels = plan.held_out.y
        if not len(labels):  # one k, and no val: the plan refuses more
            return Choice(0, np.empty(0), np.empty(0, np.int64))
        fold = np.zeros(len(labels), np.intp) if plan.fold is None else plan.fold
        losses = []
        for part, (bank, _) in enumerate(plan.rounds()):
            own = fold == part
            losses.append([self._loss(by_k[k][own], labels[own], k, bank, task) for k in self.k])
        return choose(np.array(losses), plan.n_held_out)

    def _ask(self, plan: Plan, test: Floats, task: Task) -> tuple[ByK, ByK]:
        """What the plan holds out, and test; one search where both ask the same bank."""
        if not plan.is_refitted:
            n_val = len(plan.val)
            both = self.ask(plan.train, np.concatenate([plan.val.x, test]), task)
            return {k: s[:n_val] for k, s in both.items()}, {k: s[n_val:] for k, s in both.items()}
        rounds = [self.ask(bank, held_out.x, task) for bank, held_out in plan.rounds()]
        by_k = {k: plan.gather([votes[k] for votes in rounds]) for k in self.k}
        return by_k, self.ask(plan.final, test, task)

    def ask(self, bank: Split, queries: Floats, task: Task) -> ByK:
        """k -> (Q, C) scores, or (Q, 1) predictions of numbers."""
        labels = bank.y[:, None] if task.is_continuous else bank.y
        return scores(self, bank.x, labels, queries, task.word, task.n_outputs)

    def answer_episodes(self, problem: Problem, episodes: Episodes) -> Iterator[Answer]:
        """One answer for each k that all episodes allow, or for each episode's own."""
        if self.one_k:
            yield self._best_k(problem, episodes)
            return
        train, test = problem.splits["train"], problem.splits["test"]
        largest = min(map(len, episodes)) - self.n_needed
        fitting = tuple(k for k in self.k if k <= largest)
        if fitting:
            knn = replace(self, k=fitting)
            found = [knn.ask(pick(train, rows), test.x, problem.task) for rows in episodes]
            for k in fitting:
                scores = np.stack([by_k[k] for by_k in found])
                yield Answer({"k": k, **knn.voting}, {}, {"test": scores}, [])
        if large := [str(k) for k in self.k if k > largest]:
            raise TooFewError(_too_large(large, largest))

    def _best_k(self, problem: Problem, episodes: Episodes) -> Answer:
        """The k of each episode that answers its own samples best, each by the others.

        Raises:
            TooFewError: there is nothing to leave out, or no k that leaves so many.
        """
        task, train, test = problem.task, problem.splits["train"], problem.splits["test"]
        parts = [pick(train, rows) for rows in episodes]
        if min(max(count_units(part, task.word)) for part in parts) < 2:
            raise TooFewError(
                "leaving out the one sample, or patient, of a class says nothing of k; name one with "
                "--k"
            )
        largest = min(largest_k(self, units_of(part)) for part in parts)
        # The first of equals is taken: the most neighbours, the smoothest vote.
        ks = tuple(sorted((k for k in self.k if k <= largest), reverse=True))
        if not ks:
            raise TooFewError(_too_large([str(min(self.k))], largest))
        knn = replace(self, k=ks)
        places, found = [], []
        for part in parts:
            left_out = left_out_scores(
                knn, part.x, part.y, units_of(part), task.word, task.n_outputs
            )
            losses = [self._loss(left_out[k], part.y, k, part, task) for k in ks]
            places.append(int(np.argmin(losses)))
            k = ks[places[-1]]
            found.append(replace(self, k=(k,)).ask(part, test.x, task)[k])
        settings = {
            "k_among": list(ks),
            **self.voting,
            "chosen_by": f"leave-one-out {loss_name(task.word)}",
            "left_out": {"n": 1, **by_patient_settings(problem.question, train)},
        }
        chosen = said_of("k", ks, places)
        marks = [mark_of("k is", "leaving one out", chosen)]
        return Answer(settings, chosen, {"test": np.stack(found)}, marks)

    @property
    def versions(self) -> dict[str, str]:
        return faiss_versions()

    def describe_memory(self, questions: Sequence[Question]) -> str:
        """What the largest search will hold."""
        features = questions[0].features
        stored = [e for e in features.header.arrays.values() if e.dtype.kind == "f"]
        widest, held = max(stored, key=lambda extent: extent.row_bytes), 0
        for question in questions:
            n_bank = n_to_fit(question)
            n_queries = int(sum(question.is_in(name).sum() for name in ("val", "test")))
            searched = bytes_held(n_bank, n_queries, widest.shape[1], max(self.k))
            held = max(held, searched + (n_bank + n_queries) * widest.row_bytes)
        if held < TOLD_BYTES:
            return ""
        return f"kNN on {features.dataset} will hold about {format_bytes(held)} in memory"

    def check_answered(
        self, questions: Sequence[Question], settings: Sequence[Mapping[str, Any]]
    ) -> None:
        n_train = min(int((q.trained_on or q).is_in("train").sum()) for q in questions)
        large = [str(k) for k in self.k if k + self.n_needed > n_train]
        # Of a list that one is chosen of, the row names those that were compared.
        if large and not (self.one_k and len(large) < len(self.k)):
            raise RequestError(f"{n_train} training images are too few for k = {', '.join(large)}")
        answered = {row.get("k") for row in settings}
        in_folds = [str(k) for k in self.k if k not in answered]
        if in_folds and not self.one_k:
            raise RequestError(
                f"without one of {N_FOLDS} folds too few images are left for k = "
                f"{', '.join(in_folds)}; --choose val compares on val"
            )


def _too_large(large: list[str], largest: int) -> str:
    """Why no answer has these k; the largest that has one."""
    most = f"at most {largest}; name that with --k" if largest > 0 else "too few for any k"
    return f"k = {', '.join(large)} needs more images than some episodes have: {most}"
