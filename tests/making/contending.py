"""Rows with scores, as if encoders of known skill had answered; nothing is stored."""

import dataclasses

import numpy as np
from answering import make_row

from cache.task import Task
from probe.metrics.measure import measure
from probe.metrics.metric import Measuring
from probe.metrics.patients import Scored
from probe.report.rows.contenders import contenders_of
from probe.report.rows.people import People
from probe.report.rows.stored import StoredRow
from probe.results import TrainedOn

NOBODY = People(None)  # no row of these names patients


def labels_of(n=120, n_classes=2, seed=0):
    return (
        np.arange(n) % n_classes
        if seed is None
        else np.random.default_rng(seed).permutation(np.arange(n) % n_classes)
    )


def scores_of(labels, skill, seed, n_classes=2, episodes=0):
    """Probabilities whose logit of the truth is higher by skill."""
    rng = np.random.default_rng(seed)
    shape = (episodes,) if episodes else ()
    logits = rng.normal(size=(*shape, len(labels), n_classes))
    logits += skill * (labels[:, None] == np.arange(n_classes))
    powers = np.exp(logits)
    return powers / powers.sum(axis=-1, keepdims=True)


def answer(
    model,
    scores,
    labels,
    *,
    dataset="toys",
    kind="linear",
    samples=None,
    tables=None,
    size=32,
    n=None,
    split=None,
    ids=None,
    prepared="",
    trained=None,
    **settings,
):
    """A row of these answers to test."""
    ids = np.array([f"{dataset}/{i:05d}" for i in range(len(labels))]) if ids is None else ids
    n_classes = scores.shape[-1]
    word = "binary-class" if n_classes == 2 else "multi-class"
    task = Task(word, tuple(f"class {c}" for c in range(n_classes)))
    measured = measure(
        {"test": Scored(scores, labels, ids, None)}, task, measuring=Measuring(n_resamples=50)
    )
    row = make_row(kind, dataset, **settings)
    encoded = dataclasses.replace(
        row.encoded,
        model=model,
        encoder=f"{model}.full",
        task=word,
        protocol=prepared,
        size=size,
        digest=f"{model:0<64}",
        samples=samples or {"labels": 1, "split": 2},
        tables=tables or {},
    )
    of = trained and TrainedOn(trained, "e" * 64, {}, {}, {}, {})
    posed = dataclasses.replace(row.posed, split=split or {}, leaks=None, trained_on=of)
    arrays = {
        "test_scores": scores,
        "test_labels": labels,
        "test_ids": ids,
        "class_names": np.array(task.class_names),
    }
    row = dataclasses.replace(
        row,
        encoded=encoded,
        posed=posed,
        measured=measured,
        scores=arrays,
        marks=(),
        n=n or {"train": 80, "val": 0, "test": len(labels)},
    )
    return StoredRow(row)


def contenders(*rows):
    return contenders_of(rows)
