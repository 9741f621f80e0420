"""What is learned: targets, the loss of each sample, and scores, for every task.

The tasks of classes share their targets and scores with the probe's heads (probe/solvers/outputs.py), so
that a frozen encoder's head learns the same thing here and there.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cache.errors import RequestError
from cache.task import MISSING, MULTI_CLASS, MULTI_LABEL, ORDINAL, REGRESSION, Task
from finetune.config import TrainConfig
from probe.metrics import classification as metrics
from probe.solvers.outputs import Outputs

LARGEST_METRIC = {"acc", "auc", "balanced_accuracy", "kappa"}


@dataclass(frozen=True)
class Objective:
    """The task of one data set, as a head of O logits learns it.

    Raises:
        RequestError: labels that don't fit the task, or a choice by what the task hasn't.
    """

    task: str  # one of cache.task.TASKS
    n_classes: int  # C
    config: TrainConfig
    choose_by: str = field(init=False)  # "auto" settled
    # Continuous labels are learned as (label - centre) / spread, of the training labels.
    centre: float = 0.0
    spread: float = 1.0

    def __post_init__(self) -> None:
        wish = self.config.choose_by
        if wish == "auto":
            by_task = {ORDINAL: "kappa", MULTI_CLASS: "balanced_accuracy"}
            wish = "loss" if self.task == REGRESSION else by_task.get(self.task, "auc")
        if self.task == REGRESSION and wish != "loss":
            raise RequestError(
                f"--choose-by {wish} is of classes; continuous labels take --choose-by loss"
            )
        if wish == "kappa" and self.task != ORDINAL:
            raise RequestError(f"--choose-by kappa is of ordered classes, found {self.task}")
        object.__setattr__(self, "choose_by", wish)

    @property
    def outputs(self) -> Outputs:
        """What the logits of classes mean."""
        return Outputs(self.task, self.n_classes, self.config.one_logit, self.config.by_sigmoid)

    @property
    def score_type(self) -> str:
        """What the scores are, as rows have it: probabilities, or sigmoids that don't sum to 1."""
        return metrics.PROBABILITY if self.task == REGRESSION else self.outputs.score_type

    @property
    def n_logits(self) -> int:
        """O."""
        return 1 if self.task == REGRESSION else self.outputs.n_logits

    def targets(self, labels: NDArray) -> NDArray[np.float32]:
        """(S, O) what the logits of all samples are trained towards; nan where nothing is known."""
        if self.task == REGRESSION:
            return ((labels[:, None] - self.centre) / self.spread).astype(np.float32)
        known = labels != MISSING
        targets = np.full((len(labels), self.n_logits), np.nan, np.float32)
        is_asked = known.any(axis=1) if known.ndim == 2 else known
        targets[is_asked] = self.outputs.targets(labels[is_asked])
        return targets

    def losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(B,) each sample's loss from (B, O) logits and targets.

        Cross-entropy; binary cross-entropy where logits are independent, the mean over labels, of
        which a missing one counts nothing; squared error of continuous labels.
        """
        logits = logits.float()
        if self.task == REGRESSION:
            return (logits - targets).square()[:, 0]
        if not self.outputs.is_independent:
            return -(targets * logits.log_softmax(dim=1)).sum(dim=1)
        known = ~targets.isnan()
        each = F.binary_cross_entropy_with_logits(
            logits, targets.nan_to_num(nan=0.0), reduction="none"
        )
        return (each * known).mean(dim=1)

    def weight(self, n_samples: int) -> float:
        """What the sum of a batch's losses is multiplied by: one over its samples, or 1.

        The sum of several labels' losses is what Baharoon et al. 2023 trained with
        (DINOv2ForRadiology, eval/classification/linear.py:318-328).
        """
        summed = self.task == MULTI_LABEL and self.config.multi_label_loss == "sum"
        return 1.0 if summed else 1 / n_samples

    def scores(self, logits: NDArray[np.floating]) -> NDArray[np.float64]:
        """(Q, O) logits -> (Q, C) scores in 0..1, or (Q, 1) predictions of continuous labels."""
        if self.task == REGRESSION:
            return logits.astype(np.float64) * self.spread + self.centre
        return self.outputs.scores(logits)

    def judge(self, logits: NDArray[np.floating], labels: NDArray) -> dict[str, float]:
        """The metrics of val at a check, the loss among them."""
        targets = torch.from_numpy(self.targets(labels))
        loss = float(self.losses(torch.from_numpy(logits), targets).double().mean())
        scores = self.scores(logits)
        if not np.isfinite(scores).all():
            return {"loss": math.nan}
        if self.task == REGRESSION:
            return {"mae": float(np.abs(scores[:, 0] - labels).mean()), "loss": loss}
        return {**metrics.evaluate(scores, labels, self.task, self.score_type), "loss": loss}

    def rank(self, judged: dict[str, float]) -> float:
        """The value that checkpoints are chosen by, higher is better; nan where undefined."""
        value = judged.get(self.choose_by, math.nan)
        return value if self.choose_by in LARGEST_METRIC else -value


def make_objective(task: Task, train_labels: NDArray, config: TrainConfig) -> Objective:
    """The objective of a data set.

    Args:
        task: of C classes.
        train_labels: of the training samples.
        config: the settings.

    Raises:
        RequestError: one class only, or one number only, in training; see ``Objective``.
    """
    if task.is_continuous:
        spread = float(train_labels.std())
        if not spread > 0:
            raise RequestError("all training labels are one number: nothing is to be learned")
        return Objective(task.word, 1, config, float(train_labels.mean()), spread)
    if train_labels.ndim == 1 and (train_labels == train_labels[0]).all():
        name = task.class_names[train_labels[0]]
        raise RequestError(
            f"training needs two classes, found only {name} among the {len(train_labels)} "
            "training samples"
        )
    return Objective(task.word, task.n_classes, config)
