"""How fast the probes' own solvers are, beside scikit-learn in the same run.

    python benchmarks/probe_solvers.py            # two minutes
    OMP_NUM_THREADS=1 python benchmarks/probe_solvers.py --path FILES     # DINOv2's 45 strengths on
                                                  # real features, cls and mean: ten minutes
    ... --train 90000 --every 4 --path FILES      # every fourth of them: half an hour
    python benchmarks/probe_solvers.py --large    # 90,000 images, ours alone: minutes

Features are synthetic, float16, with a spectrum that falls like those of vision transformers. The
objective of scikit-learn's path is compared with ours: a solver that stops early is fast, too.
"""

from __future__ import annotations

import argparse
import resource
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from cache import open_features
from cache.task import BINARY, MULTI_CLASS
from probe.kinds import ridge
from probe.kinds.linear import STRENGTHS, Linear, LinearFit, fit_path, path_losses
from probe.metrics.classification import auc
from probe.metrics.intervals import estimate
from probe.metrics.losses import log_loss
from probe.solvers.neighbours import neighbours


def synthetic(n_images: int, width: int, n_classes: int, seed: int = 0) -> tuple[Any, Any]:
    """Features (N, D) whose spectrum falls as j^-0.7, and labels (N,) of unequal shares."""
    rng = np.random.default_rng(seed)
    shares = 0.6 ** np.arange(n_classes) + 0.05
    labels = rng.choice(n_classes, n_images, p=shares / shares.sum())
    fixed = np.random.default_rng(1)
    rotation = np.linalg.qr(fixed.normal(size=(width, width)))[0].astype(np.float32)
    spectrum = np.arange(1, width + 1, dtype=np.float32) ** -0.7
    centres = 1.2 * fixed.normal(size=(n_classes, width)) * (fixed.random(width) < 0.05)
    features = np.empty((n_images, width), dtype=np.float16)
    for start in range(0, n_images, 4096):  # in pieces: the peak of memory is to be the solver's
        rows = slice(start, start + 4096)
        noise = rng.standard_normal((len(labels[rows]), width), dtype=np.float32)
        features[rows] = ((noise + centres.astype(np.float32)[labels[rows]]) * spectrum) @ rotation
    return features, labels


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def scikit_learn_path(features: Any, labels: Any, tolerance: float) -> list[float]:
    """The same strengths by scikit-learn: the objective at each, warm-started."""
    standardised = StandardScaler().fit_transform(features.astype(np.float64))
    model = LogisticRegression(tol=tolerance, max_iter=1000, warm_start=True)
    objectives = []
    for strength in Linear().strengths:
        model.set_params(C=strength).fit(standardised, labels)
        logs = model.predict_log_proba(standardised)[np.arange(len(labels)), labels]
        objectives.append(-strength * logs.sum() + (model.coef_**2).sum() / 2)
    return objectives


def compare_linear(n_images: int, width: int, n_classes: int, tolerance: float) -> None:
    features, labels = synthetic(n_images, width, n_classes)
    task = BINARY if n_classes == 2 else MULTI_CLASS
    ours, fits = timed(lambda: fit_path(features, labels, task, n_classes))
    theirs, objectives = timed(lambda: scikit_learn_path(features, labels, tolerance))
    excess = [theirs / fit.objective - 1 for theirs, fit in zip(objectives, fits, strict=True)]
    print(
        f"linear {n_images} x {width}, {n_classes} classes, {len(fits)} strengths: "
        f"{ours:.2f} s, scikit-learn (tol {tolerance:g}) {theirs:.2f} s: ratio "
        f"{theirs / ours:.1f}; its objective is above ours by {min(excess):.0e} to "
        f"{max(excess):.0e}; converged: {converged(fits)}"
    )


def read_rows(paths: Sequence[Path]) -> tuple[Any, Any]:
    """Features (N, 2D) of every image of some files, cls and mean side by side, and labels (N,).

    Real classes, and more than one data set has: the data set, its class, and of volumes the half
    that a slice is from. Several sizes of one data set share them.
    """
    parts, names = [], []
    for features in map(open_features, paths):
        cls, mean = (features.array(-1, pool) for pool in ("cls", "mean"))
        parts.append(np.concatenate([cls, mean], axis=1))
        sample = features.row_sample
        place = np.arange(len(sample)) - np.searchsorted(
            sample, sample
        )  # a sample's rows are in order
        half = 2 * place // np.bincount(sample)[sample]
        labels = features.labels.ravel()[sample]
        names += [f"{features.dataset} {y} {h}" for y, h in zip(labels, half, strict=True)]
    return np.concatenate(parts), np.unique(names, return_inverse=True)[1]


def objective_of(weights: Any, intercept: Any, x: Any, labels: Any, strength: float) -> float:
    """C * sum of log-losses + |weights|^2 / 2 in float64, on standardised features."""
    logits = x @ weights + intercept
    logits -= logits.max(axis=1, keepdims=True)  # log-probabilities may be -inf
    logs = logits[np.arange(len(x)), labels] - np.log(np.exp(logits).sum(axis=1))
    return float(-strength * logs.sum() + (weights**2).sum() / 2)


def compare_path(paths: Sequence[Path], n_train: int, n_val: int, every: int) -> None:
    """DINOv2's strengths and the choice on val, beside one LogisticRegression after the other.

    Seconds are CPU time, so that other processes don't count: give BLAS one thread, whose waiting
    would count, too.
    """
    x, labels = read_rows(paths)
    n_classes = int(labels.max()) + 1
    shuffled = np.random.default_rng(0).permutation(len(x))
    train, val = shuffled[:n_train], shuffled[n_train : n_train + n_val]
    strengths = STRENGTHS["dinov2"][::every]

    start = time.process_time()
    fits = fit_path(x[train], labels[train], MULTI_CLASS, n_classes, Linear(strengths))
    losses = path_losses(fits, x[val], labels[val], MULTI_CLASS)
    ours = time.process_time() - start
    print(f"{len(fits)} strengths in {ours:.1f} s, now scikit-learn", flush=True)

    theirs = -time.process_time()
    scaler = StandardScaler().fit(x[train].astype(np.float64))
    standardised, of_val = (scaler.transform(x[rows].astype(np.float64)) for rows in (train, val))
    theirs += time.process_time()
    their_losses, excess, apart = [], [], []
    for fit in fits:
        theirs -= time.process_time()
        model = LogisticRegression(C=fit.strength, max_iter=1000).fit(standardised, labels[train])
        scores = model.predict_proba(of_val)
        their_losses.append(log_loss(scores, labels[val], MULTI_CLASS))
        theirs += time.process_time()
        known = standardised, labels[train], fit.strength
        found = objective_of(fit.weights, fit.intercept, *known)
        excess.append(found / objective_of(model.coef_.T, model.intercept_, *known) - 1)
        our_auc = auc(fit.predict_scores(x[val]), labels[val], MULTI_CLASS)
        apart.append(abs(our_auc - auc(scores, labels[val], MULTI_CLASS)))
        print(
            f"  C {fit.strength:.2e}: {model.n_iter_.max()} iterations, {theirs:.0f} s so far; our "
            f"objective {excess[-1]:+.1e}, val AUC apart by {apart[-1]:.5f}",
            flush=True,
        )
    print(
        f"path {len(train)} x {x.shape[1]}, {n_classes} classes, {len(fits)} strengths: {ours:.1f} s, "
        f"scikit-learn {theirs:.1f} s: ratio {theirs / ours:.1f}; our objective is above its by "
        f"{max(excess):.0e} at most; chosen: {fit_at(fits, losses)} and "
        f"{fit_at(fits, np.array(their_losses))}; val AUC there apart by "
        f"{apart[int(np.argmin(losses))]:.5f}, at most {max(apart):.5f}; converged: {converged(fits)}"
    )


def fit_at(fits: list[LinearFit], losses: Any) -> str:
    return f"{fits[int(np.argmin(losses))].strength:.3g}"


def converged(fits: list[LinearFit]) -> str:
    return f"{sum(fit.converged for fit in fits)} of {len(fits)}"


def compare_ridge(n_images: int, width: int) -> None:
    features, labels = synthetic(n_images, width, 7)
    targets = labels[:, None] + np.random.default_rng(2).normal(size=(n_images, 1))
    ours, fits = timed(lambda: ridge.fit_path(features, targets))

    def slowly() -> list[Any]:
        standardised = StandardScaler().fit_transform(features.astype(np.float64))
        models = [Ridge(alpha=fit.penalty * n_images, solver="cholesky") for fit in fits]
        return [model.fit(standardised, targets).coef_.ravel() for model in models]

    theirs, weights = timed(slowly)
    apart = [
        np.abs(fit.weights[:, 0] - w).max() / np.abs(w).max()
        for fit, w in zip(fits, weights, strict=True)
    ]
    print(
        f"ridge {n_images} x {width}, {len(fits)} penalties: {ours:.2f} s, scikit-learn {theirs:.2f} "
        f"s: ratio {theirs / ours:.1f}; weights apart by at most {max(apart):.0e}"
    )


def compare_knn(n_bank: int, n_queries: int, width: int) -> None:
    bank, queries = synthetic(n_bank, width, 7)[0], synthetic(n_queries, width, 7, seed=3)[0]
    search = NearestNeighbors(n_neighbors=200, algorithm="brute")
    for metric in ("cosine", "euclidean"):
        ours, (_, found) = timed(lambda metric=metric: neighbours(bank, queries, 200, metric))
        search.set_params(metric=metric).fit(bank.astype(np.float64))
        theirs, expected = timed(lambda: search.kneighbors(queries.astype(np.float64))[1])
        print(
            f"knn {metric} {n_queries} x {n_bank} x {width}, k = 200: {ours:.2f} s, scikit-learn "
            f"{theirs:.2f} s: ratio {theirs / ours:.1f}; same neighbours: "
            f"{np.mean(found == expected):.5f}"
        )


def compare_many_classes(n_images: int, width: int, n_classes: int, strength: float) -> None:
    """One strength of so many classes that arrays over classes and images are what takes time."""
    rng = np.random.default_rng(0)
    labels = np.arange(n_images) % n_classes
    features = rng.normal(size=(n_classes, width))[labels] + rng.normal(size=(n_images, width))
    config = Linear(strengths=(strength,))
    ours, fits = timed(lambda: fit_path(features, labels, MULTI_CLASS, n_classes, config))
    x = StandardScaler().fit_transform(features)
    model = LogisticRegression(C=strength, max_iter=1000)
    theirs, _ = timed(lambda: model.fit(x, labels))
    excess = objective_of(model.coef_.T, model.intercept_, x, labels, strength) / fits[0].objective
    print(
        f"linear {n_images} x {width}, {n_classes} classes, one strength: {ours:.2f} s, scikit-learn "
        f"{theirs:.2f} s: ratio {theirs / ours:.1f}; its objective is above ours by {excess - 1:.0e}"
    )


def compare_intervals(n_images: int, n_classes: int) -> None:
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.ones(n_classes), n_images)
    labels = np.array([rng.choice(n_classes, p=row) for row in scores])
    task = BINARY if n_classes == 2 else MULTI_CLASS
    groups = (np.arange(n_images) // 2).astype(str)
    ours, _ = timed(lambda: estimate(scores, labels, task, groups=groups))
    columns = [1] if n_classes == 2 else range(n_classes)

    def slowly() -> None:
        for _ in range(10):
            rows = rng.integers(n_images, size=n_images)
            for c in columns:
                roc_auc_score(labels[rows] == c, scores[rows, c])

    theirs = 100 * timed(slowly)[0]
    print(
        f"intervals {n_images} x {n_classes}, by patient: {ours:.2f} s for all metrics; 1000 "
        f"resamples of scikit-learn's AUC alone {theirs:.1f} s (from 10): ratio {theirs / ours:.0f}"
    )


def measure_large() -> None:
    features, labels = synthetic(90_000, 768, 9)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, fits = timed(lambda: fit_path(features, labels, MULTI_CLASS, 9))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"linear 90000 x 768, 9 classes, {len(fits)} strengths: {seconds:.1f} s, converged: "
        f"{converged(fits)}; peak memory {after / 1024:.0f} MB, {before / 1024:.0f} MB of it before"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the probes' solvers beside scikit-learn.")
    parser.add_argument("--large", action="store_true", help="90,000 images, ours alone")
    parser.add_argument(
        "--path", type=Path, nargs="+", help="feature files of one encoder, with cls and mean"
    )
    parser.add_argument("--train", type=int, default=7007, help="images of it to fit on")
    parser.add_argument("--val", type=int, default=1000, help="and to choose on")
    parser.add_argument("--every", type=int, default=1, help="take each so-many-th strength")
    given = parser.parse_args()
    # scikit-learn says so where it runs out of iterations; its excess says it, too.
    warnings.filterwarnings("ignore", message=".*failed to converge.*")
    if given.path:
        compare_path(given.path, given.train, given.val, given.every)
        return
    if given.large:
        measure_large()
        return
    compare_linear(546, 384, 2, tolerance=1e-4)  # scikit-learn's default
    compare_linear(546, 384, 2, tolerance=1e-7)  # one that reaches the optimum
    compare_linear(7007, 768, 7, tolerance=1e-4)
    compare_many_classes(20_000, 64, 1000, strength=0.1)
    compare_ridge(7007, 768)
    compare_knn(7007, 2005, 768)
    compare_intervals(156, 2)
    compare_intervals(47_280, 8)


if __name__ == "__main__":
    main()
