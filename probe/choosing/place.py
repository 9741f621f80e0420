"""The best of several places, without a look at test."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from cache.errors import RequestError
from probe.answer import Answer
from probe.choosing.plan import HELD_OUT, N_FOLDS, Choice, choose, make_folds
from probe.metrics.losses import is_of_ranks, judged_by, loss_name, loss_of
from probe.places import Place
from probe.questions.question import Question, Split, join


@dataclass(frozen=True)
class Best:
    """The place that was chosen, and among which."""

    place: Place
    places: tuple[Place, ...]  # in the order in which the first of equals is taken
    choice: Choice
    loss: str  # by which, in words
    by_folds: bool

    @property
    def settings(self) -> dict[str, Any]:
        """What the row's question holds."""
        judge = judged_by(self.loss) if self.by_folds else "val"
        among = [[place.layer, place.pool] for place in self.places]
        return {"by": f"{judge} {self.loss}", "among": among}

    @property
    def said(self) -> list[dict[str, Any]]:
        """What the row says: each place's loss, and in how many rounds it was the best."""
        found = zip(
            self.places, self.choice.losses.tolist(), self.choice.wins.tolist(), strict=True
        )
        return [{**place.settings, "loss": loss, "wins": wins} for place, loss, wins in found]

    @property
    def mark(self) -> str:
        judge = f"{N_FOLDS} folds of train and val" if self.by_folds else "val"
        won = ""
        if self.by_folds and not is_of_ranks(self.loss):
            won = f", best in {self.choice.wins[self.choice.place]} of them"
        return f"layer and pool chosen among {len(self.places)} by {self.loss} on {judge}{won}"


class Compared:
    """What every place answered to one question without test."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = tuple(places)
        self.losses: list[list[list[float]]] = []  # answer, place, round
        self.sizes: list[int] = []
        self.name, self.by_folds = "", False

    def add(
        self, question: Question, splits: Mapping[str, Split], answers: Iterable[Answer]
    ) -> None:
        """Take the next place's answers.

        Args:
            question: the question.
            splits: its train and val, of this place.
            answers: as a kind in ``probe.kinds.kind`` gives them, always as many.

        Raises:
            RequestError: a loss can't be computed.
        """
        for number, answer in enumerate(answers):
            self.by_folds = HELD_OUT in answer.scores
            held_out = join(splits["train"], splits["val"]) if self.by_folds else splits["val"]
            if not len(held_out):
                raise RequestError(f"{question.title} has no val images to compare layers on")
            fold = np.zeros(len(held_out), np.intp)
            if self.by_folds:
                fold = make_folds(question.trained_on or question, held_out)
            self.name = loss_name(question.task.word, answer.score_type)
            if is_of_ranks(self.name):
                fold = np.zeros(len(held_out), np.intp)
            scores = answer.scores[HELD_OUT if self.by_folds else "val"]
            loss = partial(
                loss_of, task=question.task.word, votes=answer.votes, score_type=answer.score_type
            )
            rounds = [fold == part for part in range(int(fold.max()) + 1)]
            losses = [loss(scores[own], held_out.y[own]) for own in rounds]
            self.sizes = np.bincount(fold).tolist()
            if number == len(self.losses):
                self.losses.append([])
            self.losses[number].append(losses)

    def choose(self, first: Place) -> list[Best]:
        """The best place for each answer; of equals ``first``, then the last.

        Args:
            first: the one that is asked where nobody chooses.
        """
        order = sorted(
            range(len(self.places)), key=lambda i: (self.places[i] != first, -self.places[i].layer)
        )
        places = tuple(self.places[i] for i in order)
        found = []
        for losses in self.losses:
            choice = choose(np.array(losses)[order].T, self.sizes)
            place = places[choice.place]
            found.append(Best(place, places, choice, self.name, self.by_folds))
        return found
