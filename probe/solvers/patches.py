"""Logistic regression on patches, of which there are millions: read some at a time.

The objective is that of ``probe.kinds.linear`` with targets that are shares: C * sum over patches and
classes of share * -log p, + |w|^2 / 2. It is scikit-learn's with each patch repeated once a class and
weighted by its share. Two classes have one output, as there.

The method is Newton's once more. Objective and gradient are of all patches, from one reading for each
step; second derivatives are of a part that is held in memory, and corrected by what earlier steps did
to the gradient. So many patches bend nearly as all do: a step leaves a small share of what was missing,
however much there is to read, and what it comes to is exact, since the gradient is.

Memory is what is held: of at most ``HELD_ROWS`` patches (``HELD_BYTES``) all, of more a sample to choose
the strength on; then the part (``PART_BYTES``), and a few blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cache.errors import RequestError
from probe.arrays import Doubles, Floats, Indices, Singles
from probe.solvers.logistic import Look, Problem, ahead, minimise, newton_step
from probe.solvers.standardise import PathFit, Standard, chunks, refuse_infinite
from probe.solvers.training_matrix import SINGLE_ABOVE, Rotated

BLOCK_CELLS = 2**20  # numbers of features in work at one time: 4 MB in float32
# Patches of the part, for each feature: with n of them a step leaves about (D / n)^1/2 of the way.
PART_OF_WIDTH, PART_BYTES = 64, 2**28
# Patches that are held, and fitted at every strength; in float32.
HELD_ROWS, HELD_BYTES = 200_000, 2**30
# Predicted distance from the smallest objective, relative to it: of the path, whose losses on val are
# then within 2e-4 of what they would be, and of the chosen one's fit.
CHOICE_TOLERANCE, TOLERANCE = 1e-4, 1e-6
MOST_READINGS = 60  # for one strength; 2 to 6 are usual
MOST_PRODUCTS = 500  # with second derivatives of the part, for one strength
# Of a step in the part. At 0.1 a path of 200,000 patches took as many readings and 1.6 times the products.
CG_RESIDUAL, CG_STEPS = 0.5, 100
CACHED_CELLS = (
    2**18
)  # numbers of the part in work at one time: 1 MB, which both products find in the cache
FALL = 1e-4  # of what a step promises, at least, or it is halved
LOWEST = -1e4  # logit of a class that train has nowhere
WORST = -math.log(np.finfo(np.float64).eps)  # nats of a truth that can't be, as in ``log_loss``


@dataclass(frozen=True)
class Patches:
    """N patches and the shares of each one's pixels, read again and again in the same order.

    Shares sum to at most 1: to less at an image's edge, and where pixels are ignored. Patches without
    any aren't among them.
    """

    n_rows: int
    width: int
    read: Callable[[], Iterator[tuple[Floats, Floats]]]  # blocks of (b, D) and (b, C)

    @staticmethod
    def of(features: Floats, shares: Floats) -> Patches:
        """Of (N, D) features and (N, C) shares in memory, or maps of them."""
        kept = np.flatnonzero(shares.sum(axis=1) > 0)
        is_whole, width = len(kept) == len(shares), features.shape[1]

        def read() -> Iterator[tuple[Floats, Floats]]:
            for rows in chunks(len(kept), max(1, BLOCK_CELLS // width)):
                own = rows if is_whole else kept[rows]
                yield features[own], shares[own]

        return Patches(len(kept), width, read)


@dataclass(frozen=True)
class Told:
    """What one reading of train's patches tells before any is fitted."""

    standard: Standard  # by mean and standard deviation of each feature; 1 where it is constant
    mass: Doubles  # (C,) sum of shares
    n_rows: int

    @staticmethod
    def of(patches: Patches) -> Told:
        """Read them.

        Raises:
            RequestError: no patches, one class among them, or features that are not finite.
        """
        n, width = 0, patches.width
        sums, squares, varies = np.zeros(width), np.zeros(width), np.zeros(width, bool)
        for features, shares in patches.read():
            if not n:
                # Squares about what is nearly the mean lose nothing when the rest is taken off.
                first, mass = features[0].copy(), np.zeros(shares.shape[1])
                centre = features.mean(axis=0, dtype=np.float64)
                centre = centre.astype(np.promote_types(features.dtype, np.float32))
            moved = features - centre
            sums += moved.sum(axis=0, dtype=np.float64)
            squares += np.square(moved, out=moved).sum(axis=0, dtype=np.float64)
            varies |= (features != first).any(axis=0)
            mass += shares.sum(axis=0, dtype=np.float64)
            n += len(features)
        if not n:
            raise RequestError("no patch of train has pixels that count: its masks ignore them all")
        if np.count_nonzero(mass) < 2:
            raise RequestError(
                f"a segmenting probe needs two classes, found only class {int(mass.argmax())} in "
                f"the {n:_} training patches: train on more images"
            )
        refuse_infinite(sums)
        scale = np.sqrt(np.maximum(squares / n - np.square(sums / n), 0))
        scale = np.where(varies & (scale > 0), scale, 1.0)
        return Told(Standard(centre.astype(np.float64) + sums / n, scale), mass, n)

    @property
    def columns(self) -> Indices:
        """The classes that have weights; of two the second alone."""
        present = np.flatnonzero(self.mass > 0)
        return present[1:] if len(present) == 2 else present

    @property
    def coupled(self) -> bool:
        return len(self.columns) > 1

    @property
    def dtype(self) -> type[np.floating]:
        """Of blocks: few patches are fitted in float64."""
        is_small = self.n_rows * len(self.standard.mean) <= SINGLE_ABOVE
        return np.float64 if is_small else np.float32

    def block(self, features: Floats, shares: Floats) -> Rotated:
        """A problem of (b, D) features and (b, C) shares alone, on features standardised."""
        dtype, width = self.dtype, features.shape[1]
        x = np.empty((len(features), width + 1), dtype)
        x[:, -1] = 1
        np.subtract(features, self.standard.mean.astype(dtype), out=x[:, :-1])
        x[:, :-1] *= (1 / self.standard.scale).astype(dtype)
        present = shares[:, self.mass > 0]
        targets = shares[:, self.columns].T.astype(np.float64)
        mass = present.sum(axis=1, dtype=np.float64)
        return Rotated(targets, None, self.coupled, np.empty(0), x.T, mass=mass)


@dataclass(frozen=True)
class Blocks:
    """Patches as problems, standardised anew at each reading."""

    patches: Patches
    told: Told

    def __iter__(self) -> Iterator[Rotated]:
        return (self.told.block(*block) for block in self.patches.read())


@dataclass(frozen=True)
class Part(Rotated):
    """Patches in memory whose second derivatives stand for those of all."""

    basis: Doubles  # (D, D) eigenvectors of the features' correlations

    @staticmethod
    def of(blocks: Iterable[Rotated], n_rows: int, width: int) -> Part:
        """Evenly spread patches: an order by class or patient is no chance, but takes some of each."""
        n_most = min(PART_OF_WIDTH * width, PART_BYTES // (4 * width))
        step = -(-n_rows // max(n_most, 1))
        taken: list[Rotated] = []
        start = 0
        for block in blocks:
            rows = slice(-start % step, None, step)
            mass = block.mass
            assert mass is not None
            one = replace(block, matrix=block.at(rows), targets=block.targets[:, rows])
            taken.append(replace(one, mass=mass[rows]))
            start += len(mass)
        matrix = np.vstack([one.matrix.T for one in taken]).T  # a patch's numbers lie together
        targets = np.hstack([one.targets for one in taken])
        mass = np.concatenate([one.mass for one in taken if one.mass is not None])
        gram = (matrix[:-1] @ matrix[:-1].T).astype(np.float64) / len(mass)
        eigenvalues, basis = np.linalg.eigh(gram)
        curvatures = np.append(np.maximum(eigenvalues, 0), 1.0)
        mean = mass.mean()  # what it says is of a mean over mass, not over patches
        soft = targets / mean, None, taken[0].coupled, curvatures, matrix
        return Part(*soft, basis, mass=mass / mean)

    def blocks(self) -> Iterator[slice]:
        return chunks(self.matrix.shape[1], max(1, CACHED_CELLS // self.width))

    def scaled(self, gradient: Doubles, diagonal: Doubles) -> Doubles:
        slopes = gradient[:, :-1] @ self.basis / diagonal[:, :-1]
        return np.column_stack([slopes @ self.basis.T, gradient[:, -1] / diagonal[:, -1]])


@dataclass(frozen=True)
class PatchFit(PathFit):
    """The weights at one strength, an output for each class that has any."""

    strength: float  # scikit-learn's C
    objective: float  # mean loss of what counts + |weights|^2 / (2 C mass)
    n_readings: int
    converged: bool
    told: Told

    @property
    def as_rows(self) -> Doubles:
        """(C', D + 1) as problems take them."""
        return np.column_stack([self.weights.T, self.intercept])

    def outputs(self, features: Floats) -> Singles:
        """(b, C) logits of (b, D) patches: of two classes the first has 0, and one that train has
        nowhere the lowest."""
        found = np.full((len(features), len(self.told.mass)), LOWEST, np.float32)
        found[:, self.told.mass > 0] = 0
        found[:, self.told.columns] = linear_outputs(self, features)
        return found


def linear_outputs(fit: PathFit, features: Floats) -> Singles:
    """(b, O) of (b, D) features, not standardised; in float32."""
    moved = features - fit.standard.mean.astype(np.float32)
    weights = (fit.weights / fit.standard.scale[:, None]).astype(np.float32)
    return (moved @ weights + fit.intercept).astype(np.float32)


def fit_path(
    blocks: Iterable[Rotated],
    part: Part,
    told: Told,
    strengths: Sequence[float],
    tolerance: float,
    start: PatchFit | None = None,
) -> Iterator[PatchFit]:
    """Fit one strength after the other, the strongest regularisation (smallest C) first.

    Args:
        blocks: the patches; gone through once for each step.
        part: of these patches, or of others like them.
        told: of all of train, also where the patches are some of it.
        strengths: scikit-learn's C, as if of all of train.
        tolerance: predicted distance from the smallest objective, relative to it.
        start: of a single strength, nearly its fit already.
    """
    total = told.mass.sum()
    shares = (told.mass[told.columns] / total)[:, None]
    weights = np.zeros((len(shares), part.width))
    weights[:, -1:] = np.log(shares) - (0 if told.coupled else np.log1p(-shares))
    if start is not None:
        weights = start.as_rows
    solved = [(0.0, weights)]  # of the part alone
    for number, strength in enumerate(sorted(strengths)):
        log, penalty = math.log(strength), 1 / (strength * total)
        # As the part's solution moves from strength to strength, so nearly does that of all.
        before = solved[-1][1]
        first = before if number < 2 else ahead(solved, log)
        own = before
        if start is None:
            asked = penalty, tolerance / 10, MOST_READINGS, MOST_PRODUCTS
            own, *_ = minimise(part, first, *asked)
        found = descend(blocks, part, weights + own - before, penalty, tolerance)
        weights, objective, n_readings, converged = found
        solved = [*solved[-1:], (log, own)]
        slopes, intercept = weights[:, :-1].T.copy(), weights[:, -1].copy()
        said = objective, n_readings, converged, told
        yield PatchFit(slopes, intercept, told.standard, strength, *said)


def descend(
    blocks: Iterable[Problem], part: Part, weights: Doubles, penalty: float, tolerance: float
) -> tuple[Doubles, float, int, bool]:
    """Minimise mean loss + penalty / 2 * |slopes|^2, from the given weights.

    The last step, which promises less than the tolerance, is taken without another look.

    Returns:
        The weights (C', D + 1), the objective, readings, and whether the tolerance was reached.
    """
    ridge = np.append(np.full(part.width - 1, penalty), 0)
    pairs: list[tuple[Doubles, Doubles]] = []  # moves, and what they changed of the gradient
    base = before = step = np.zeros_like(weights)
    length, slope, objective = 0.0, 0.0, math.inf
    for n_readings in range(1, MOST_READINGS + 1):
        loss, gradient = _read(blocks, weights)
        found = loss + float(np.sum(ridge * weights**2)) / 2
        # The last term: at the bottom, rounding decides which of two objectives is larger.
        if found > objective + FALL * length * slope + 1e-2 * tolerance * objective:
            length /= 2
            weights = base + length * step
            continue
        gradient += ridge * weights
        move, change = weights - base, gradient - before
        if n_readings > 1 and np.sum(move * change) > 0:
            pairs.append((move, change))
        base, before, objective = weights, gradient, found
        unbent = _Unbent.at(part, weights, ridge)
        step = secant_step(gradient, pairs, unbent)
        slope, length = float(np.sum(gradient * step)), 1.0
        if slope >= 0:  # of corrections that rounding has spoilt
            step = unbent(gradient)
            slope = float(np.sum(gradient * step))
        weights = base + step
        if -slope / 2 <= tolerance * objective:
            return weights, objective + slope / 2, n_readings, True
    return base, objective, n_readings, False


@dataclass(frozen=True)
class _Unbent:
    """The part's Newton step of any gradient, at one place."""

    part: Part
    look: Look
    ridge: Doubles  # (D + 1,)
    diagonal: Doubles  # (C', D + 1) of the part's second derivatives, nearly

    @staticmethod
    def at(part: Part, weights: Doubles, ridge: Doubles) -> _Unbent:
        look = part.look(part.logits(weights))
        bent = part.curvatures * look.spread + ridge + np.finfo(np.float64).tiny
        return _Unbent(part, look, ridge, bent)

    def __call__(self, gradient: Doubles) -> Doubles:
        part, size = self.part, self.part.scaled(gradient, self.diagonal)
        enough = np.full((1, 1), CG_RESIDUAL**2 * np.sum(gradient * size))
        asked = self.diagonal, self.ridge, enough, CG_STEPS
        return newton_step(part, self.look.probabilities, gradient, *asked)[0]


def secant_step(
    gradient: Doubles,
    pairs: Sequence[tuple[Doubles, Doubles]],
    step_of: Callable[[Doubles], Doubles],
) -> Doubles:
    """A step of the part, corrected by moves and what they changed of the gradient of all.

    The two loops of L-BFGS (Nocedal 1980, https://doi.org/10.1090/S0025-5718-1980-0572855-7), which
    starts from the part's second derivatives.
    """
    gradient, shares = gradient.copy(), []
    for move, change in reversed(pairs):
        shares.append(np.sum(move * gradient) / np.sum(move * change))
        gradient -= shares[-1] * change
    step = step_of(gradient)
    for (move, change), share in zip(pairs, reversed(shares), strict=True):
        step -= (share + np.sum(change * step) / np.sum(move * change)) * move
    return step


def _read(blocks: Iterable[Problem], weights: Doubles) -> tuple[float, Doubles]:
    """Mean loss, and its gradient, over all that counts."""
    loss, gradient, total = 0.0, np.zeros(weights.shape), 0.0
    for block in blocks:
        assert block.mass is not None
        n, logits = len(block.mass), block.logits(weights)
        loss += n * float(block.loss(logits).sum())
        gradient += n * block.look(logits).gradient
        total += float(block.mass.sum())
    return loss / total, gradient / total


def path_losses(fits: Sequence[PatchFit], patches: Patches) -> Doubles:
    """The mean loss of each fit on other patches, from one reading: what one is chosen by.

    A class that train has nowhere costs what ``log_loss`` takes for a probability of 0.
    """
    told, losses, total = fits[0].told, np.zeros(len(fits)), 0.0
    weights = np.vstack([fit.as_rows for fit in fits])
    for features, shares in patches.read():
        block = told.block(features, shares)
        for number, logits in enumerate(np.split(block.logits(weights), len(fits))):
            losses[number] += len(features) * float(block.loss(logits).sum())
        mass = float(shares.sum(dtype=np.float64))
        losses += WORST * (mass - float(block.mass.sum() if block.mass is not None else 0))
        total += mass
    return losses / total


@dataclass(frozen=True)
class ChosenFit:
    """The path, on a sample where there are many patches, and the chosen strength's fit to all."""

    path: list[PatchFit]
    losses: Doubles  # (strengths,) of val; empty without one
    place: int  # of the chosen one
    fit: PatchFit


def held_rows(width: int) -> int:
    """How many patches are held at most."""
    return min(HELD_ROWS, HELD_BYTES // (4 * (width + 1)))


def fit_and_choose(
    train: Patches,
    sample: Patches,
    val: Patches | None,
    strengths: Sequence[float],
    say: Callable[[str], None] = lambda line: None,
) -> ChosenFit:
    """Fit a path of strengths, choose by the log-loss on val, and fit that one to all, more exactly.

    Args:
        train: all patches.
        sample: to choose on, at most ``held_rows``; ``train`` itself where that has no more.
        val: None only with one strength, or without what could choose.
        strengths: scikit-learn's C.
        say: takes a line of progress.

    Raises:
        RequestError: see ``Told.of``; several strengths and nothing to choose on.
    """
    if len(strengths) > 1 and (val is None or not val.n_rows):
        raise RequestError(
            "a strength is chosen on val patches, found none; name one: --strengths 0.1"
        )
    told = Told.of(train)
    held = list(Blocks(sample, told))
    part = Part.of(held, sample.n_rows, train.width)
    path = list(fit_path(held, part, told, strengths, CHOICE_TOLERANCE))
    losses = np.empty(0) if val is None or not val.n_rows else path_losses(path, val)
    place = int(losses.argmin()) if len(losses) else 0
    whole: Iterable[Rotated] = held
    if sample is not train:
        held.clear()
        whole = Blocks(train, told)
        say(f"C {path[place].strength:g} is chosen, and fitted to all {train.n_rows:_} patches")
    strength = [path[place].strength]
    (fit,) = fit_path(whole, part, told, strength, TOLERANCE, start=path[place])
    return ChosenFit(path, losses, place, fit)
