"""What the logits of a trained head mean: its targets, its loss, its gradient, its scores.

Heads that are trained step by step (adamw.py, heads.py) share this. A head has O logits for C
classes: one for each, or a single one where two classes are told apart by a sigmoid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.task import BINARY, MISSING, MULTI_LABEL, Task
from probe.arrays import Doubles, Floats, Ints, Singles
from probe.metrics.classification import PROBABILITY, UNNORMALISED, check_labels
from probe.solvers.head import SIGMOID, SOFTMAX, Head
from probe.solvers.logistic import sigmoid, softmax
from probe.solvers.standardise import check_rows, chunks, refuse_infinite

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Outputs:
    """The logits of a head and what they stand for."""

    task: str  # one of cache.task.CLASSIFICATION
    n_classes: int  # C
    one_logit: bool = True  # two classes: one logit through a sigmoid, or two through a softmax
    # Several classes: score each by its own sigmoid, though not trained so. No probabilities.
    by_sigmoid: bool = False

    @property
    def is_independent(self) -> bool:
        """Whether every logit goes through a sigmoid of its own in training."""
        return self.task == MULTI_LABEL or (self.task == BINARY and self.one_logit)

    @property
    def score_type(self) -> str:
        """What the scores are: sigmoids of classes that exclude one another don't sum to 1."""
        is_loose = self.by_sigmoid and self.task not in (BINARY, MULTI_LABEL)
        return UNNORMALISED if is_loose else PROBABILITY

    def head(self, weights: Floats, intercept: Floats, task: Task) -> Head:
        """A head whose (D, O) weights have these outputs."""
        is_loose = self.is_independent or self.score_type == UNNORMALISED
        return Head(weights, intercept, SIGMOID if is_loose else SOFTMAX, task)

    @property
    def n_logits(self) -> int:
        """O."""
        return 1 if self.task == BINARY and self.one_logit else self.n_classes

    def targets(self, labels: Ints) -> Singles:
        """What the logits are trained towards.

        Args:
            labels: (N,), or (N, C) for the multi-label task, where some may be MISSING.

        Returns:
            (N, O) zeros and ones; nan where a label is missing.

        Raises:
            RequestError: labels that don't fit the task.
        """
        check_labels(labels, self.task, self.n_classes)
        if self.task == MULTI_LABEL:
            return np.where(labels == MISSING, np.nan, labels).astype(np.float32)
        classes = np.arange(self.n_classes)[-self.n_logits :]
        return (labels[:, None] == classes).astype(np.float32)

    def gradient(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Each image's loss, by each logit: (..., O, B); of the B images no mean is taken yet.

        Cross-entropy; or binary cross-entropy, the mean over logits, where they are independent.
        A missing label's gradient is 0.

        Args:
            logits: (..., O, B); overwritten.
            targets: (..., O, B), as ``targets`` makes them; may broadcast.
        """
        if not self.is_independent:
            return logits.softmax(dim=-2).sub_(targets)
        return logits.sigmoid_().sub_(targets).nan_to_num_(nan=0.0).div_(self.n_logits)

    def losses(self, logits: Doubles, targets: Floats) -> NDArray:
        """(Q,) loss of each image, in nats, from (Q, O) logits and targets."""
        if not self.is_independent:
            top = logits.max(axis=1, keepdims=True)
            log_sums = top[:, 0] + np.log(np.exp(logits - top).sum(axis=1))
            return log_sums - (logits * targets).sum(axis=1)
        # log(1 + exp(z)) - y z, without overflow.
        nats = np.logaddexp(0, logits) - np.nan_to_num(targets) * logits
        return np.where(np.isnan(targets), 0, nats).mean(axis=1)

    def scores(self, logits: Floats) -> Doubles:
        """(Q, O) logits -> (Q, C) scores in 0..1; of one label they sum to 1, unless
        ``score_type`` says that they don't.
        """
        logits = logits.astype(np.float64)
        if self.task == BINARY and self.one_logit:
            return np.hstack([sigmoid(-logits), sigmoid(logits)])
        if self.is_independent or self.score_type == UNNORMALISED:
            return sigmoid(logits)
        return softmax(logits, 1)

    def answers(self, features: Floats, weights: Singles, intercept: Singles) -> Doubles:
        """(Q, C) scores of images by a head of (D, O) weights, a block at a time, in float32."""
        scores = np.empty((len(features), self.n_classes))
        for rows in chunks(len(features)):
            block = np.asarray(features[rows], np.float32)
            scores[rows] = self.scores(block @ weights + intercept)
        return scores


def check_training(features: Floats, labels: Ints) -> None:
    """Refuse what no head can be trained on.

    Raises:
        RequestError: a label isn't there for each row, there is only one class, or features are
            not finite.
    """
    check_rows(features, labels)
    check_classes(labels)
    check_finite(features)


def check_classes(labels: Ints) -> None:
    """Refuse training labels (N,) of one class.

    Raises:
        RequestError: there is only one class.
    """
    if labels.ndim == 1 and (labels == labels[0]).all():
        raise RequestError(
            f"a linear head needs two classes, found only class {labels[0]} among the "
            f"{len(labels)} training images: train on more of them"
        )


def check_finite(features: Floats) -> None:
    """Refuse features (N, D) that are not.

    Raises:
        RequestError: they aren't.
    """
    refuse_infinite(features.sum(axis=0, dtype=np.float64))
