"""Result rows: as `probe` would write one, without having asked anything; and those it left."""

import hashlib
import json
import math

import numpy as np

from probe.metrics.intervals import Interval
from probe.metrics.measure import Measured
from probe.results import Answered, Encoded, Posed, Row


def make_row(kind="linear", dataset="toys", seed=0, auc=0.8, **probe):
    samples = {"labels": 1, "split": 2}
    return Row(
        Encoded("toy", "toy.full", 32, dataset, "binary-class", "d" * 64, {}, samples),
        Posed(leaks={"n": 5, "exact": 1, "near": 2, "groups": None}),
        Answered({"kind": kind, "layer": 3, "pool": "cls", **probe}, {"ddof": 1}),
        Measured(
            {"acc": 0.75, "auc": math.nan},
            {"acc": Interval(0.7, 0.6, 0.8), "auc": Interval(auc, math.nan, 0.9)},
            intervals={"acc": "wilson", "auc": "delong"},
            episodes={"acc": [0.6, math.nan]},
            without_twins={"n": 3, "acc": 0.5, "auc": math.nan},
        ),
        seed,
        n={"train": 10, "val": 5, "test": 5},
        seconds=0.1,
        versions={},
        marks=("a mark",),
    )


def scores_file(row):
    """The file of scores that stands beside a stored row."""
    (path,) = row.parent.glob(f"{row.stem}*.npz")
    return path


def rewrite(row, **fields):
    """Change fields of a stored row, and its checksum with them, as ROW.md says how."""
    content = json.loads(row.read_text()) | fields
    del content["sha256"]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    content["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    row.write_text(json.dumps(content))


def make_earlier(row, *fields):
    """Rewrite a stored row as medprobe wrote it before rows had checksums and weights, and without some fields.

    Returns:
        What it says now.
    """
    content = json.loads(row.read_text())
    for name in ("sha256", "scores_sha256", *fields):
        del content[name]
    content["row_version"] = 1
    row.write_text(json.dumps(content))
    path = scores_file(row)
    with np.load(path) as file:
        scores = {name: file[name] for name in file.files if not name.startswith("head")}
    path.unlink()
    np.savez(row.with_suffix(".npz"), **scores)
    return content
