"""Where in the encoder features are taken: one layer and pool, several to compare, or side by side.

The last n layers side by side are DINOv2's form of the linear probe (``dinov2/eval/linear.py``,
``create_linear_input``): pool cls is the class tokens of the last n, concat those and the mean over
the patch tokens of the last one. Pool mean is the means of the last n.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.features import Features
from probe.choosing.plan import (
    HELD_OUT,
    N_FOLDS,
    Choice,
    choose,
    is_of_ranks,
    join,
    judged_by,
    loss_name,
    loss_of,
    make_folds,
)
from probe.config import ALL, AUTO, POOLS
from probe.features import Split, default_pool, pools_at, read_samples
from probe.kinds.answer import Answer
from probe.metrics.classification import PROBABILITY
from probe.paper_encoders import USUAL, Reading
from probe.questions.question import Asked


@dataclass(frozen=True)
class Place:
    """Where features are taken."""

    layer: int  # absolute; of several the last
    pool: str  # one of probe.config.POOLS
    n_last: int = 1  # layers side by side, which end with this one

    @property
    def settings(self) -> dict[str, Any]:
        """What a row's question holds of it."""
        several = {"n_last": self.n_last} if self.n_last > 1 else {}
        return {"layer": self.layer, "pool": self.pool, **several}

    def __str__(self) -> str:
        first = self.layer - self.n_last + 1
        layers = f"layers {first} to {self.layer}" if self.n_last > 1 else f"layer {self.layer}"
        return f"{layers}, {self.pool}"


def find_places(
    features: Features, layer: int | str, pools: Sequence[str] = (), reading: Reading = USUAL
) -> list[Place]:
    """The places that are asked for, from the first layer to the last.

    Each layer gives those of the pools that it has, so that encoders with a class token and without
    are asked by one command: head belongs to the last one only, and ``lacking_pools`` names those
    that no layer has.

    Args:
        features: the file.
        layer: a number, negative from the end; "all" or "auto", every stored one; or "last4".
        pools: in the order that is wanted; none: ``probe.features.default_pool`` of each layer.
        reading: what is meant there.

    Raises:
        RequestError: the file doesn't hold the layer, or none of the pools there.
    """
    numbers = _numbers(features, layer)
    lacking = lacking_pools(features, layer, pools)
    if pools and len(lacking) == len(pools):
        where = f"layer {numbers[0]}" if isinstance(layer, int) else "any layer"
        there = [p for p in POOLS if any(has_pool(features, number, p) for number in numbers)]
        raise RequestError(
            f"{features.path.name} has no pool {' or '.join(pools)} at {where} of "
            f"{features.encoder}; there it has {', '.join(there)}"
        )
    wanted = [pool for pool in pools if pool not in lacking]
    if isinstance(layer, str) and layer not in (ALL, AUTO):
        pools = wanted or [default_pool(features, -1, reading)]
        return [_last(features, int(layer.removeprefix("last")), pool) for pool in pools]
    if not wanted:
        return [Place(number, default_pool(features, number, reading)) for number in numbers]
    return [
        Place(number, pool)
        for number in numbers
        for pool in wanted
        if has_pool(features, number, pool)
    ]


def lacking_pools(features: Features, layer: int | str, pools: Sequence[str]) -> list[str]:
    """Those of the pools that none of the layers has: cls and concat, of a CNN."""
    numbers = _numbers(features, layer)
    return [pool for pool in pools if not any(has_pool(features, n, pool) for n in numbers)]


def _numbers(features: Features, layer: int | str) -> list[int]:
    """The layers that are meant; of several side by side all, for each must have the pool.

    Raises:
        RequestError: the file doesn't hold the one that is named.
    """
    if isinstance(layer, int):
        return [features.find_layer(layer)]
    return sorted(features.layers) or [features.last_layer]


def has_pool(features: Features, layer: int, pool: str) -> bool:
    """Whether a layer has a pool; concat is of those that have cls and mean."""
    there = pools_at(features, layer)
    if pool == "concat":
        return "cls" in there and "mean" in there
    return pool in there


def _last(features: Features, n_last: int, pool: str) -> Place:
    """The last layers side by side, if the file holds them all.

    Raises:
        RequestError: it doesn't, or the pool isn't of every layer.
    """
    last = features.last_layer
    if pool not in ("cls", "mean", "concat"):
        raise RequestError(
            f"--layer last{n_last} takes --pool cls, mean or concat, not {pool}, which the last "
            "layer alone has"
        )
    needed = "cls" if pool == "concat" else pool
    wanted = range(last - n_last + 1, last + 1)
    if wanted.start < 0:
        raise RequestError(
            f"--layer last{n_last} needs {needed} of {n_last} layers; the encoder has {last + 1} layers"
        )
    lacking = [number for number in wanted if needed not in features.layers.get(number, [])]
    if lacking:
        raise RequestError(
            f"--layer last{n_last} needs {needed} of layers {wanted.start} to {last}, and "
            f"{features.path.name} has none of layer {lacking[0]}; name fewer, or make "
            "it anew with `extract --layers all`"
        )
    return Place(last, pool, n_last)


def last_place(features: Features, pools: Sequence[str] = (), reading: Reading = USUAL) -> Place:
    """What is asked where nobody chooses a layer: the last one, with the first pool it has."""
    there = [pool for pool in pools if has_pool(features, features.last_layer, pool)]
    return Place(features.last_layer, [*there, default_pool(features, -1, reading)][0])


def read_place(features: Features, place: Place, aggregate: str = "mean") -> NDArray[np.floating]:
    """(S, D) features of every sample; of several layers side by side, the first on the left.

    Args:
        features: the file.
        place: where.
        aggregate: what a sample's several rows become: their "mean" or "max".

    Raises:
        RequestError: no such layer or pool.
        BrokenCache: the stored rows don't match their checksums.
    """
    if place.n_last == 1:
        return read_samples(features, place.layer, place.pool, aggregate)
    pool = "cls" if place.pool == "concat" else place.pool
    numbers = range(place.layer - place.n_last + 1, place.layer + 1)
    parts = [read_samples(features, number, pool, aggregate) for number in numbers]
    if place.pool == "concat":
        parts.append(read_samples(features, place.layer, "mean", aggregate))
    return np.concatenate(parts, axis=1)


# ---------------------------------------------------------------------------- choosing one


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

    def add(self, asked: Asked, splits: dict[str, Split], answers: Iterable[Answer]) -> None:
        """Take the next place's answers.

        Args:
            asked: the question.
            splits: its train and val, of this place.
            answers: as a kind in ``probe.kinds.kind`` gives them, always as many.

        Raises:
            RequestError: a loss can't be computed.
        """
        for number, answer in enumerate(answers):
            self.by_folds = HELD_OUT in answer.scores
            held_out = join(splits["train"], splits["val"]) if self.by_folds else splits["val"]
            if not len(held_out):
                raise RequestError(f"{asked.title} has no val images to compare layers on")
            fold = np.zeros(len(held_out), np.intp)
            if self.by_folds:
                fold = make_folds(asked.trained_on or asked, held_out)
            score_type = answer.settings.get("score_type", PROBABILITY)
            self.name = loss_name(asked.task, score_type)
            if is_of_ranks(self.name):
                fold = np.zeros(len(held_out), np.intp)
            scores = answer.scores[HELD_OUT if self.by_folds else "val"]
            losses = [
                loss_of(
                    scores[fold == part],
                    held_out.y[fold == part],
                    asked.task,
                    votes=answer.votes,
                    score_type=score_type,
                )
                for part in range(int(fold.max()) + 1)
            ]
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
