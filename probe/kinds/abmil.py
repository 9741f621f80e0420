"""Attention over a sample's rows, and their plain mean beside it: Ilse, Tomczak and Welling 2018.

A volume's slices, or a patient's views, are a bag; the label is the bag's. Other kinds see the mean
of a bag's rows, or their maximum. Here attention is learnt with the head: see
``probe.solvers.abmil``. Each seed gives two rows, ``pooling`` "gated" and "mean". The second is the
special case a = 1 / K with the same head, batches, grid and choice: what attention is worth is the
difference between these two.

Facts: L is 128 and the batch one bag in the authors' code (AMLab-Amsterdam/AttentionDeepMIL,
model.py, main.py), with Adam at 5e-4 for 20 epochs and weight decay 1e-4. Here the rate and the
decay are chosen without test, by trainings of one seed; all seeds then train with the chosen ones.
Batches of 32 bags and dropout of 0.25 on the hidden units follow later releases (kaiko-ai/eva 32,
mahmoodlab/Patho-Bench 0.25). Out of fold on AdrenalMNIST3D (a ViT-S, 28 slices) rate
and decay are best at 0.03 and 1 for attention, and at 0.01 and 0.01 for the mean.
Classes are not weighted: scores stay probabilities under the classes' shares, as of other kinds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cache.aggregate import aggregate_rows
from cache.commands.settings import check, setting
from cache.errors import RequestError
from probe.answer import Answer
from probe.arrays import Array, Doubles, Indices, Singles
from probe.bags import Bags, has_bags, number_samples, numbers_of, read_bags
from probe.choosing.plan import Choice, Plan, choose
from probe.episodes.draw import FewShotConfig
from probe.kinds.adamw import SECTION
from probe.kinds.kind import Kind, Problem
from probe.metrics.losses import loss_name, loss_of
from probe.questions.question import Question, Split, pick
from probe.solvers.abmil import Course, Models, Rate, Scales, train
from probe.solvers.epochs import check_device
from probe.solvers.outputs import Outputs, check_classes

GATED, MEAN = "gated", "mean"
SEARCH_SEED = 0  # of the trainings that choose, whatever --seeds says: a row depends on no other's
EPOCHS, LEAST = 20, 500


@dataclass(frozen=True)
class Abmil(Kind):
    """Gated attention over the rows of each sample, trained with a linear head; their mean beside it.

    Raises:
        RequestError: a number out of its range, or one that is named twice.
    """

    lrs: tuple[float, ...] = setting(
        (1e-3, 3e-3, 1e-2, 3e-2), "", flag="--lr", above=0, unlike=True
    )
    weight_decays: tuple[float, ...] = setting(
        (1.0, 1e-2), "", flag="--weight-decay", least=0, unlike=True
    )
    hidden: int = setting(128, "hidden units of its attention", metavar="N", least=1)
    dropout: float = setting(0.25, "of abmil's hidden units", metavar="P", least=0, below=1)
    batch_size: int = setting(32, "", least=1)
    iterations: int | None = setting(
        None, "of abmil in all", least=1, shown=f"{EPOCHS} passes, {LEAST} at least"
    )
    seeds: tuple[int, ...] = setting(
        (0, 1, 2), "", least=0, unlike=True, takes="different numbers from 0 up"
    )
    device: str = setting("cpu", "", shown="")

    name = "abmil"
    section = SECTION
    reads_rows = True
    joins_encoders = False
    own_scale = True

    def __post_init__(self) -> None:
        check(self)

    @property
    def candidates(self) -> list[Rate]:
        """The strongest regularisation first."""
        decays = sorted(self.weight_decays, reverse=True)
        return [Rate(lr, decay) for lr in sorted(self.lrs) for decay in decays]

    def check_few_shot(self, few_shot: FewShotConfig, by_protocol: bool) -> None:
        raise RequestError(
            "--kind abmil takes no --shots: an episode's few bags are too few to choose a training "
            "on; --kind linear --shots takes the mean of each sample's rows"
        )

    def check_question(self, question: Question) -> None:
        super().check_question(question)
        features = (question.trained_on or question).features
        if not has_bags(features):
            raise RequestError(
                f"each sample of {features.dataset} is one row, so there is nothing to attend to; "
                "use --kind linear, or make a patient's images one sample: `extract data add --sample-col`"
            )

    def answer(self, problem: Problem) -> Iterator[Answer]:
        """For each seed the answer of attention and that of the mean.

        Raises:
            RequestError: what can't be answered.
        """
        check_device(self.device)
        question, places = problem.question, problem.places
        n_test, splits = len(problem.splits["test"]), number_samples(question)
        splits["test"] = pick(splits["test"], np.arange(n_test))
        plan = replace(problem, splits=splits).plan(len(self.candidates))
        learnt = tested = read_bags(problem.fitted_on.features, places)
        if question.trained_on:
            tested = read_bags(question.features, places)
        outputs = Outputs(problem.task.word, problem.task.n_classes)
        rounds = [_Ground.of(learnt, fit_on, outputs) for fit_on, _ in plan.rounds()]
        final = _Ground.of(learnt, plan.final, outputs) if plan.is_refitted else rounds[0]
        asked = [
            _Pooling(GATED, self, self.hidden, learnt, tested, outputs),
            _Pooling(MEAN, self, 0, _means(learnt), _means(tested), outputs),
        ]
        choices = [self._choose(pooling, plan, rounds) for pooling in asked]
        held, test = [part for _, part in plan.rounds()], numbers_of(splits["test"])
        for seed in self.seeds:
            for pooling, choice in zip(asked, choices, strict=True):
                rate, loss = self.candidates[choice.place], loss_name(problem.task.word)
                fits = [pooling.train(ground, [rate], seed) for ground in rounds]
                fit = pooling.train(final, [rate], seed) if plan.is_refitted else fits[0]
                held_out = [
                    _alone(one, pooling.learnt, numbers_of(part))
                    for one, part in zip(fits, held, strict=True)
                ]
                scores = {
                    plan.held_out_name: plan.gather(held_out),
                    "test": _alone(fit, pooling.tested, test),
                }
                is_told = n_test and pooling.name == GATED
                yield Answer(
                    {
                        "pooling": pooling.name,
                        **self._row_settings,
                        "training_seed": seed,
                        **plan.settings(loss),
                    },
                    {**rate._asdict(), **_said(plan, choice, loss)},
                    scores,
                    [*plan.marks, *self._marks(rate, choice)],
                    extras=_attention(fit, tested, test, question) if is_told else {},
                    trained_parameters=fit.n_parameters,
                )

    def _choose(self, pooling: _Pooling, plan: Plan, rounds: Sequence[_Ground]) -> Choice:
        if len(self.candidates) == 1:
            return Choice(0, np.empty(0), np.empty(0, np.int64))
        losses = []
        for ground, (_, held) in zip(rounds, plan.rounds(), strict=True):
            models = pooling.train(ground, self.candidates, SEARCH_SEED)
            losses.append(
                [
                    np.inf if scores is None else loss_of(scores, held.y, pooling.outputs.task)
                    for scores in models.scores(pooling.learnt, numbers_of(held))
                ]
            )
        return choose(np.array(losses), plan.n_held_out)

    @property
    def _row_settings(self) -> dict[str, Any]:
        names = ("hidden", "dropout", "batch_size", "iterations")
        rates = {"lrs": sorted(self.lrs), "weight_decays": sorted(self.weight_decays)}
        about = {"search_seed": SEARCH_SEED, "class_weights": "none", "standardised": True}
        return {**rates, **{name: getattr(self, name) for name in names}, **about}

    def _marks(self, rate: Rate, choice: Choice) -> list[str]:
        marks = []
        if n := int(np.isinf(choice.losses).sum()):
            marks.append(f"{n} of {len(choice.losses)} settings diverged")
        if len(self.lrs) > 1 and rate.lr in (min(self.lrs), max(self.lrs)):
            marks.append(f"the chosen learning rate {rate.lr:g} is the end of the grid")
        return marks


def _said(plan: Plan, choice: Choice, loss: str) -> dict[str, Any]:
    """``Plan.said``, where a setting that diverged has no loss."""
    return {
        name: [None if math.isinf(value) else value for value in values]
        for name, values in plan.said(choice, loss).items()
    }


def _alone(models: Models, bags: Bags, samples: Indices) -> Doubles:
    """(n, C) scores of the one setting.

    Raises:
        RequestError: it diverged.
    """
    (scores,) = models.scores(bags, samples)
    if scores is None:
        raise RequestError("training diverged; name smaller learning rates with --lr")
    return scores


@dataclass(frozen=True)
class _Ground:
    """What is trained on; both poolings take it by the same scales."""

    samples: Indices  # (n,) their numbers
    targets: Singles  # (n, O)
    scales: Scales

    @staticmethod
    def of(bags: Bags, split: Split, outputs: Outputs) -> _Ground:
        check_classes(split.y)
        samples = numbers_of(split)
        return _Ground(samples, outputs.targets(split.y), Scales.of(bags, samples))


@dataclass(frozen=True)
class _Pooling:
    """One way to make a bag one vector, and what it sees of the bags."""

    name: str  # GATED or MEAN
    kind: Abmil
    hidden: int  # of attention; 0: it is the same for all rows
    learnt: Bags
    tested: Bags
    outputs: Outputs

    def train(self, ground: _Ground, rates: Sequence[Rate], seed: int) -> Models:
        kind, n = self.kind, len(ground.samples)
        n_steps = kind.iterations or max(EPOCHS * (n // kind.batch_size), LEAST)
        course = Course(self.hidden, kind.dropout, kind.batch_size, n_steps)
        return train(
            *(self.learnt, ground.samples, ground.targets, rates, seed),
            *(self.outputs, course, ground.scales, kind.device),
        )


def _means(bags: Bags) -> Bags:
    """Each bag as one row, its mean: to a linear head the same as equal attention to all."""
    numbers = np.arange(len(bags.counts))
    of_rows = np.repeat(numbers, bags.counts)
    x = aggregate_rows(bags.x, of_rows, len(numbers), "mean")
    return Bags(x, np.arange(len(numbers) + 1), numbers)


def _attention(fit: Models, bags: Bags, samples: Indices, question: Question) -> dict[str, Array]:
    """Of all rows of test, beside their own ids and their sample's."""
    from cache.format.read import read_table  # h5py: --help shouldn't wait for it

    features = question.features
    rows = bags.rows[bags.rows_of(samples)]
    return {
        "rows_attention": fit.attention(bags, samples)[:, 0],
        "rows_ids": read_table(features.header, "rows/ids")[rows],
        "rows_sample": np.repeat(features.ids[samples], bags.counts[samples]),
    }
