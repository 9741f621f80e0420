"""How long ten thousand rows take to read: with their index, while it is made, and without.

    python benchmarks/results_index.py            # two minutes, most of them to write the rows
    python benchmarks/results_index.py --rows 1000 --folder somewhere   # which keeps them

Rows of twelve data sets, 156 test samples each, as a kNN probe writes them. Each reading is a process
of its own, and in turn, so that a busy machine slows all; the smallest of three counts. With the
index ten thousand rows are to take at most 3 s, and 15 s while it is made.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from probe.metrics.intervals import Interval
from probe.metrics.measure import Measured
from probe.report.rows.index import INDEX
from probe.results import Answered, Encoded, Posed, Row, write_row

N_DATASETS, N_TEST, ROUNDS = 12, 156, 3
METRICS = ("acc", "auc", "balanced_accuracy", "f1_macro", "brier", "ece")
# Reads, and prints how long that took and the largest size of the process, MB.
READ = """
import json, resource, sys, time
from pathlib import Path
from probe.report.rows.stored import read_stored, stored_files
from probe.report.rows import stored
root = Path(sys.argv[1])
if sys.argv[2] == "without":
    stored.RowIndex.save = lambda self: None
start = time.perf_counter()
rows, problems = read_stored(root, stored_files(root))
took = time.perf_counter() - start
assert not problems
print(json.dumps([len(rows), took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3]))
"""


def make_rows(n: int) -> Iterator[Row]:
    """Rows of several encoders and data sets, each another k."""
    rng = np.random.default_rng(0)
    labels = np.arange(N_TEST) % 2
    ids = np.array([f"test/{i:06d}" for i in range(N_TEST)])
    key = {
        **{"encoder": "vit", "weights": f"sha256:{'a' * 64}", "precision": "fp32", "format": 1},
        "transform": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"},
    }
    for number in range(n):
        scores = rng.random((N_TEST, 2))
        test = {name: Interval(*rng.random(3)) for name in METRICS}
        yield Row(
            Encoded(
                *(f"encoder{number % 7}", "encoder.full", 224, f"data{number % N_DATASETS}"),
                *("binary-class", "d" * 64, key, {"labels": 1, "split": 2}),
                {"patients": None, "ids": 3, "images of a sample": 3},
            ),
            Posed(leaks={"n": 5, "exact": 1, "near": 2, "groups": None}),
            Answered({"kind": "knn", "layer": 11, "pool": "cls", "k": number, "read": ["test"]}),
            Measured(dict.fromkeys(METRICS, 0.5), test, intervals=dict.fromkeys(METRICS, "delong")),
            0,
            {"train": 546, "val": 78, "test": N_TEST},
            0.1,
            {"medprobe": "0.1.0", "numpy": np.__version__},
            ("compared by 5 folds of train and val (78 val samples)",),
            {"test_scores": scores, "test_labels": labels, "test_ids": ids},
        )


def read(root: Path, how: str) -> tuple[float, float]:
    """Seconds and MB of a reading in a process of its own."""
    if how != "with":
        shutil.rmtree(root / INDEX, ignore_errors=True)
    words = [sys.executable, "-c", READ, str(root), how]
    found = subprocess.run(words, check=True, capture_output=True, text=True)
    _, seconds, megabytes = json.loads(found.stdout)
    return seconds, megabytes


def main() -> None:
    parser = argparse.ArgumentParser(description="Read ten thousand rows.")
    parser.add_argument("--rows", type=int, default=10_000, help="(10000)")
    parser.add_argument("--folder", type=Path, help="where rows are, or will be (a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = options.folder or Path(temporary)
        if not any(root.glob("*/*.json")):
            for row in make_rows(options.rows):
                write_row(root, row)
        ways = ("without", "made", "with")  # in this order: "with" finds what "made" left
        rounds = [{how: read(root, how) for how in ways} for _ in range(ROUNDS)]
        size = sum(path.stat().st_size for path in (root / INDEX).iterdir())
    best = {how: min(each[how] for each in rounds) for how in ways}
    for how, (seconds, megabytes) in best.items():
        share = seconds / best["without"][0]
        print(f"{how:8} {seconds:6.2f} s  {share:5.2f} of without  {megabytes:5.0f} MB")
    print(f"the index takes {size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
