"""How fast few-shot episodes are solved, beside scikit-learn in a loop, in the same run.

    python benchmarks/probe_fewshot.py                # synthetic features, a minute or two
    python benchmarks/probe_fewshot.py FILE.h5        # those of a file, its last layer
    python benchmarks/probe_fewshot.py --classes 9 --loop 10

The loop is StandardScaler, LogisticRegression, predict_proba for each episode, at the same
strength. It runs over ``--loop`` of the 100 episodes and is scaled up. Accuracies are compared
episode by episode: the same samples, the same test images.
"""

from __future__ import annotations

import argparse
import resource
import time
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from cache.task import BINARY, MULTI_CLASS, Task
from probe.episodes.draw import FewShotConfig, draw_episodes
from probe.metrics.classification import evaluate
from probe.places import default_pool, read_samples
from probe.solvers.episodes import STRENGTH, logistic_scores

SHOTS = (1, 2, 4, 8, 16, 32)  # paper 003 has 1 to 16, and all


def synthetic(n_classes: int, width: int = 768, n_train: int = 7007, n_test: int = 2005) -> Any:
    """Features whose spectrum falls as j^-0.7, split into train and test, with their labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, n_classes, n_train + n_test)
    centres = 1.2 * rng.normal(size=(n_classes, width)) * (rng.random(width) < 0.05)
    spectrum = np.arange(1, width + 1) ** -0.7
    features = (rng.normal(size=(len(labels), width)) + centres[labels]) * spectrum
    rotation = np.linalg.qr(rng.normal(size=(width, width)))[0]
    features = (features @ rotation).astype(np.float16)
    return features[:n_train], labels[:n_train], features[n_train:], labels[n_train:]


def stored(path: str) -> Any:
    """The last layer of a file with single labels, split into train and test, with their labels."""
    from cache import open_features

    found = open_features(path)
    x = read_samples(found, found.last_layer, default_pool(found, -1))
    train, test = found.split == "train", found.split == "test"
    return x[train], found.labels[train], x[test], found.labels[test]


def loop(train: Any, labels: Any, episodes: Any, test: Any) -> list[Any]:
    """scikit-learn, one episode after another: the scores of each."""
    scores = []
    for rows in episodes:
        scaler = StandardScaler().fit(train[rows])
        model = LogisticRegression(C=STRENGTH, max_iter=1000)
        model.fit(scaler.transform(train[rows]), labels[rows])
        scores.append(model.predict_proba(scaler.transform(test)))
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description="few-shot episodes beside scikit-learn")
    parser.add_argument("file", nargs="?")
    parser.add_argument("--classes", type=int, default=7)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--loop", type=int, default=10, help="episodes that the loop does")
    options = parser.parse_args()
    data = stored(options.file) if options.file else synthetic(options.classes)
    train, labels, test, test_labels = data
    n_classes = int(labels.max()) + 1
    task = BINARY if n_classes == 2 else MULTI_CLASS
    draws = draw_episodes(
        FewShotConfig(SHOTS, options.episodes),
        np.array([f"train/{i}" for i in range(len(labels))]),
        labels,
        Task(task, tuple(map(str, range(n_classes)))),
    )
    wide = train.astype(np.float64), test.astype(np.float64)  # as the loop wants it, not timed
    print(f"{train.shape[1]} features, {n_classes} classes, {len(test)} test images")
    sums = np.zeros(2)
    for shots, episodes in draws.items():
        start = time.perf_counter()
        ours = logistic_scores(train, labels, episodes, test, task, n_classes)
        mine = time.perf_counter() - start
        start = time.perf_counter()
        theirs = loop(wide[0], labels, episodes[: options.loop], wide[1])
        other = (time.perf_counter() - start) * len(episodes) / options.loop
        gaps = [
            evaluate(a, test_labels, task)["acc"] - evaluate(b, test_labels, task)["acc"]
            for a, b in zip(ours, theirs, strict=False)
        ]
        sums += mine, other
        print(
            f"{shots:3d} shots: {mine:6.2f} s, loop {other:7.2f} s, {other / mine:5.1f} times; "
            f"accuracy {np.mean(gaps):+.5f}, at most {np.abs(gaps).max():.5f} apart in an episode"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"all: {sums[0]:.2f} s, loop {sums[1]:.2f} s, {sums[1] / sums[0]:.1f} times; {peak:.0f} MB"
    )


if __name__ == "__main__":
    main()
