"""Linear probes of many episodes at once: logistic regression, and ridge with leave-one-out.

The logistic objective is ``probe.kinds.linear``'s at one strength: C * sum of log-losses + |w|^2 / 2, the
intercept free. Features are standardised by whatever the caller knows of their scale, or over the
episode's own samples, see ``probe.solvers.standardise``. An episode has far fewer
samples than features, and its weights lie in their span: w = X'a. So each problem is solved for
its n numbers a, on the n x n matrix XX', and all episodes advance together; a test image then
costs one matrix product for all of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cache.errors import RequestError
from cache.task import BINARY, MISSING, MULTI_LABEL
from probe.arrays import Bools, Doubles, Floats, Indices, Ints, Singles
from probe.metrics.classification import check_labels
from probe.solvers.logistic import ratio, sigmoid, softmax
from probe.solvers.standardise import Prepare, refuse_infinite, row_blocks

# scikit-learn's C where nobody names one: nothing is there to choose it on, for val belongs to
# nobody in an episode. Measured on standardised ViT-S features of BreastMNIST (40 episodes, 1 to
# 50 shots, 1e-4 to 10): the log-loss on test, at the natural class shares, is smallest at 0.001
# to 0.01 from 5 shots on, and rises steeply above 0.1; the AUC is largest at 0.01 to 0.1.
STRENGTH = 0.01
CHUNK_CELLS = 2**23  # numbers of the episodes' features in work at one time: 64 MB
# Bound on the distance from the smallest objective, relative to it. The true distance is smaller by
# the conditioning, 10 to 100 times.
TOLERANCE = 1e-8
ROUNDING = 1e-7  # of an objective, relative: products are float32
TINY = 1e-9  # nats: an objective below this is as good as solved
MAX_STEPS = 100  # of Newton; 3 to 8 are usual
CG_RESIDUAL = 0.05  # how well a Newton step is solved, as in probe.kinds.linear
CG_STEPS = 500
HALVINGS = 40  # of a step that doesn't go downhill
NEVER = -1e30  # logit of a class that an episode has no sample of: its exp() is 0
Heads = list[tuple[Floats, Floats]]  # (e, D, O) and (e, O), in order


@dataclass(frozen=True)
class _Batch:
    """Some episodes, the shorter ones filled up with rows of zeros. e episodes of n samples."""

    rows: Indices  # (e, n) of the training features
    is_real: Bools  # (e, n)
    x: Singles  # (e, n, D) prepared, less each episode's mean, over its scale
    mean: Singles  # (e, D) of the prepared features
    scale: Singles  # (e, D), 1 where a feature is constant, or prepared already
    prepare: Prepare | None  # what queries go through, too


def logistic_scores(
    features: Floats,
    labels: Ints,
    episodes: Sequence[Indices],
    queries: Floats,
    task: str,
    n_classes: int,
    strength: float = STRENGTH,
    prepare: Prepare | None = None,
    kept: Heads | None = None,
) -> Singles:
    """Fit every episode, and score the queries by each. E episodes, C classes.

    As ``probe.kinds.linear.fit_path`` on the episode's samples at one strength: several classes share one
    softmax; a class without samples scores 0, and a label that is the same in all of them that
    value. Where fit_path refuses an episode of one class, this one is sure of that class.

    Memory is the scores and ``CHUNK_CELLS`` numbers of features a few times over, or one episode's
    where those are more. Queries are prepared anew for each batch of episodes: of 49,152 features
    and 2,000 queries 100 episodes of 20 take 20 s.

    Args:
        features: (S, D) of the training samples; may be a float16 memmap.
        labels: (S,), or (S, C) zeros, ones and MISSING for the multi-label task.
        episodes: for each its rows of ``features``, one and more.
        queries: (Q, D).
        task: one of ``cache.task.CLASSIFICATION``.
        n_classes: C; 2 for a binary task.
        strength: scikit-learn's C.
        prepare: what standardises features and queries alike; None: each episode does, by the mean
            and scale of its own samples.
        kept: where the weights of each are kept.

    Returns:
        (E, Q, C) probabilities.

    Raises:
        RequestError: labels that don't fit the task, features that are not finite, or an episode
            that didn't converge.
    """
    check_labels(labels, task, n_classes)
    scores = np.empty((len(episodes), len(queries), n_classes), np.float32)
    coupled = task not in (BINARY, MULTI_LABEL)
    for part, batch in _batches(features, episodes, prepare):
        targets, counts, constant = _targets(labels, batch, task, n_classes)
        gram = batch.x @ batch.x.transpose(0, 2, 1)
        alphas, intercepts = _Logistic(gram, targets, counts, coupled).solve(strength)
        if coupled:
            intercepts = np.where(targets.any(axis=2, keepdims=True), intercepts, NEVER)
        if kept is not None:
            kept.append(_heads(batch, alphas, intercepts, constant))
        for rows in row_blocks(queries):
            logits = _answers(batch, alphas, intercepts, queries[rows])
            found = softmax(logits, 1) if coupled else sigmoid(logits)
            if constant is not None:
                found = np.where(np.isnan(constant), found, constant)
            if task == BINARY:
                found = np.concatenate([1 - found, found], axis=1)
            scores[part, rows] = found.transpose(0, 2, 1)
    return scores


def ridge_scores(
    features: Floats,
    targets: Floats,
    episodes: Sequence[Indices],
    queries: Floats,
    penalties: Sequence[float],
    prepare: Prepare | None = None,
    kept: Heads | None = None,
) -> tuple[Doubles, Doubles]:
    """Fit ridge in every episode, each at the penalty of its own smallest leave-one-out error.

    As ``probe.kinds.ridge.fit_path`` on the episode's samples, with alpha = penalty * n. The error of
    leaving each sample out costs no further fit: it is the residual divided by 1 - h, h the
    diagonal of the hat matrix, the intercept's 1 / n included (Allen's PRESS, 1974). Standardised
    by the episode, it is by all n, so the sample left out still had its say in the scale.

    Args:
        features: (S, D) of the training samples.
        targets: (S, O) finite.
        episodes: for each its rows of ``features``.
        queries: (Q, D).
        penalties: positive; ties go to the largest. An episode of one sample takes the largest.
        prepare: as for ``logistic_scores``.
        kept: as there.

    Returns:
        (E, Q, O) predictions, and the (E,) penalties.

    Raises:
        RequestError: features that are not finite.
    """
    found = np.empty((len(episodes), len(queries), targets.shape[1]))
    chosen = np.empty(len(episodes))
    descending = np.sort(np.asarray(penalties, np.float64))[::-1]
    for part, batch in _batches(features, episodes, prepare):
        alphas, intercepts, chosen[part] = _leave_one_out(batch, targets[batch.rows], descending)
        if kept is not None:
            kept.append(_heads(batch, alphas, intercepts))
        for rows in row_blocks(queries):
            answers = _answers(batch, alphas, intercepts, queries[rows])
            found[part, rows] = answers.transpose(0, 2, 1)
    return found, chosen


# ------------------------------------------------------------------------------- batches


def _batches(
    features: Floats, episodes: Sequence[Indices], prepare: Prepare | None = None
) -> Iterator[tuple[slice, _Batch]]:
    """Consecutive episodes, as many as fit."""
    longest = max(map(len, episodes))
    size = max(1, CHUNK_CELLS // (longest * features.shape[1]))
    for start in range(0, len(episodes), size):
        part = slice(start, min(start + size, len(episodes)))
        yield part, _standardised(features, episodes[part], prepare)


def _standardised(
    features: Floats, episodes: Sequence[Indices], prepare: Prepare | None = None
) -> _Batch:
    lengths = np.array([len(rows) for rows in episodes])
    is_real = np.arange(lengths.max()) < lengths[:, None]
    rows = np.stack([np.resize(rows, lengths.max()) for rows in episodes])  # filled with its own
    x = features[rows] if prepare is None else prepare(features[rows])
    # In float64, whose squares are finite and whose sums keep the digits of what is far from 0.
    # The first row off before anything is summed: a constant is exactly one then.
    x = x.astype(np.float64)
    first = x[:, :1].copy()
    x -= first
    weight = (is_real / lengths[:, None])[:, None]  # (e, 1, n)
    mean = weight @ x  # (e, 1, D)
    x -= mean
    refuse_infinite(mean.sum(axis=(0, 1)))
    scale = np.ones((len(x), x.shape[2]))
    if prepare is None:
        variance = (weight @ np.square(x))[:, 0]
        scale = np.where(variance > 0, np.sqrt(variance), 1)
    x *= is_real[:, :, None] / scale[:, None]
    mean = (first + mean)[:, 0]
    x, mean, scale = (part.astype(np.float32) for part in (x, mean, scale))
    return _Batch(rows, is_real, x, mean, scale, prepare)


def _answers(batch: _Batch, alphas: Floats, intercepts: Floats, queries: Floats) -> Floats:
    """(e, O, Q) a'X(q - mean) / scale + intercept, by one product for all episodes and outputs."""
    queries = queries.astype(np.float32) if batch.prepare is None else batch.prepare(queries)
    weights = alphas.astype(np.float32) @ batch.x / batch.scale[:, None]  # (e, O, D)
    # The means' mean off both sides: a difference of large numbers would be rounding.
    centre = batch.mean.mean(axis=0)
    flat = weights.reshape(-1, weights.shape[2]) @ (queries - centre).T
    offsets = intercepts.astype(np.float32) - weights @ (batch.mean - centre)[:, :, None]
    return flat.reshape(*weights.shape[:2], -1) + offsets


def _heads(
    batch: _Batch, alphas: Floats, intercepts: Floats, constant: Doubles | None = None
) -> tuple[Singles, Doubles]:
    """(e, D, O) weights on prepared features and (e, O) intercepts, as ``_answers`` has them."""
    if constant is not None:  # 0, 1, or as likely as not: what a sigmoid makes of these
        is_fitted, sure = np.isnan(constant), np.where(constant > 0.5, -NEVER, NEVER)
        alphas = alphas * is_fitted
        intercepts = np.where(is_fitted, intercepts, np.where(constant == 0.5, 0, sure))
    weights = alphas.astype(np.float64) @ batch.x / batch.scale[:, None]  # (e, O, D)
    offsets = intercepts[..., 0] - np.einsum("eod,ed->eo", weights, batch.mean, dtype=np.float64)
    return weights.transpose(0, 2, 1).astype(np.float32), offsets


def each_of(kept: Heads) -> Iterator[tuple[Floats, Floats]]:
    """(1, D, O) and (1, O) of each episode."""
    for weights, intercepts in kept:
        yield from zip(weights[:, None], intercepts[:, None], strict=True)


def _targets(
    labels: Ints, batch: _Batch, task: str, n_classes: int
) -> tuple[Doubles, Singles, Doubles | None]:
    """Zeros and ones (e, C', n), which of them count, and (e, C', 1) scores known without a fit.

    The last is nan where there is something to fit, and None for several classes of one label.
    """
    real = batch.is_real[:, None]
    if task == MULTI_LABEL:
        own = labels[batch.rows].transpose(0, 2, 1)
        targets, counts = own == 1, real & (own != MISSING)
    else:
        columns = np.array([1]) if task == BINARY else np.arange(n_classes)
        targets = labels[batch.rows][:, None] == columns[:, None]
        counts = np.broadcast_to(real, targets.shape)
    targets = targets & counts
    if task not in (BINARY, MULTI_LABEL):
        return targets * 1.0, counts.astype(np.float32), None
    n_ones, n_known = (part.sum(axis=2, keepdims=True) for part in (targets, counts))
    mixed = (n_ones > 0) & (n_ones < n_known)
    # A label that an episode knows of no sample is as likely as not.
    constant = np.where(n_known > 0, n_ones / np.maximum(n_known, 1), 0.5)
    return targets * 1.0, (counts & mixed).astype(np.float32), np.where(mixed, np.nan, constant)


# ------------------------------------------------------------------------------- logistic regression


@dataclass(frozen=True)
class _Logistic:
    """Sum of log-losses of aK + b against the targets, for each of e episodes.

    Newton's method with conjugate gradients in the inner product of K: there the Hessian is
    curvature * K + 1 / C, whose eigenvalues but for the few largest of K are all next to 1 / C.
    Coupled, an episode is one softmax; otherwise each of its C' rows is a problem by itself, and
    every inner product, step length and stop below is one number for each row.
    """

    gram: Singles  # (e, n, n) K = XX'
    targets: Floats  # (e, C', n)
    counts: Singles  # (e, C', n) 0 where a sample has no say
    coupled: bool

    def solve(self, strength: float) -> tuple[Floats, Floats]:
        """Minimise loss + a'Ka / (2 C).

        Returns:
            a (e, C', n) and the intercepts (e, C', 1).

        Raises:
            RequestError: an episode hasn't come within ``TOLERANCE`` after ``MAX_STEPS``.
        """
        penalty = 1 / strength
        # The intercept is a feature as long as the longest sample: one scale, fewer steps.
        longest = np.einsum("enn->en", self.gram).max(axis=1)
        side = np.sqrt(np.maximum(longest, 1.0, dtype=np.float64))[:, None, None]
        alpha, beta = np.zeros_like(self.targets), self._start() / side
        smooth = np.zeros_like(alpha)  # aK
        objective = self._loss(beta * side + smooth)
        for _ in range(MAX_STEPS):
            probabilities = self._probabilities(smooth + beta * side)
            residuals = self.counts * (probabilities - self.targets)
            pull = residuals + penalty * alpha
            pull_b = (residuals * side).sum(axis=2, keepdims=True)
            pull_smooth = self._times_gram(pull)
            size = self._inner(pull, pull_smooth) + self._inner(pull_b, pull_b)
            # Nowhere does the objective bend less than the penalty: a bound, and a wide one.
            if (size / (2 * penalty) <= TOLERANCE * np.maximum(objective, TINY)).all():
                return alpha, beta * side
            step, step_b, moved = self._step(
                probabilities, (pull, pull_b, pull_smooth), size, penalty, side
            )
            slope = self._inner(pull_smooth, step) + self._inner(pull_b, step_b)
            length = np.ones_like(slope)
            for _ in range(HALVINGS):
                a, b, f = alpha + length * step, beta + length * step_b, smooth + length * moved
                new = self._loss(f + b * side) + penalty / 2 * self._inner(a, f)
                # The last term: at the bottom, rounding decides which of two is larger.
                uphill = new > objective + 1e-4 * length * slope + ROUNDING * objective
                if not uphill.any():
                    break
                length = np.where(uphill, length / 2, length)
            alpha, beta, smooth, objective = a, b, f, new
        raise RequestError(
            f"an episode's probe didn't converge in {MAX_STEPS} steps at strength {strength:g}; "
            "name a smaller one with --strengths"
        )

    def _step(
        self,
        probabilities: Floats,
        pull: tuple[Floats, Floats, Floats],
        size: Floats,
        penalty: float,
        side: Floats,
    ) -> tuple[Floats, Floats, Floats]:
        """Solve Hessian @ step = -pull, in float32: a step is a direction, no more.

        A pull and a step are each a, b and aK.
        """
        residual, residual_b, residual_smooth = (-part.astype(np.float32) for part in pull)
        probabilities, side = probabilities.astype(np.float32), side.astype(np.float32)
        size = size.astype(np.float32)
        directions = [residual, residual_b, residual_smooth]
        steps = [np.zeros_like(part) for part in directions]
        enough = CG_RESIDUAL**2 * size
        for _ in range(CG_STEPS):
            a, b, smooth = directions
            bent = self._bend(probabilities, smooth + b * side)
            image, image_b = bent + penalty * a, (bent * side).sum(axis=2, keepdims=True)
            length = ratio(size, self._inner(smooth, image) + self._inner(b, image_b))
            steps = [s + length * d for s, d in zip(steps, directions, strict=True)]
            residual, residual_b = residual - length * image, residual_b - length * image_b
            residual_smooth = residual @ self.gram
            new_size = self._inner(residual, residual_smooth) + self._inner(residual_b, residual_b)
            if (new_size <= enough).all():
                break
            onward = ratio(new_size, size)
            found = residual, residual_b, residual_smooth
            directions = [r + onward * d for r, d in zip(found, directions, strict=True)]
            size = new_size
        return steps[0], steps[1], steps[2]

    def _times_gram(self, a: Floats) -> Floats:
        """aK; in float32, where it is half the time: all that decides is summed in float64."""
        return (a.astype(np.float32) @ self.gram).astype(np.float64)

    def _start(self) -> Floats:
        """The intercepts (e, C', 1) that give the classes' own shares; 0 where there are none."""
        n_ones = self.targets.sum(axis=2, keepdims=True)
        n_known = self.counts.sum(axis=2, keepdims=True)
        share = n_ones / np.maximum(n_known, 1)
        inside = (n_known > 0) & (share > 0) & (share < 1)
        safe = np.where(inside, share, 0.5)
        return np.where(inside, np.log(safe) - (0 if self.coupled else np.log1p(-safe)), 0.0)

    def _unseen(self) -> Floats:
        """(e, C', 1) what keeps classes without samples out of the softmax."""
        return np.where(self.targets.any(axis=2, keepdims=True), 0.0, NEVER)

    def _inner(self, a: Floats, b: Floats) -> Floats:
        """Inner product, (e, 1, 1) coupled or (e, C', 1)."""
        products = np.einsum("ecn,ecn->ec", a, b)[:, :, None]
        return products.sum(axis=1, keepdims=True) if self.coupled else products

    def _loss(self, logits: Floats) -> Floats:
        """Sum of log-losses, (e, 1, 1) coupled or (e, C', 1)."""
        if self.coupled:
            logits = logits + self._unseen()
            top = logits.max(axis=1, keepdims=True)
            partition = np.log(np.exp(logits - top).sum(axis=1, keepdims=True)) + top
            losses = partition - (logits * self.targets).sum(axis=1, keepdims=True)
            return (losses * self.counts[:, :1]).sum(axis=2, keepdims=True)
        losses = np.logaddexp(0, logits) - logits * self.targets
        return (self.counts * losses).sum(axis=2, keepdims=True)

    def _probabilities(self, logits: Floats) -> Floats:
        return softmax(logits + self._unseen(), 1) if self.coupled else sigmoid(logits)

    def _bend(self, probabilities: Floats, logits: Floats) -> Floats:
        """How the probabilities move with the logits."""
        moved = probabilities * logits
        if self.coupled:
            moved = moved - probabilities * moved.sum(axis=1, keepdims=True)
        else:
            moved = moved - probabilities * moved
        return self.counts * moved


# ------------------------------------------------------------------------------- ridge


def _leave_one_out(
    batch: _Batch, targets: Floats, penalties: Doubles
) -> tuple[Doubles, Doubles, Doubles]:
    """a (e, O, n), intercepts (e, O, 1) and the penalty (e,) of the smallest leave-one-out error.

    Args:
        batch: the episodes.
        targets: (e, n, O).
        penalties: (p,), the largest first.
    """
    real = batch.is_real[:, :, None]
    n = batch.is_real.sum(axis=1)[:, None, None]
    mean = (targets * real).sum(axis=1, keepdims=True) / n
    centred = (targets - mean) * real
    # In float64, means off again: where the fit runs through every sample, 1 - h is so small that
    # float32's rounding would decide what is chosen.
    x = batch.x.astype(np.float64)
    x -= real * x.sum(axis=1, keepdims=True) / n
    eigenvalues, basis = np.linalg.eigh(x @ x.transpose(0, 2, 1))
    eigenvalues = np.maximum(eigenvalues, 0)
    rotated = basis.transpose(0, 2, 1) @ centred  # (e, n, O)
    best = np.full(len(batch.rows), np.inf)
    chosen = np.full(len(batch.rows), penalties[0])
    for penalty in penalties:
        shrunk = eigenvalues / (eigenvalues + penalty * n[:, :, 0])  # (e, n)
        fitted = basis @ (shrunk[:, :, None] * rotated)
        hat = np.einsum("eij,ej,eij->ei", basis, shrunk, basis)[:, :, None] + 1 / n
        # A sample that nothing but its own label speaks for: leaving it out says nothing.
        left = np.where(hat < 1 - 1e-9, 1 - hat, np.nan)
        errors = np.where(real, (centred - fitted) / left, 0)
        error = np.square(errors).sum(axis=(1, 2)) / (n[:, 0, 0] * targets.shape[2])
        better = error < best  # never where it is nan
        best, chosen = np.where(better, error, best), np.where(better, penalty, chosen)
    scaled = rotated / (eigenvalues + chosen[:, None] * n[:, :, 0])[:, :, None]
    return (basis @ scaled).transpose(0, 2, 1), mean.transpose(0, 2, 1), chosen
