"""From answers to numbers: every metric of the task, and what must be said of them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cache.task import MISSING, Task
from probe.arrays import Array, Floats, Ints
from probe.metrics import classification as metrics
from probe.metrics import structures
from probe.metrics.calibration import N_FOLDS, Votes
from probe.metrics.classification import PROBABILITY, indicators
from probe.metrics.episodes import estimate_episodes
from probe.metrics.intervals import Estimates, Interval, clusters, estimate
from probe.metrics.marks import marks_of, unlearnt, why_no_auc
from probe.metrics.metric import Measuring, asked_for
from probe.metrics.patients import Scored
from probe.metrics.prepared import METRICS, prepare
from probe.metrics.ranking import Ranking


@dataclass(frozen=True)
class Measured:
    """The numbers of one answer."""

    val: Mapping[str, float]  # empty where val has no samples; where folds decided, out of fold
    test: Mapping[str, Interval]  # empty where test wasn't read; of episodes the means over them
    # What a reader of them must know; a stored row has all in one list.
    marks: Sequence[str] = ()
    # How each interval of test was made: "wilson", "delong"..., see probe.metrics.intervals.
    intervals: Mapping[str, str] = field(default_factory=dict)
    # Lists over classes, on test: class, n, recall, auc...; see probe.metrics.measure; of masks
    # see probe.metrics.structures, and so of sizes of structures.
    per_class: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    temperature: float | None = None  # fitted on val, of ece_tempered; None: nothing to fit
    # Few-shot: name -> each episode's metric; see probe.metrics.episodes.
    episodes: Mapping[str, Sequence[float]] = field(default_factory=dict)
    # n and every metric of the test samples that have no twin; empty where all have none.
    without_twins: Mapping[str, float] = field(default_factory=dict)
    per_size: Mapping[str, Sequence[Any]] = field(default_factory=dict)


def measure(
    scored: Mapping[str, Scored],
    task: Task,
    *,
    score_type: str = metrics.PROBABILITY,
    learnt: Array | None = None,
    votes: Votes | None = None,
    measuring: Measuring | None = None,
    protocol: str = "",
    patch_pixels: Floats | None = None,
    images: Sequence[Array] | None = None,
) -> Measured:
    """Evaluate val, and test with intervals; of few-shot episodes test alone.

    Args:
        scored: "val" and "test" -> answers and labels, at times none. Scores are probabilities or
            margins, of regression predictions, of segmentation what overlaps. Those of val must be of a probe that wasn't fitted
            to val: the temperature is.
        task: its word, and the names of C classes.
        score_type: ``probe.metrics.classification.PROBABILITY``, ``MARGIN`` or ``UNNORMALISED``; only of
            probabilities there are figures of calibration.
        learnt: labels that the answers to val learnt from, where they learnt.
        votes: what smooths the scores before they are tempered, where they are shares of votes.
        measuring: of episodes, how often their test is drawn.
        protocol: whose metrics are asked for, beside those of all.
        patch_pixels: of masks, see ``probe.metrics.structures.per_size``; None: nothing is told by size.
        images: of samples that are several images each, what is known of these, as scores and labels
            have it; sizes are then of images.

    Raises:
        RequestError: what ``probe.metrics.prepared.prepare`` refuses.
    """
    test, val = scored["test"], scored.get("val")
    word, of_val, has_classes = task.word, {}, not (task.is_continuous or task.is_dense)
    marks = [*metrics.SCORE_MARKS[score_type]] if has_classes else []
    temperature = None
    if val is not None and len(val.labels):
        of_val = prepare(val.scores, val.labels, word, score_type).evaluate()
        are_probabilities = score_type == metrics.PROBABILITY and has_classes
        if are_probabilities and (val.labels != MISSING).any():
            why = "" if learnt is None else unlearnt(learnt, val.labels, task)
            if not why:
                fold = None if val.groups is None else clusters(val.groups) % N_FOLDS
                temperature = metrics.fit_temperature(
                    val.scores, val.labels, word, votes=votes, fold=fold
                )
            if temperature is None:
                why = why or "the truth of a val sample has the probability 0"
                marks.append(f"no temperature: {why}")
    found, by_class, by_size = Estimates({}, {}, {}, 0, ""), {}, {}
    if test.scores.ndim == 3:
        drawn = measuring or Measuring()
        of = test.scores, test.labels, word, drawn.n_resamples, drawn.seed
        found = estimate_episodes(*of, score_type=score_type, groups=test.groups)
    elif len(test.labels):
        of = test.scores, test.labels, word
        more = {"score_type": score_type, "temperature": temperature, "votes": votes}
        found = estimate(*of, **more, groups=test.groups)
        if task.is_dense:
            by_class = structures.per_class(test.scores, test.labels, task)
            if images is not None and patch_pixels is not None:
                more, by_size = structures.per_image(images[0], images[1], task, patch_pixels)
                by_class |= more
            elif patch_pixels is not None:
                by_size = structures.per_size(test.scores, test.labels, task, patch_pixels)
        elif has_classes:
            by_class = per_class(test.scores, test.labels, task, score_type)
    if found.metrics:
        marks += marks_of(found, test.labels, task)
        marks += structures.marks_of(test.scores, test.labels, task) if task.is_dense else []
    if val is not None and np.isnan(of_val.get("auc", 0)):
        marks.append(why_no_auc("val", val.labels, task))
    if "auc" in found.metrics and np.isnan(found.metrics["auc"].value):
        marks.append(why_no_auc("test", test.labels, task))
    asked = asked_for({*of_val, *found.metrics}, METRICS, protocol)
    return Measured(
        _only(of_val, asked),
        _only(found.metrics, asked),
        marks,
        _only(found.methods, asked),
        by_class,
        temperature,
        _only(found.episodes, asked),
        per_size=by_size,
    )


def _only(values: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in names}


def per_class(
    scores: Floats, labels: Ints, task: Task, score_type: str = PROBABILITY
) -> dict[str, list[Any]]:
    """The metrics of each class against the rest, or of each label by itself.

    Args:
        scores: (N, C) probabilities or margins.
        labels: (N,), or (N, C) for the multi-label task.
        task: its word, and the names of C classes.
        score_type: see ``probe.metrics.classification``.

    Returns:
        Lists of C: "class", its name; "n", how many samples are of it; "recall", the share of those
        that are answered so; "auc"; and for the multi-label task "average_precision". nan where
        there is nothing to measure on: no sample is of the class, or, for the AUC, every one is.
    """
    sums = indicators(scores, labels, task.word, score_type).sum(axis=0)
    several = task.has_several_labels
    # Of one of several labels the class is its value one.
    hits, n = (a[:, 1] if several else a for a in sums[:2].astype(np.float64))
    recall = np.divide(hits, n, out=np.full(len(n), np.nan), where=n > 0)
    whole = np.ones((1, len(scores)), np.int32)
    truths = [labels[:, c] if several else labels == c for c in range(task.n_classes)]
    problems = [
        Ranking(scores[:, c], truth == 1, truth == 0)  # a missing label is neither
        for c, truth in enumerate(truths)
    ]
    found: dict[str, list[Any]] = {
        "class": [str(name) for name in task.class_names],
        "n": n.astype(int).tolist(),
        "recall": recall.tolist(),
        "auc": [float(problem.auc(whole)[0]) for problem in problems],
    }
    if several:
        precision = [float(problem.average_precision(whole)[0]) for problem in problems]
        found["average_precision"] = precision
    return found
