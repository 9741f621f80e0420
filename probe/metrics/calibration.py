"""Calibration: whether answers given with 80 % are right 80 times of 100.

Everything here takes one problem of V classes that exclude one another: (N, V) probabilities and
(N,) class numbers, -1 (``cache.task.MISSING``) where nobody knows. Of several labels at once each
is such a problem of two classes.

Brier score and calibration error are functions of sums over samples, which take leading axes, so
that ``probe.metrics.jackknife`` evaluates each test set less a patient with the code that evaluates one.
"""

from dataclasses import dataclass

import numpy as np

from cache.task import MISSING
from probe.arrays import Doubles, Floats, Ints
from probe.metrics.counts import divided

N_BINS = 15  # Guo et al. 2017, "On Calibration of Modern Neural Networks", section 5: M = 15

N_FOLDS = 5  # by which a temperature must prove itself
COLDEST, HOTTEST = 0.01, 100.0  # temperatures looked at
STEPS = 60  # of the search for it: enough to halve that range to rounding; Newton's needs about 6
TOLERANCE = 1e-10  # relative, of the temperature


@dataclass(frozen=True)
class Votes:
    """What smooths scores that are shares of neighbours' votes.

    Of k neighbours hardly ever one is of a rare class, and no class with a vote less than none is
    impossible. A logarithm takes an exact 0 at its word, and where it is cut off decides about every
    temperature: of BreastMNIST's val, at k 10, 13.8 at 2e-16. So one vote more, of the neighbours'
    mean weight w1, is shared as the bank's classes are: (w_c + shares_c w1) / (sum w + w1), which
    is (k score + shares) / (k + 1) whatever the weights (the m-estimate of Cestnik 1990, m = 1;
    Zadrozny and Elkan 2001, section 3.2, smooth leaves of trees so). It stays 0 of a class that the
    bank hasn't.
    """

    k: int  # neighbours
    shares: Doubles  # (C,) of the bank's classes; of several labels each one's ones

    def smooth(self, scores: Floats) -> Doubles:
        """(..., C) shares of votes -> (..., C) probabilities."""
        return (self.k * scores.astype(np.float64) + self.shares) / (self.k + 1)


def squares(probabilities: Floats, labels: Ints) -> Doubles:
    """Each sample's part of Brier's score, (N, 2): any weighted sum over N gives sums.

    Args:
        probabilities: (N, V).
        labels: (N,) class numbers or MISSING: such a sample contributes nothing.

    Returns:
        One, and the sum over classes of (probability - truth)^2.
    """
    truth = labels[:, None] == np.arange(probabilities.shape[1])
    square = ((probabilities.astype(np.float64) - truth) ** 2).sum(axis=1)
    return np.stack([np.ones(len(square)), square], axis=1) * (labels != MISSING)[:, None]


def gap_sums(probabilities: Floats, labels: Ints) -> Doubles:
    """What the calibration error is a function of, summed over samples: (1 + N_BINS,).

    Not by sample as ``squares``: it has no interval.

    Returns:
        How many samples are known; and for each bin of confidence, the sum over its answers of
        right (1 or 0) less confidence.
    """
    confidence = np.clip(probabilities.max(axis=1).astype(np.float64), 0, 1)
    is_right = probabilities.argmax(axis=1) == labels
    is_known = labels != MISSING
    # Bins are open below and closed above, as in Guo et al., equation 3; 0 falls into the first.
    # Rounded, so that the three of five neighbours that are 0.6 in float64 and in float32 (as rows
    # store scores) fall into one bin.
    place = np.ceil((confidence * N_BINS).round(5)).astype(int).clip(1)
    sums = np.bincount(place, (is_right - confidence) * is_known, minlength=1 + N_BINS)
    return np.array([is_known.sum(), *sums[1:]], np.float64)


def brier_of(sums: Doubles) -> Doubles:
    """Brier's score: the mean over samples of the sum over classes of (probability - truth)^2.

    Brier's own form (1950): 0..2. Of two classes it is twice what scikit-learn's
    ``brier_score_loss`` gives by default, (p - y)^2; ``scale_by_half=False`` is this.

    Returns:
        (...,) from (..., 2) sums of ``squares``; nan where nothing is known.
    """
    return divided(sums[..., 1], sums[..., 0])


def calibration_error_of(sums: Doubles) -> Doubles:
    """Expected calibration error of the top label (Guo et al. 2017, equation 3).

    Answers are sorted into 15 bins of equal width by their confidence, which is their largest
    probability. In each bin the accuracy is compared with the mean confidence; the error is the
    mean difference, weighted by the bin's share of samples. With few samples it is too large even
    of a perfect probe: each bin's accuracy is rough.

    Returns:
        (...,) from (..., 1 + N_BINS) of ``gap_sums``, 0..1; nan where nothing is known.
    """
    return divided(np.abs(sums[..., 1:]).sum(axis=-1), sums[..., 0])


def temper(probabilities: Floats, temperature: float) -> Doubles:
    """Soften (temperature above 1) or sharpen probabilities: softmax(log p / temperature).

    Args:
        probabilities: (N, V).
        temperature: positive.

    Returns:
        (N, V), rows sum to 1; the order of the classes is kept, and so is every decision. An exact
        0 stays 0, and a row without any probability gets equal ones.
    """
    return _softmax(_logarithms(probabilities) / temperature)


def fit_temperature(probabilities: Floats, labels: Ints, fold: Ints | None = None) -> float | None:
    """The temperature with the smallest log-loss (Guo et al. 2017, section 4.2), if it helps.

    It must lower the log-loss of samples that it isn't fitted to: each fold's by the temperature of
    the others. Else it is 1.

    Args:
        probabilities: (N, V), of samples that the probe was not fitted to; shares of votes are
            smoothed before (``Votes``).
        labels: (N,) class numbers or MISSING; at least one known.
        fold: (N,) of each sample; None: each ``N_FOLDS``-th.

    Returns:
        COLDEST..HOTTEST; 1 leaves everything as it is. None where the truth of a sample has the
        probability 0: no temperature makes it likelier, and the log-loss is infinite.
    """
    is_known = labels != MISSING
    fold = (np.arange(len(labels)) % N_FOLDS if fold is None else fold)[is_known]
    z, y = _logarithms(probabilities[is_known]), labels[is_known]
    if np.isneginf(z[np.arange(len(y)), y]).any():
        return None
    inverse = _coldness(z, y)
    tempered = plain = 0.0
    for held_out in np.unique(fold):
        here = fold == held_out
        if here.all():
            return 1.0  # nothing to prove it on
        tempered += _nats(z[here], y[here], _coldness(z[~here], y[~here], inverse))
        plain += _nats(z[here], y[here], 1.0)
    return float(1 / inverse) if tempered < plain else 1.0


def _coldness(z: Doubles, y: Ints, start: float = 1.0) -> float:
    """1 / temperature with the smallest log-loss.

    The log-loss is convex in it, so its derivative has one zero: Newton's steps find it, halving
    the range (in logarithms) where one leaves it. Where no answer is wrong the loss falls with the
    temperature, which ends near COLDEST, where the loss is flat but for rounding; where the answers
    are worse than none, it ends at HOTTEST.

    Args:
        z: (N, V) logarithms, -inf for what is impossible; of no truth.
        y: (N,) class numbers.
        start: where the search begins.
    """
    finite = np.where(np.isneginf(z), 0, z)  # weighs nothing there
    if not (z.max(axis=1) - np.where(np.isneginf(z), np.inf, z).min(axis=1)).any():
        return 1.0  # equal probabilities are the same at every temperature
    of_truth = z[np.arange(len(y)), y].mean()
    low, high = 1 / HOTTEST, 1 / COLDEST
    inverse = start
    for _ in range(STEPS):
        p = _softmax(z * inverse)
        mean = (p * finite).sum(axis=1)
        slope = mean.mean() - of_truth
        curvature = ((p * finite**2).sum(axis=1) - mean**2).mean()
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = inverse - slope / curvature if curvature > 0 else high
        if not low < step < high:
            step = np.sqrt(low * high)
        if abs(step - inverse) <= TOLERANCE * inverse:
            break
        inverse = step
    return inverse


def _nats(z: Doubles, y: Ints, inverse: float) -> float:
    """Sum of the samples' log-losses at 1 / temperature."""
    z = z * inverse
    top = z.max(axis=1)
    log_sums = top + np.log(np.exp(z - top[:, None]).sum(axis=1))
    return float((log_sums - z[np.arange(len(y)), y]).sum())


def _logarithms(probabilities: Floats) -> Doubles:
    """-inf of what is 0, or below it by rounding."""
    p = probabilities.astype(np.float64)
    return np.log(p, out=np.full(p.shape, -np.inf), where=p > 0)


def _softmax(z: Doubles) -> Doubles:
    p = np.exp(z - np.maximum(z.max(axis=1, keepdims=True), np.finfo(np.float64).min))
    total = p.sum(axis=1, keepdims=True)
    return np.divide(p, total, out=np.full(p.shape, 1 / p.shape[1]), where=total > 0)
