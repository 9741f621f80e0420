"""Whether an earlier row is of the samples that are asked for now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cache.errors import RequestError
from probe.questions.question import Question


def refuse_other_samples(row: Mapping[str, Any], question: Question, name: str) -> None:
    """Refuse a row of other images, labels or another split than are asked for now.

    Args:
        row: the earlier one.
        question: the question.
        name: of the row, for messages.

    Raises:
        RequestError: they differ; the message says in what.
    """
    dataset = row["features"].get("dataset")
    if row.get("trained_on"):
        raise RequestError(
            f"{name} learnt from {row['trained_on'].get('dataset')} and was tested on {dataset}; "
            "name a row of one data set"
        )
    if dataset != question.dataset:
        raise RequestError(f"{name} is of {dataset}, and {question.dataset} is asked for")
    found = row["features"].get("samples", {})
    other = [what for what in ("labels", "split") if found.get(what) != question.samples.get(what)]
    if other or row["features"].get("task") != question.task.word:
        raise RequestError(
            f"{name} has another {' and other '.join(reversed(other)) or 'task'} of "
            f"{question.dataset}; take the same --labels, --target, --split and --split-seed, or --split-file"
        )
