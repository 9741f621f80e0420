"""Names of metrics, and what `measure` says of few-shot episodes and of one test set."""

import numpy as np

from cache.task import MULTI_CLASS, Task
from probe.metrics.classification import MARGIN, PROBABILITY, metrics_for
from probe.metrics.measure import measure
from probe.metrics.metric import Measuring
from probe.metrics.patients import Scored


def metric_names(task, score_type=PROBABILITY, tempered=False):
    return tuple(metric.name for metric in metrics_for(task, score_type, tempered))


EVERY = metric_names(MULTI_CLASS, MARGIN)  # of every task


def scored(scores, labels, groups=None):
    return Scored(scores, labels, np.arange(len(labels)).astype(str), groups)


def measure_episodes(
    scores, labels, task, n_resamples=1000, seed=0, groups=None, class_names=None, **settings
):
    names = class_names or [str(c) for c in range(scores.shape[2])]
    measuring, test = Measuring(n_resamples, seed), {"test": scored(scores, labels, groups)}
    return measure(test, Task(task, tuple(names)), measuring=measuring, **settings)
