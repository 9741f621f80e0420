"""Segmentation by the nearest training patches: a vote of their shares of classes, by exact search.

Cosine similarity and a vote weighted by exp(similarity / temperature), as ``--kind knn`` has it, among a
bank of patches that is drawn from train by chance: all of them are millions.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cache.commands.settings import check, given, setting
from cache.errors import RequestError
from probe.arrays import Doubles, Floats, Indices
from probe.episodes.draw import FewShotConfig
from probe.kinds.kind import Problem
from probe.kinds.knn import USUAL
from probe.kinds.segment import PatchHead, absent_classes, patches_of
from probe.kinds.segmenting import Segmenting
from probe.metrics.calibration import Votes
from probe.questions.question import Question
from probe.solvers.faiss_library import faiss_versions
from probe.solvers.neighbours import CHUNK_VOTES, neighbours
from probe.solvers.patches import WORST, Patches
from probe.solvers.standardise import chunks
from probe.solvers.votes import average, weigh

N_JUDGES = 10_000  # patches of val that choose k: a search for each takes a product with the bank
K_OF_EPISODES = 10
PRODUCTS = 4e10  # in a second on one core, about


@dataclass(frozen=True)
class SegmentKnn(Segmenting):
    """A vote among the nearest of a bank of training patches.

    Raises:
        RequestError: k is empty, below 1 or named twice; a temperature or a bank that isn't positive.
    """

    k: tuple[int, ...] = setting(
        USUAL,
        f"of segment-knn always the best on val; in episodes {K_OF_EPISODES}",
        least=1,
        unlike=True,
        takes="numbers from 1 up, each once",
        shown="",
    )
    temperature: float = setting(0.07, "", above=0, shown="")
    bank: int = setting(
        100_000, "training patches that segment-knn looks among, by chance", least=1
    )
    sample_seed: int = 0  # of the bank, and of the patches of val that choose k

    name = "segment-knn"
    section = "kinds knn and segment-knn"

    def __post_init__(self) -> None:
        check(self)

    @classmethod
    def read(cls, options: argparse.Namespace, base: Mapping[str, Any]) -> SegmentKnn:
        of_episodes = {"k": (K_OF_EPISODES,)} if options.shots else {}
        return cls(**{**base, **of_episodes, **given(options, cls)})

    def check_few_shot(self, few_shot: FewShotConfig, by_protocol: bool) -> None:
        super().check_few_shot(few_shot, by_protocol)
        if len(self.k) > 1:
            raise RequestError("an episode has nothing to choose one of several k on: name one --k")

    @property
    def versions(self) -> dict[str, str]:
        return faiss_versions()

    def describe_width(self, questions: Sequence[Question], width: int) -> str:
        question = questions[0]
        features = question.features
        of_row = [
            question.is_in(name)[features.row_sample].sum() for name in ("train", "val", "test")
        ]
        n, *asked = (
            int(rows) * max(h * w for h, w in features.key["tokens"]["grids"]) for rows in of_row
        )
        minutes = min(n, self.bank) * sum(asked) * width / PRODUCTS / 60
        if minutes < 1:
            return ""
        return (
            f"segment-knn on {question.dataset}: up to {sum(asked):_} patches look among "
            f"{min(n, self.bank):_}: at most about {minutes:.0f} min on one core; a smaller --bank takes less"
        )

    def fit_maps(
        self, problem: Problem, train: Indices, val: Indices | None
    ) -> Iterator[PatchHead]:
        maps = problem.maps
        patches = patches_of(maps, train)
        if not patches.n_rows:
            raise RequestError("no patch of train has pixels that count: its masks ignore them all")
        x, shares = draw_patches(patches, self.bank, self.sample_seed)
        if not (ks := [k for k in sorted(self.k, reverse=True) if k <= len(x)]):
            raise RequestError(
                f"the bank has {len(x):_} patches, which are fewer than --k {min(self.k)}"
            )
        bank = Bank(x, shares, self.temperature)
        to_choose_on = None if val is None else patches_of(maps, val)
        losses, chosen_by = np.empty(0), "fixed"
        if to_choose_on is not None and to_choose_on.n_rows:
            losses = bank.losses(*draw_patches(to_choose_on, N_JUDGES, self.sample_seed), ks)
        elif len(ks) > 1:
            raise RequestError("k is chosen on val patches, found none; name one --k")
        # The first of equals is taken: the most neighbours, the smoothest vote.
        k = ks[int(losses.argmin())] if len(losses) else ks[0]
        if len(ks) > 1:
            chosen_by = f"val log-loss of at most {N_JUDGES:_} patches"
        settings = {
            "k_among": ks,
            "metric": "cosine",
            "vote": "weighted",
            "temperature": self.temperature,
            "bank": self.bank,
            "sample_seed": self.sample_seed,
            "chosen_by": chosen_by,
        }
        # Not among the settings: encoders with other grids have other numbers of patches.
        chosen: dict[str, Any] = {"k": k, "bank": {"patches": len(x), "of": patches.n_rows}}
        if len(losses):
            chosen["val_log_loss"] = losses.tolist()
        marks = absent_classes(problem, shares.sum(axis=0))
        if len(x) < patches.n_rows:
            marks.append(
                f"its bank is {len(x):_} of {patches.n_rows:_} training patches, by chance"
            )
        if len(ks) > 1 and k in (ks[0], ks[-1]):
            marks.append(f"the chosen k {k} is the end of the list")
        yield PatchHead(maps, replace(bank, k=k), settings, chosen, marks, None)


@dataclass(frozen=True)
class Bank:
    """Patches to look among; calling it answers others."""

    features: Floats  # (M, D)
    shares: Floats  # (M, C)
    temperature: float
    k: int = 1

    def __call__(self, features: Floats) -> Doubles:
        """(b, C) shares of the vote, of (b, D) patches; a neighbour's say grows with its mass."""
        similarities, indices = neighbours(self.features, features, self.k)
        return self._vote(similarities, indices)

    def losses(self, features: Floats, shares: Floats, ks: Sequence[int]) -> Doubles:
        """The log-loss of each k on other patches, from one search; votes are smoothed."""
        similarities, indices = neighbours(self.features, features, max(ks))
        of_class = self.shares.sum(axis=0, dtype=np.float64)
        found = []
        for k in ks:
            votes = self._vote(similarities[:, :k], indices[:, :k])
            said = Votes(k, of_class / of_class.sum()).smooth(votes)
            nats = np.minimum(-np.log(np.maximum(said, np.finfo(np.float64).tiny)), WORST)
            found.append(float((nats * shares).sum() / shares.sum(dtype=np.float64)))
        return np.array(found)

    def _vote(self, similarities: Floats, indices: Indices) -> Doubles:
        weights = weigh(similarities, "weighted", self.temperature)
        n_classes = self.shares.shape[1]
        found = np.empty((len(indices), n_classes))
        for rows in chunks(len(indices), max(1, CHUNK_VOTES // (n_classes * indices.shape[1]))):
            found[rows] = average(weights[rows], self.shares[indices[rows]], n_classes)
        return found / found.sum(axis=1, keepdims=True)


def draw_patches(patches: Patches, most: int, seed: int) -> tuple[Floats, Floats]:
    """(n, D) and (n, C) of patches by chance, in order; all where there are no more."""
    taken = np.sort(np.random.default_rng(seed).permutation(patches.n_rows)[:most])
    start, found = 0, []
    for features, shares in patches.read():
        first, last = np.searchsorted(taken, [start, start + len(features)])
        rows = taken[first:last] - start
        start += len(features)
        found.append((features[rows], shares[rows]))
    each, of_each = zip(*found, strict=True)
    return np.concatenate(each), np.concatenate(of_each)
