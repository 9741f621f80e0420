"""Ridge regression on patches, with their shares as targets: every penalty from one decomposition.

The objective is that of ``probe.kinds.ridge``, a patch once for each class, with 1 for it and 0 for the
others as targets, weighted by its share: sum of share * |y - xW|^2 + alpha * |W|^2, with alpha = penalty
* sum of shares. It is exact, from two readings: one for means and scales, one for X'X and X'Y.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from probe.arrays import Doubles, Floats, Singles
from probe.solvers.patches import Patches, Told, linear_outputs
from probe.solvers.standardise import PathFit


@dataclass(frozen=True)
class PatchRidge(PathFit):
    """The weights at one penalty, an output for every class."""

    penalty: float  # scikit-learn's alpha over the sum of shares
    told: Told

    def outputs(self, features: Floats) -> Singles:
        """(b, C) nearly shares, of (b, D) patches."""
        return linear_outputs(self, features)


def fit_ridge(patches: Patches, penalties: Sequence[float]) -> list[PatchRidge]:
    """Fit every penalty, the strongest (largest) first.

    Memory is four matrices of (D, D), and a block in float64.

    Raises:
        RequestError: see ``Told.of``.
    """
    told = Told.of(patches)
    width = patches.width
    gram = np.zeros((width + 1, width + 1))
    cross = np.zeros((width + 1, len(told.mass)))
    for features, shares in patches.read():
        x = told.block(features, shares).matrix.T.astype(np.float64)
        cross += x.T @ shares
        x *= np.sqrt(shares.sum(axis=1, dtype=np.float64))[:, None]
        gram += x.T @ x
    total = gram[-1, -1]
    mean, shares = gram[-1, :-1] / total, cross[-1] / total
    eigenvalues, basis = np.linalg.eigh(gram[:-1, :-1] / total - np.outer(mean, mean))
    rotated = basis.T @ (cross[:-1] / total - np.outer(mean, shares))
    found = []
    for penalty in sorted(penalties, reverse=True):
        # Rounding leaves some eigenvalues of 0 below it, and a small penalty would become a negative.
        weights = basis @ (rotated / (np.maximum(eigenvalues, 0) + penalty)[:, None])
        found.append(PatchRidge(weights, shares - mean @ weights, told.standard, penalty, told))
    return found


def ridge_losses(fits: Sequence[PatchRidge], patches: Patches) -> Doubles:
    """The mean squared error of each fit on other patches: what one is chosen by."""
    losses, total = np.zeros(len(fits)), 0.0
    for features, shares in patches.read():
        mass = shares.sum(axis=1, dtype=np.float64)
        for number, fit in enumerate(fits):
            said = fit.outputs(features).astype(np.float64)
            # Of each class's 1 and 0s, weighted by its share.
            each = mass * np.square(said).sum(axis=1) - 2 * (said * shares).sum(axis=1) + mass
            losses[number] += each.sum()
        total += mass.sum()
    return losses / total
