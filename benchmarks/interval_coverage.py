"""How often intervals hold the truth, on test sets whose truth is known.

    python benchmarks/interval_coverage.py            # a minute

Each test set is drawn anew: scores of negatives are normal, those of positives the same and
shifted, so that the AUC of all there could be is known exactly. The accuracy and every other truth
is measured on a million samples. 95 % is right; less is a promise broken. In brackets the mean
width. The last table draws
patients with eight images each, once as if images were independent, once by patient.
"""

from __future__ import annotations

import argparse
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from probe.delong import delong
from probe.intervals import estimate, resampled_metrics
from probe.metrics import BINARY, MULTI_CLASS, auc, evaluate

SHOWN = ("acc", "auc", "balanced_accuracy", "f1_macro", "brier")


def draw(
    rng: np.random.Generator, n: int, share: float, shift: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Posterior probabilities (n, 2) and labels (n,), of which a share are positives."""
    labels = (rng.random(n) < share).astype(int)
    z = rng.normal(size=n) + shift * labels
    p = 1 / (1 + np.exp(-(shift * z - shift**2 / 2 + np.log(share / (1 - share)))))
    return np.stack([1 - p, p], axis=1), labels


def draw_patients(
    rng: np.random.Generator, n_patients: int, n_images: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.str_]]:
    """As ``draw``, but most of what scatters is the patient, not the image."""
    labels = (rng.random(n_patients) < 0.27).astype(int)
    of_patient = rng.normal(size=n_patients) + 1.2 * labels
    z = np.repeat(of_patient, n_images) + 0.5 * rng.normal(size=n_patients * n_images)
    p = 1 / (1 + np.exp(-(z - 1.2)))
    groups = np.repeat(np.arange(n_patients).astype(str), n_images)
    return np.stack([1 - p, p], axis=1), np.repeat(labels, n_images), groups


def compare_auc(n_sets: int, n: int, share: float) -> None:
    """DeLong beside the percentile bootstrap, for probes from poor to near perfect."""
    print(f"\nAUC, {n} samples, {share:.0%} positives, {n_sets} test sets: covered (width)")
    for area in (0.7, 0.8, 0.9, 0.95, 0.99):
        shift = NormalDist().inv_cdf(area) * np.sqrt(2)
        rng = np.random.default_rng(0)
        ends: dict[str, list[tuple[float, float]]] = {"DeLong": [], "bootstrap": []}
        for seed in range(n_sets):
            scores, labels = draw(rng, n, share, shift)
            ends["DeLong"].append(delong(scores, labels, BINARY))
            samples = resampled_metrics(scores, labels, BINARY, 500, seed)["auc"]
            ends["bootstrap"].append(tuple(np.nanpercentile(samples, [2.5, 97.5])))
        print(f"  {area:.2f}   " + "   ".join(_told(k, v, area) for k, v in ends.items()))


def compare_several(n_sets: int, n: int, n_classes: int = 5) -> None:
    """The mean of one-vs-rest AUCs: their covariances count."""
    shares = 0.5 ** np.arange(n_classes)
    spread = 2 * np.random.default_rng(5).normal(size=(n_classes, n_classes))

    def several(rng: np.random.Generator, n: int) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        labels = rng.choice(n_classes, n, p=shares / shares.sum())
        logits = rng.normal(size=(n, n_classes)) + 0.5 * spread[labels] + np.eye(n_classes)[labels]
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels

    truth = auc(*several(np.random.default_rng(1), 400_000), MULTI_CLASS)
    rng = np.random.default_rng(0)
    ends = [delong(*several(rng, n), MULTI_CLASS) for _ in range(n_sets)]
    print(f"\nmean of {n_classes} AUCs, {n} samples: {_told('DeLong', ends, truth)}")


def compare_metrics(n_sets: int, n: int, share: float) -> None:
    """Every metric by the method that is its own."""
    shift = NormalDist().inv_cdf(0.8) * np.sqrt(2)
    truth = evaluate(*draw(np.random.default_rng(1), 1_000_000, share, shift), BINARY)
    rng = np.random.default_rng(0)
    found = [
        estimate(*draw(rng, n, share, shift), BINARY, 500, seed).metrics for seed in range(n_sets)
    ]
    print(f"\nall metrics, {n} samples, {n_sets} test sets")
    for name in SHOWN:
        print("  " + _told(name, [f[name][1:] for f in found], truth[name]))


def compare_patients(n_sets: int, n_patients: int = 60, n_images: int = 8) -> None:
    """What it costs to take a patient's images for independent."""
    scores, labels, _ = draw_patients(np.random.default_rng(1), 100_000, n_images)
    truth = evaluate(scores, labels, BINARY)
    rng = np.random.default_rng(0)
    by_sample, by_patient = [], []
    for seed in range(n_sets):
        scores, labels, groups = draw_patients(rng, n_patients, n_images)
        by_sample.append(estimate(scores, labels, BINARY, 300, seed).metrics)
        by_patient.append(estimate(scores, labels, BINARY, 300, seed, groups=groups).metrics)
    print(f"\n{n_patients} patients with {n_images} images each, {n_sets} test sets")
    for name in SHOWN:
        told = [
            _told(k, [f[name][1:] for f in found], truth[name])
            for k, found in (("as images", by_sample), ("by patient", by_patient))
        ]
        print(f"  {name:20}" + "   ".join(told))


def _told(name: str, ends: list[tuple[float, float]], truth: float) -> str:
    low, high = np.array(ends).T
    covered = np.mean((low <= truth) & (truth <= high))
    return f"{name} {covered:.1%} ({np.mean(high - low):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description="How often intervals hold the truth.")
    parser.add_argument("--sets", type=int, default=1000, help="test sets (%(default)s)")
    n_sets = parser.parse_args().sets
    compare_auc(n_sets, 156, 0.27)
    compare_several(n_sets, 400)
    compare_metrics(n_sets // 2, 156, 0.27)
    compare_patients(n_sets // 4)


if __name__ == "__main__":
    main()
