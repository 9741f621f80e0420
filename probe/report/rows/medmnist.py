"""Test scores as the files that MedMNIST's own evaluator reads.

``medmnist.Evaluator.parse_and_evaluate`` (medmnist/evaluator.py, 3.0.2) takes
``{flag}[_{size}]_{split}_[AUC]{auc:.3f}_[ACC]{acc:.3f}@{run}.csv``, each of whose lines, without a
heading, is the number of a sample in its split and the probability of each class or label.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cache.errors import RequestError
from cache.format.key import file_stem
from cache.task import BINARY, NEVER_WRONG
from probe.arrays import Array
from probe.metrics.classification import MARGIN, UNNORMALISED
from probe.report.rows.beside import short_name
from probe.report.rows.stored import StoredRow

FLAG = re.compile(r"[a-z]+mnist(3d)?")  # a data set of MedMNIST
TEST_ID = re.compile(r"test/(\d+)")  # of a sample of its files: its number
SMALLEST = 28  # pixels; the evaluator's files of this size don't name it
N_DIGITS = 8  # of a row's id in a file's name


@dataclass(frozen=True)
class Standard:
    """One file for the evaluator."""

    name: str
    text: str


def standard_files(of: StoredRow) -> Iterator[Standard]:
    """A row's test scores, a file for each few-shot episode.

    Scores that are no probabilities are moved into 0 to 1 in their order, their threshold to .5, so
    that the evaluator's AUC and accuracy are the row's.

    Raises:
        RequestError: it isn't of MedMNIST's own test set and labels, or its scores are lost.
    """
    row, e = of.row, of.row.encoded
    if not FLAG.fullmatch(e.dataset) or e.task in NEVER_WRONG:
        raise RequestError(f"{e.dataset} is no data set of MedMNIST")
    if row.posed.target or row.posed.split:
        raise RequestError("it was asked with other labels or another split than MedMNIST's")
    if e.task == BINARY and row.answered.score_type == UNNORMALISED:
        raise RequestError("its scores don't sum to 1: the evaluator would decide otherwise")
    arrays = of.scores()
    if "test_scores" not in arrays:
        raise RequestError("it hasn't read test")
    found = [TEST_ID.fullmatch(str(name)) for name in arrays["test_ids"]]
    numbers = [int(match[1]) for match in found if match]
    if sorted(numbers) != list(range(len(found))):
        raise RequestError("its test samples aren't those of MedMNIST's file")
    scores = _as_probabilities(
        np.asarray(arrays["test_scores"], np.float64), row.answered.score_type
    )
    run = f"{file_stem(short_name(e))}-{row.answered.kind}-{of.id[:N_DIGITS]}"
    run = re.sub(r"[@.]", "-", run)  # of which the evaluator cuts the name apart
    if scores.ndim == 2:
        auc, acc = (row.measured.test[name].value for name in ("auc", "acc"))
        yield _make(of, run, auc, acc, numbers, scores)
        return
    for number, each in enumerate(scores):
        auc, acc = (row.measured.episodes[name][number] for name in ("auc", "acc"))
        yield _make(of, f"{run}-{number}", auc, acc, numbers, each)


def _make(
    of: StoredRow, run: str, auc: float, acc: float, numbers: list[int], scores: Array
) -> Standard:
    size = of.row.encoded.parts[0].key.get("source_size")
    sized = "" if size in (None, SMALLEST) else f"_{size}"
    name = f"{of.row.encoded.dataset}{sized}_test_[AUC]{auc:.3f}_[ACC]{acc:.3f}@{run}.csv"
    lines = [
        ",".join([str(number), *(repr(float(score)) for score in scores[place])])
        for place, number in enumerate(numbers)
    ]
    return Standard(name, "\n".join(lines) + "\n")


def _as_probabilities(scores: Array, score_type: str) -> Array:
    if score_type != MARGIN:
        return scores
    # Not the logistic function, which makes large margins equal: x / (1 + |x|) does so far later.
    return 0.5 + scores / (2 * (1 + np.abs(scores)))
