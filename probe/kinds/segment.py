"""Linear segmentation: each patch by a linear classifier that has learnt from its shares of classes.

By default L2-regularised logistic regression, ``probe.solvers.patches``, whose strength is chosen on val;
with ``--solver ridge`` least squares, exact from two readings of the tokens.

Peers train this head by AdamW for tens of thousands of steps (DINOv2, DINOv3), or take each patch's most
frequent class (CAPI, whose strengths are eight from 1e-6 to 1e5). Here a patch counts once for each
class, weighted by its share, and the smallest of that loss is found.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cache.commands.names import format_bytes
from cache.commands.settings import check, given, setting
from cache.errors import RequestError
from probe.arrays import Doubles, Floats, Indices, Singles
from probe.episodes.draw import FewShotConfig
from probe.kinds.kind import Problem
from probe.kinds.linear import read_strengths
from probe.kinds.ridge import PENALTIES
from probe.kinds.segmenting import Segmenting
from probe.maps import Maps
from probe.questions.question import Question
from probe.solvers.episodes import STRENGTH
from probe.solvers.patch_ridge import PatchRidge, fit_ridge, ridge_losses
from probe.solvers.patches import (
    BLOCK_CELLS,
    TOLERANCE,
    Patches,
    PatchFit,
    fit_and_choose,
    held_rows,
)
from probe.solvers.standardise import chunks

Say = Callable[[str], None]  # takes a line of progress

SOLVERS = ("logistic", "ridge")
# scikit-learn's C, one a decade: between two of them the loss on val differs by less than images do.
USUAL = tuple(float(c) for c in 10.0 ** np.arange(-6, 3))
PENALTY = 0.1  # of ridge in episodes, which have nothing to choose on
READ_BYTES = 2**24  # of tokens that are read at one time, in float32
# Of a fit that reads its patches from the file: readings, and a number of features in each.
N_READINGS, SECONDS = 8, 4e-9


@dataclass(frozen=True)
class Segment(Segmenting):
    """Each patch by a linear classifier, from its shares of classes; its strength is chosen on val.

    Raises:
        RequestError: strengths or penalties that are missing, not positive and finite, or named twice;
            an unknown solver.
    """

    strengths: tuple[float, ...] = setting(
        USUAL,
        f"of segment one a decade from {USUAL[0]:g} to {USUAL[-1]:g}, chosen on val; in episodes {STRENGTH:g}",
        metavar="C",
        above=0,
        unlike=True,
        read=read_strengths,
        shown="",
    )
    solver: str = setting(
        "logistic", "of segment: logistic regression, or least squares", among=SOLVERS
    )
    penalties: tuple[float, ...] = (
        PENALTIES  # of ridge; scikit-learn's alpha over the sum of shares
    )
    sample_seed: int = 0  # of the images that a strength is chosen on, where all are too many

    name = "segment"
    section = "kinds linear, stack and segment"

    def __post_init__(self) -> None:
        check(self)

    @classmethod
    def read(cls, options: argparse.Namespace, base: Mapping[str, Any]) -> Segment:
        typed = {**base, **given(options, cls)}
        is_ridge = typed.get("solver") == "ridge"
        if is_ridge and "strengths" in typed:
            raise RequestError("--strengths are of --solver logistic, not of ridge")
        one = {"penalties": (PENALTY,)} if is_ridge else {"strengths": (STRENGTH,)}
        return cls(**{**(one if options.shots else {}), **typed})

    def check_few_shot(self, few_shot: FewShotConfig, by_protocol: bool) -> None:
        super().check_few_shot(few_shot, by_protocol)
        among = self.penalties if self.solver == "ridge" else self.strengths
        if len(among) > 1:
            what = "penalties" if self.solver == "ridge" else "strengths"
            raise RequestError(
                f"an episode has nothing to choose one of {len(among)} {what} on: name one"
            )

    def describe_width(self, questions: Sequence[Question], width: int) -> str:
        question = questions[0]
        features = question.features
        rows = int(question.is_in("train")[features.row_sample].sum())
        n = rows * max(h * w for h, w in features.key["tokens"]["grids"])
        most = held_rows(width)
        if self.solver != "logistic" or n <= most:
            return ""
        minutes = N_READINGS * SECONDS * n * width / 60
        return (
            f"segment on {question.dataset}: {n:_} training patches x {width:_} features; the strength is "
            f"chosen on a sample of {most:_} ({format_bytes(4 * most * width)}), then a fit to all reads "
            f"them about {N_READINGS} times: about {minutes:.0f} min on one core"
        )

    def fit_maps(
        self, problem: Problem, train: Indices, val: Indices | None
    ) -> Iterator[PatchHead]:
        maps, fit = problem.maps, self._ridge if self.solver == "ridge" else self._logistic
        found = fit(
            maps,
            train,
            patches_of(maps, train),
            None if val is None else patches_of(maps, val),
            problem.say,
        )
        settings = {
            "solver": self.solver,
            **found.settings,
            "standardised": True,
            "chosen_by": f"val {found.loss}"
            if len(found.losses) and len(found.among) > 1
            else "fixed",
        }
        chosen = {found.what: found.among[found.place]}
        if len(found.losses):
            chosen[f"val_{found.loss.replace(' ', '_').replace('-', '_')}"] = found.losses.tolist()
        chosen |= found.more
        marks = [*found.marks, *absent_classes(problem, found.fit.told.mass)]
        if len(found.among) > 1 and found.place in (0, len(found.among) - 1):
            value = found.among[found.place]
            marks.append(f"the chosen {found.what} {value:g} is the end of the grid")
        n = found.fit.weights.size + found.fit.intercept.size
        yield PatchHead(maps, found.fit.outputs, settings, chosen, marks, n)

    def _logistic(
        self, maps: Maps, rows: Indices, train: Patches, val: Patches | None, say: Say
    ) -> _Found:
        strengths, sample, marks = sorted(self.strengths), train, []
        settings: dict[str, Any] = {
            "strengths": strengths,
            "tolerance": TOLERANCE,
            "sample_seed": self.sample_seed,
        }
        # Not among the settings: encoders with other grids and widths have other samples.
        more: dict[str, Any] = {}
        if train.n_rows > (most := held_rows(train.width)):
            drawn = draw_rows(maps, rows, most, self.sample_seed)
            sample = patches_of(maps, drawn)
            of_sample = {"images": len(drawn), "patches": sample.n_rows, "seed": self.sample_seed}
            more["sample"] = of_sample
            marks.append(
                f"its strength is chosen by fits to {len(drawn):_} of {len(rows):_} training images, "
                "then fitted to all"
            )
        found = fit_and_choose(train, sample, val, strengths, say)
        if not found.fit.converged:
            n = found.fit.n_readings
            marks.append(f"the solver stopped after {n} readings, short of its tolerance")
        what = "strength", strengths, found.losses, found.place, "log-loss"
        return _Found(found.fit, *what, settings, marks, more)

    def _ridge(
        self, maps: Maps, rows: Indices, train: Patches, val: Patches | None, say: Say
    ) -> _Found:
        penalties = sorted(self.penalties, reverse=True)
        has_val = val is not None and val.n_rows > 0
        if len(penalties) > 1 and not has_val:
            raise RequestError(
                "a penalty is chosen on val patches, found none; leave out --solver ridge"
            )
        fits = fit_ridge(train, penalties)
        losses = ridge_losses(fits, val) if val is not None and has_val else np.empty(0)
        place = int(losses.argmin()) if len(losses) else 0
        what = "penalty", penalties, losses, place, "squared error"
        return _Found(fits[place], *what, {"penalties": penalties}, [])


@dataclass(frozen=True)
class _Found:
    """What a solver has found, and among what."""

    fit: PatchFit | PatchRidge
    what: str
    among: list[float]  # the strongest regularisation first
    losses: Doubles  # of val, of each; empty without one
    place: int
    loss: str  # its name
    settings: dict[str, Any]
    marks: list[str]
    more: dict[str, Any] = field(default_factory=dict)  # of what was chosen


@dataclass
class PatchHead:
    """What answers patches one by one, and what the row says of it: see ``Segmenter``."""

    maps: Maps
    outputs: Callable[[Floats], Floats]  # (b, D) -> (b, C)
    settings: dict[str, Any]
    chosen: dict[str, Any]
    marks: list[str]
    trained_parameters: int | None

    def logits(self, rows: Indices) -> Iterator[Singles]:
        """(n, h, w, C) of some rows after the others."""
        for part in self.maps.chunks(rows, READ_BYTES):
            said = self.outputs(self.maps.tokens(part).reshape(-1, self.maps.width))
            yield said.reshape(len(part), *self.maps.grid, -1).astype(np.float32, copy=False)


def patches_of(maps: Maps, rows: Indices) -> Patches:
    """The patches of some rows of which pixels count; shares are held, tokens read in parts."""
    found = [maps.shares(part) for part in maps.chunks(rows)]
    shares = np.concatenate(found or [np.empty((0, *maps.grid, maps.n_classes), np.float32)])
    h, w = maps.grid
    shares = shares.reshape(len(rows), h * w, maps.n_classes)
    counts = shares.sum(axis=2) > 0

    def read() -> Iterator[tuple[Floats, Floats]]:
        start = 0
        for part in maps.chunks(rows, READ_BYTES):
            own = slice(start, start + len(part))
            start += len(part)
            kept = counts[own].ravel()
            x, said = maps.tokens(part).reshape(-1, maps.width), shares[own].reshape(len(kept), -1)
            if not kept.all():
                x, said = x[kept], said[kept]
            for block in chunks(len(x), max(1, BLOCK_CELLS // maps.width)):
                yield x[block], said[block]

    return Patches(int(counts.sum()), maps.width, read)


def draw_rows(maps: Maps, rows: Indices, most: int, seed: int) -> Indices:
    """Whole images by chance, in order, of no more patches than ``most``, but one image at least."""
    n = max(1, most // (maps.grid[0] * maps.grid[1]))
    return rows[np.sort(np.random.default_rng(seed).permutation(len(rows))[:n])]


def absent_classes(problem: Problem, mass: Doubles) -> list[str]:
    """A mark of classes that no pixel of train has."""
    names = [problem.task.class_names[c] for c in np.flatnonzero(mass == 0)]
    return [f"train has no pixel of {', '.join(names)}: never predicted"] if names else []
