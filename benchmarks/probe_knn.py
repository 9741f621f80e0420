"""What kNN costs beyond its matrix products: every k of a list over many layers and pools.

    python benchmarks/probe_knn.py            # half a minute
    python benchmarks/probe_knn.py --bank 90000 --queries 17000 --matrices 4

Floor: the products of all queries with the bank, in float32 and in blocks, by numpy. Then faiss alone
on prepared float32, and the probe's own scores from stored float16: casting, lengths, search, ties
and the votes of every k. Rounds take turns, so that a busy machine slows all three; the smallest
CPU time of each counts. The probe is to stay within 1.5 times the products.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from cache.task import MULTI_CLASS
from probe.kinds.knn import Knn
from probe.solvers.faiss_library import faiss_versions, load_faiss
from probe.solvers.knn import scores
from probe.solvers.neighbours import SPARE

N_CLASSES = 7
BLOCK = 1024  # queries of one product: its result stays in memory that is warm


def synthetic(n_images: int, width: int, seed: int) -> Any:
    """Features (N, D) in float16, whose spectrum falls like those of vision transformers."""
    spectrum = np.arange(1, width + 1, dtype=np.float32) ** -0.5
    noise = np.random.default_rng(seed).standard_normal((n_images, width), dtype=np.float32)
    return (noise * spectrum).astype(np.float16)


def unit(features: Any) -> Any:
    features = features.astype(np.float32)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def cpu_seconds(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def products(bank: Any, queries: Any) -> None:
    for start in range(0, len(queries), BLOCK):
        np.matmul(queries[start : start + BLOCK], bank.T)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bank", type=int, default=7007)
    parser.add_argument("--queries", type=int, default=3008)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--matrices", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    faiss = load_faiss()
    config = Knn(k=(1, 5, 10, 20, 50, 100, 200))
    labels = np.random.default_rng(0).integers(0, N_CLASSES, options.bank)
    total = dict.fromkeys(("products", "faiss", "probe"), 0.0)
    k = max(config.k) + SPARE

    def search(points: Any, queries: Any) -> None:
        faiss.knn(queries, points, k, metric=faiss.METRIC_INNER_PRODUCT)

    for number in range(options.matrices):
        bank = synthetic(options.bank, options.width, 2 * number)
        queries = synthetic(options.queries, options.width, 2 * number + 1)
        points, asked = unit(bank), unit(queries)
        work = {
            "products": lambda p=points, a=asked: products(p, a),
            "faiss": lambda p=points, a=asked: search(p, a),
            "probe": lambda b=bank, q=queries: scores(config, b, labels, q, MULTI_CLASS, N_CLASSES),
        }
        rounds = [{name: cpu_seconds(w) for name, w in work.items()} for _ in range(options.rounds)]
        for name in total:
            total[name] += min(found[name] for found in rounds)
    print(
        f"{options.matrices} matrices, bank {options.bank}, queries {options.queries}, k {config.k}"
    )
    print(", ".join(f"{name} {version}" for name, version in faiss_versions().items()))
    for name, seconds in total.items():
        print(
            f"{name:<10}{seconds:8.2f} s of CPU, {seconds / total['products']:.2f} x the products"
        )


if __name__ == "__main__":
    main()
