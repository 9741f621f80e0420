"""How alike two models answer: the same class, and errors in common beside what chance would give."""

import math
from dataclasses import dataclass

import numpy as np

from cache.task import MULTI_LABEL
from probe.metrics import classification
from probe.report.statistics.paired import Answers, Samples, disagreement


@dataclass(frozen=True)
class Agreement:
    """Two models' answers to n samples; of several trainings the first's."""

    n: int
    same: float  # share of samples that both give the same class; of several labels all of them
    kappa: float  # of these answers (Cohen 1960): 1 the same, 0 as by chance; nan of several labels
    n_both: int  # samples that both get wrong
    n_either: int  # that at least one gets wrong
    chance: float  # share of errors in common of independent models with these error rates

    @property
    def in_common(self) -> float:
        """Errors of both / errors of either; nan where there is none."""
        return self.n_both / self.n_either if self.n_either else math.nan


def agreement(a: Answers, b: Answers, test: Samples) -> Agreement:
    """Compare two models' answers; of classes only.

    Args:
        a: one model's answers to n samples.
        b: the other's, in the same order.
        test: the samples.
    """
    found = disagreement(a, b, test)
    right = found.right
    wrong_a, wrong_b = ((right.neither + only) / found.n for only in (right.only_b, right.only_a))
    both = wrong_a * wrong_b
    either = wrong_a + wrong_b - both
    same = 1 - found.differ / found.n
    return Agreement(
        found.n,
        same,
        _kappa(a, b, test, same),
        right.neither,
        right.neither + right.only_a + right.only_b,
        both / either if either else math.nan,
    )


def _kappa(a: Answers, b: Answers, test: Samples, same: float) -> float:
    if test.task == MULTI_LABEL:
        return math.nan
    shares = []
    for x in (a, b):
        answers = classification.predict(x.runs[0], test.task, x.score_type).astype(int)
        shares.append(np.bincount(answers, minlength=x.runs.shape[2]) / len(answers))
    chance = float(shares[0] @ shares[1])
    return (same - chance) / (1 - chance) if chance < 1 else math.nan
