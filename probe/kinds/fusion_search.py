"""How the settings of attentive fusion are compared, and the chosen one answers, for one problem."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cache.errors import RequestError
from cache.splits.strata import divide
from cache.task import Task
from probe.answer import Answer
from probe.arrays import Array, Doubles, Floats, Indices, Singles
from probe.choosing.plan import Plan
from probe.kinds.fusion_settings import BALANCED, SEARCH_SEED, FusionSettings
from probe.kinds.kind import DivergedError, Problem
from probe.metrics.classification import evaluate
from probe.questions.question import Split, join
from probe.solvers.epochs import MAX_BYTES
from probe.solvers.fusion import Shape
from probe.solvers.fusion_training import (
    Course,
    Noise,
    Source,
    Tokens,
    Training,
    batch_size_of,
    loss_weights,
)
from probe.solvers.outputs import Outputs, check_finite
from probe.solvers.side_by_side import Parameters, Rate
from probe.solvers.standardise import Standard, chunks
from probe.solvers.temperature import fit_temperature, log_loss

RUNGS = (1 / 8, 1 / 4, 1 / 2)  # of the steps, after which the worse half is dropped
INNER_SHARES = (1, 4)  # of train: to choose on and to fit on


class Round(NamedTuple):
    """What is fitted to and asked: rows of all samples that are at hand."""

    tokens: Source
    rows: Indices
    labels: Array
    held_tokens: Source
    held_rows: Indices


class Found(NamedTuple):
    """The chosen setting."""

    place: int  # in the kind's candidates
    losses: list[float]  # (candidates,) the last that was seen of each; inf: it diverged
    steps: list[int]  # (candidates,) taken then


@dataclass
class Asking:
    """One problem: rounds, what is held out, and the trainings of both."""

    kind: FusionSettings
    problem: Problem
    plan: Plan

    def __post_init__(self) -> None:
        kind, task, plan = self.kind, self.problem.task, self.plan
        self._outputs = Outputs(task.word, task.n_classes, one_logit=False)
        self._noise = Noise(kind.noise, kind.is_absolute) if kind.noise else None
        is_balanced = kind.class_weights == BALANCED
        self._course = Course(
            kind.iterations, kind.epochs, kind.batch_size, self._noise, is_balanced
        )
        needs_both = plan.fold is not None or plan.refit != "train"
        self._pool = join(plan.train, plan.val) if needs_both else plan.train
        check_classes(plan.train.y, task)
        self._read()
        self._rounds = [*self._make_rounds()]
        self._held_labels = self._labels_held()
        # As many batches as of all of train, of which four fifths are fitted to.
        self._size = None
        if kind.chooses_inside:
            size = batch_size_of(len(plan.train), kind.batch_size)
            # check_batch_size of the release: batch norm takes no batch of one.
            self._size = size + (len(self._rounds[0].rows) % size == 1)

    def _read(self) -> None:
        """Look at the pool's features before anything is fitted.

        Raises:
            RequestError: they aren't finite.
        """
        check_finite(self._pool.x)

    def _standard(self, rows: Indices) -> Standard | None:
        """Of some of the pool; None: tokens are taken as they are."""
        if not self.kind.standardised:
            return None
        x = self._pool.x
        return Standard.of(x if len(rows) == len(x) else x[rows])

    def _tokens_of(self, split: Split, standard: Standard | None) -> Source:
        widths, kind = self.problem.widths, self.kind
        return Tokens(split.x, widths, standard, kind.pads_first, kind.device)

    def _shape(self) -> Parameters:
        widths = self.problem.widths
        return Shape(len(widths), max(widths), self._outputs.n_logits)

    def _train(self, *given: Any) -> Training:
        """``given``: what ``Training`` takes."""
        return Training(*given)

    # ------------------------------------------------------------ rounds

    def _make_rounds(self) -> Iterator[Round]:
        plan = self.plan
        if plan.fold is not None:
            part, n_parts = plan.fold, int(plan.fold.max()) + 1
        elif self.kind.chooses_inside:
            train = plan.train
            part = divide(INNER_SHARES, train.ids, train.y, None, SEARCH_SEED)
            if part.min():
                raise RequestError(f"a fifth of {len(train)} training images is none to choose on")
            n_parts = 1
        else:
            rows = np.arange(len(plan.train))
            standard = self._standard(rows)
            tokens, held = (self._tokens_of(x, standard) for x in (self._pool, plan.val))
            yield Round(tokens, rows, self._pool.y[rows], held, np.arange(len(plan.val)))
            return
        for held_out in range(n_parts):
            rows = np.flatnonzero(part != held_out)
            tokens = self._tokens_of(self._pool, self._standard(rows))
            held_rows = np.flatnonzero(part == held_out)
            yield Round(tokens, rows, self._pool.y[rows], tokens, held_rows)

    def _labels_held(self) -> Array:
        if self.plan.fold is None and not self.kind.chooses_inside:
            return self.plan.val.y
        return self._pool.y[np.concatenate([each.held_rows for each in self._rounds])]

    def _start(self, each: Round, rates: Sequence[Rate], seed: int) -> Training:
        fitted = each.tokens, each.rows, each.labels, self._outputs, self._course
        return self._train(*fitted, rates, seed, self._size)

    def _held_out(self, trainings: Sequence[Training]) -> Doubles:
        """(M, n, C) logits of what the rounds hold out."""
        noise = self._noise if self.kind.noise_on_val else None
        found = [
            training.answer(each.held_tokens, each.held_rows, noise)[0]
            for training, each in zip(trainings, self._rounds, strict=True)
        ]
        return np.concatenate(found, axis=1)

    # ------------------------------------------------------------ the search

    def search(self) -> Found:
        """The setting of the smallest loss; of equals the first.

        Raises:
            DivergedError: all did.
        """
        rates, n = self.kind.candidates, len(self.kind.candidates)
        losses, steps = [math.inf] * n, [0] * n
        if n == 1:
            return Found(0, [], [])
        if self.kind.halves:
            groups, rungs = [[*range(n)]], (*RUNGS, 1.0)
        else:  # no setting knows of the others
            size = max(1, MAX_BYTES // (12 * self._shape().n_parameters))
            groups, rungs = [[*range(n)[part]] for part in chunks(n, size)], (1.0,)
        for group in groups:
            alive = group
            own = [rates[i] for i in alive]
            trainings = [self._start(each, own, SEARCH_SEED) for each in self._rounds]
            for rung in rungs:
                for training in trainings:
                    training.run(math.ceil(rung * training.n_steps))
                for place, logits in zip(alive, self._held_out(trainings), strict=True):
                    losses[place] = self._loss(logits)
                    steps[place] = trainings[0].n_done
                if rung == 1 or not (best := self._better_half(alive, losses)):
                    break
                for training in trainings:
                    training.models.keep([alive.index(place) for place in best])
                alive, done = best, trainings[0]
                self.problem.say(
                    f"{self.kind.name} on {self.problem.question.title}: {len(alive)} of {n} settings go on "
                    f"after {done.n_done} of {done.n_steps} steps"
                )
        lasting = [i for i in range(n) if steps[i] == max(steps) and losses[i] < math.inf]
        if not lasting:
            raise DivergedError("every setting", f"try --lr {min(self.kind.lrs) / 10:g}")
        return Found(min(lasting, key=losses.__getitem__), losses, steps)

    @staticmethod
    def _better_half(alive: Sequence[int], losses: Sequence[float]) -> list[int]:
        finite = [place for place in alive if losses[place] < math.inf]
        best = sorted(finite, key=losses.__getitem__)[: -(-len(alive) // 2)]
        return sorted(best)

    def _loss(self, logits: Doubles) -> float:
        if not np.isfinite(logits).all():
            return math.inf
        labels, task = self._held_labels, self.problem.task
        if self.kind.chooses_inside:
            found = evaluate(self._outputs.scores(logits), labels, task.word)
            return 1 - found["balanced_accuracy"]
        return log_loss(logits / self._temperature(logits), *self._wanted())

    def _wanted(self) -> tuple[Floats, Singles, bool]:
        """Targets and weights of what is held out, and whether logits are independent."""
        labels, is_balanced = self._held_labels, self._course.is_balanced
        targets = np.nan_to_num(self._outputs.targets(labels))
        weights = loss_weights(labels, self._outputs, is_balanced)
        return targets, weights, self._outputs.is_independent

    def _temperature(self, logits: Doubles) -> float:
        labels = self._held_labels
        # Of one class the best answer to all is that class, and nothing is learnt of how sure to be.
        is_of_one = labels.ndim == 1 and len(np.unique(labels)) < 2
        if self.kind.chooses_inside or not len(logits) or is_of_one:
            return 1.0
        return fit_temperature(logits, *self._wanted())

    @property
    def _loss_name(self) -> str:
        if self.kind.chooses_inside:
            return "1 - balanced accuracy"
        balanced = "balanced " if self._course.is_balanced else ""
        return f"{balanced}tempered log-loss"

    # ------------------------------------------------------------ one seed

    def answers(self) -> Iterator[Answer]:
        """Search, then an answer for each seed.

        Raises:
            DivergedError: all settings, or the chosen one with some seed; after the others' answers.
        """
        found, diverged = self.search(), []
        for seed in self.kind.seeds:
            what = f"{self.kind.name} on {self.problem.question.title}"
            self.problem.say(f"{what}: training with seed {seed}")
            try:
                yield self.answer(found, seed)
            except DivergedError as error:
                diverged.append(error.what)
        if diverged:
            raise DivergedError(", ".join(diverged), f"try --lr {min(self.kind.lrs) / 10:g}")

    def answer(self, found: Found, seed: int) -> Answer:
        """The chosen setting trained with one seed.

        Raises:
            DivergedError: it did.
        """
        kind, plan, rate = self.kind, self.plan, self.kind.candidates[found.place]
        temperature, held = 1.0, np.empty((0, self._outputs.n_logits))
        trainings: list[Training] = []
        if not kind.chooses_inside and plan.n_held_out:
            trainings = [self._start(each, [rate], seed) for each in self._rounds]
            for training in trainings:
                training.run(training.n_steps)
            (held,) = self._held_out(trainings)
            self._refuse_infinite(held, seed)
            temperature = self._temperature(held)
        if plan.is_refitted or not trainings:
            rows = np.arange(len(plan.final))
            labels = self._pool.y[rows]
            tokens = self._tokens_of(self._pool, self._standard(rows))
            last = self._train(tokens, rows, labels, self._outputs, self._course, [rate], seed)
            last.run(last.n_steps)
        else:
            (last,) = trainings
        test = self.problem.splits["test"]
        seen = last.tokens.standard
        (of_test,), attention = last.answer(self._tokens_of(test, seen))
        self._refuse_infinite(of_test, seed)
        if kind.chooses_inside:  # val is asked as test is: nothing has seen it
            (held,), _ = last.answer(self._tokens_of(plan.val, seen))
        elif plan.fold is not None:
            order = np.concatenate([each.held_rows for each in self._rounds])
            held = held[np.argsort(order)]
        scores = {
            plan.held_out_name: self._outputs.scores(held / temperature),
            "test": self._outputs.scores(of_test / temperature),
        }
        return Answer(
            {**kind.row_settings(self.problem.widths), **self._chosen_by(), "training_seed": seed},
            {**self._said(found), "temperature": temperature},
            scores,
            [*self._marks(found), *self._temperature_mark(temperature)],
            extras=self._extras(attention, test) if len(test) else {},
            trained_parameters=last.models.shape.n_parameters,
        )

    @staticmethod
    def _refuse_infinite(logits: Floats, seed: int) -> None:
        if not np.isfinite(logits).all():
            raise DivergedError(f"seed {seed}", "")

    def _chosen_by(self) -> dict[str, Any]:
        rounds = self.plan.rounds_settings
        if len(self.kind.candidates) == 1:
            return {"chosen_by": "fixed", **rounds}
        if self.kind.chooses_inside:
            return {"chosen_by": f"a fifth of train {self._loss_name}"}
        return self.plan.settings(self._loss_name)

    def _named(self, rate: Rate) -> dict[str, float]:
        """What differs between settings."""
        return {"lr": rate.lr, "weight_decay": rate.weight_decay, "dropout": rate.dropout}

    def _said(self, found: Found) -> dict[str, Any]:
        candidates = self.kind.candidates
        named = self._named(candidates[found.place])
        if not found.losses:
            return named
        each = zip(candidates, found.losses, found.steps, strict=True)
        of_settings = [
            [*self._named(rate).values(), loss if loss < math.inf else None, n]
            for rate, loss, n in each
        ]
        return {**named, "of_settings": of_settings}

    def _marks(self, found: Found) -> list[str]:
        kind, n = self.kind, len(self.kind.candidates)
        rate = kind.candidates[found.place]
        marks = [] if kind.chooses_inside else self.plan.marks
        if n > 1:
            how = "the worse half dropped three times" if kind.halves else "all to the end"
            named = self._named(rate).items()
            what = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in named)
            marks.append(f"chosen among {n} settings with seed {SEARCH_SEED}, {how}: {what}")
        if gone := [
            r for r, loss in zip(kind.candidates, found.losses, strict=False) if loss == math.inf
        ]:
            named = ", ".join(f"lr {r.lr:g} decay {r.weight_decay:g}" for r in gone[:3])
            marks.append(f"{len(gone)} of {n} settings diverged ({named})")
        for values, own, word in (
            (kind.lrs, rate.lr, "learning rate"),
            (kind.weight_decays, rate.weight_decay, "weight decay"),
        ):
            if len(values) > 2 and own in (min(values), max(values)):  # of two each is an end
                marks.append(f"the chosen {word} {own:g} is the end of the grid")
        if self._course.is_balanced:
            marks.append("scores are of equally frequent classes, as the loss weighs them")
        return marks

    def _temperature_mark(self, temperature: float) -> list[str]:
        if temperature == 1:
            return []
        where = "val" if self.plan.fold is None else "the folds"
        return [f"logits are divided by {temperature:.3g}, the best temperature on {where}"]

    def _extras(self, attention: Singles, test: Split) -> dict[str, Array]:
        """Attention by place, the mean over heads and samples of test, and of each class."""
        task, labels = self.problem.task, test.y
        if not task.has_several_labels:
            labels = labels[:, None] == np.arange(task.n_classes)
        of_classes = np.full((task.n_classes, attention.shape[1]), np.nan, np.float32)
        for own, is_of in zip(of_classes, (labels == 1).T, strict=True):
            if is_of.any():
                own[:] = attention[is_of].mean(axis=0)
        return {"attention": attention.mean(axis=0), "attention_of_classes": of_classes}


def check_classes(labels: Array, task: Task) -> None:
    """Refuse train of one class, or of one sample.

    Raises:
        RequestError: it is.
    """
    if len(labels) < 2:
        raise RequestError(f"batch norm needs two training images, found {len(labels)}")
    if labels.ndim == 1 and (labels == labels[0]).all():
        name = task.class_names[int(labels[0])]
        raise RequestError(
            f"all {len(labels)} training images are of class {name}, and there is nothing to tell "
            "apart: train on more of them"
        )
