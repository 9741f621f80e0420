"""How long probes of all places side by side take, beside the places one by one, in the same run.

    OMP_NUM_THREADS=1 python benchmarks/probe_joined.py FILES           # real features: minutes
    OMP_NUM_THREADS=1 python benchmarks/probe_joined.py --wide 546 49152
    OMP_NUM_THREADS=1 python benchmarks/probe_joined.py --stored 20000 9216   # one product, and memory

Seconds are CPU time, so that other processes count little.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cache import open_features
from cache.task import BINARY, MULTI_CLASS
from probe.kinds import linear, ridge
from probe.solvers.logistic import learnable
from probe.solvers.standardise import Standard
from probe.solvers.training_matrix import Stored


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    found = work()
    return time.process_time() - start, found


def compare(name: str, parts: list[Any], labels: Any) -> None:
    """Both solvers and their left-out scores: joined, and the sum of the places one by one."""
    joined, n_classes = np.concatenate(parts, axis=1), int(labels.max()) + 1
    task = BINARY if n_classes == 2 else MULTI_CLASS
    fold, targets = np.arange(len(labels)) % 5, labels[:, None] * 2.0 - 1
    one, at = linear.Linear((0.01,)), ridge.Ridge((1.0,))
    works: dict[str, Callable[[Any], Any]] = {
        "logistic path": lambda x: linear.fit_path(x, labels, task, n_classes),
        "ridge path": lambda x: ridge.fit_path(x, targets),
        "logistic left out": lambda x: linear.left_out_scores(
            x, labels, fold, task, n_classes, one
        ),
        "ridge left out": lambda x: ridge.left_out_outputs(x, targets, fold, at),
    }
    for what, work in works.items():
        single = sum(timed(lambda x=x, work=work: work(x))[0] for x in parts)
        both = timed(lambda work=work: work(joined))[0]
        print(
            f"{name}, {what}: {joined.shape} {both:.1f} s, {len(parts)} places one by one {single:.1f} "
            f"s: ratio {both / single:.2f}; peak memory so far {peak():.0f} MB",
            flush=True,
        )


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def real(path: Path) -> None:
    """Train of a feature file, every layer with cls and mean."""
    features = open_features(path)
    rows = np.flatnonzero(features.split == "train")
    places = [(n, pool) for n in sorted(features.layers) for pool in features.layers[n]]
    parts = [features.by_sample(features.array(*place), "mean")[rows] for place in places]
    compare(f"{features.dataset}, {features.model}", parts, features.labels[rows].ravel())


def generated(n_rows: int, width: int) -> tuple[Any, Any]:
    """Float16 features of a falling spectrum, and labels of nine classes."""
    rng = np.random.default_rng(0)
    spectrum = np.arange(1, 513) ** -0.7
    mixing = (rng.normal(size=(512, width)) * spectrum[:, None]).astype(np.float32)
    labels = rng.integers(0, 9, n_rows)
    centres = rng.normal(size=(9, 512)).astype(np.float32)
    found = np.empty((n_rows, width), np.float16)
    for start in range(0, n_rows, 256):
        own = labels[start : start + 256]
        noise = rng.standard_normal((len(own), 512), np.float32)
        small = rng.standard_normal((len(own), width), np.float32)
        found[start : start + 256] = (centres[own] + noise) @ mixing + small
    return found, labels


def wide(n_rows: int, width: int) -> None:
    features, labels = generated(n_rows, width)
    compare("generated", np.split(features, 48, axis=1), labels)


def stored(n_rows: int, width: int) -> None:
    """What is not rotated: one pass over the features, from which hours follow."""
    features, labels = generated(n_rows, width)
    before = peak()
    seconds, standard = timed(lambda: Standard.of(features))
    targets, _, _ = learnable(labels, MULTI_CLASS, 9)
    start, problem = timed(lambda: Stored.of(features, standard, targets, None, True))
    weights = np.random.default_rng(1).normal(size=(9, problem.width))
    look = problem.look(problem.logits(0 * weights))
    product, _ = timed(lambda: problem.bend(look.probabilities, weights))
    cells = features.size / 1e9
    print(
        f"as stored, {features.shape}, 9 classes: {before:.0f} MB before, {peak():.0f} MB at most; "
        f"standardising {seconds / cells:.1f} s, a product {product / cells:.1f} s a thousand million "
        f"numbers; before the first {start:.0f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Time probes of joined places.")
    parser.add_argument("files", type=Path, nargs="*", help="feature files of every layer")
    parser.add_argument("--wide", type=int, nargs=2, metavar=("N", "D"))
    parser.add_argument("--stored", type=int, nargs=2, metavar=("N", "D"))
    given = parser.parse_args()
    for path in given.files:
        real(path)
    if given.wide:
        wide(*given.wide)
    if given.stored:
        stored(*given.stored)


if __name__ == "__main__":
    main()
