"""A grid of linear heads trained at once by SGD: DINOv2's linear probe, on features of one view.

dinov2/eval/linear.py at 05c66df: learning rates x class tokens of the last 1 or 4 blocks x with or
without the last block's mean patch token; every head sees the same batches, and their losses are
summed, which is as if each were trained alone. Baharoon et al. 2023 (DINOv2ForRadiology) train the
same grid at other rates: see protocols.py.

Features are held as they are stored: of 165,466 images and five blocks of 768 in float16, 1.2 GB,
a whole command takes 2.4 GB, of which 0.7 are torch itself (benchmarks/probe_memory.py).

With blocks laid side by side in order and the mean after the last, each of the four inputs is a
slice of columns; the heads of all learning rates on one input are one matrix product.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cache.commands.settings import check, given, setting
from cache.commands.terminal import split_words
from cache.errors import RequestError
from probe.answer import Answer
from probe.choosing.in_episode import best_of_folds, by_patient_settings, make_episode_folds
from probe.choosing.plan import FOLD_SEED, N_FOLDS
from probe.episodes.draw import FewShotConfig
from probe.kinds.adamw import SECTION
from probe.kinds.kind import Episodes, Kind, Problem
from probe.metrics.classification import PROBABILITY
from probe.metrics.losses import loss_name
from probe.places import Place
from probe.protocols import Reading
from probe.questions.question import pick
from probe.solvers.epochs import check_device
from probe.solvers.sgd import Course, GridFit, choose, fit_episode_grids, fit_grid, refit_one

if TYPE_CHECKING:
    from cache.features import Features  # h5py: --help shouldn't wait for it

CHOSEN_BY = ("acc", "auc")
GRID = "grid"  # the pool of a row whose head chose among several
USE_ADAMW = "--kind adamw chooses nothing: it takes the last step"
LRS = (  # linear.py: learning_rates
    *(1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3),
    *(2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1),
)
LRS_SHOWN = f"{len(LRS)} from {min(LRS):g} to {max(LRS):g}"
LOSSES = ("mean", "sum")


def _read_seed(text: str) -> int:
    seeds = split_words("--seeds", text)
    if len(seeds) > 1:
        raise RequestError(f"--kind heads takes one seed at a time, not {text!r}")
    return int("".join(seeds))


@dataclass(frozen=True)
class Heads(Course, Kind):
    """DINOv2's grid of linear heads on the last layers, trained by SGD; val chooses one.

    Raises:
        RequestError: a number out of its range, an unknown word, or something named twice.
    """

    lrs: tuple[float, ...] = setting(LRS, "", flag="--lr", above=0, unlike=True, shown=LRS_SHOWN)
    scale_lr: bool = True  # x batch / 256, as scale_lr() on one GPU
    n_last: tuple[int, ...] = (1, 4)  # class tokens of how many last blocks
    batch_size: int = setting(128, "", least=1)
    epochs: int = setting(10, "", least=1)
    # None: one pass over the images
    iterations: int | None = setting(1250, "of heads in an epoch", least=1)
    # After the last step: the highest accuracy or AUC.
    choose_by: str = setting("acc", "", among=CHOSEN_BY)
    loss: str = "mean"  # of several labels; "sum": over the batch, as Baharoon et al. publish it
    refit: bool = False  # the chosen head anew on train and val together
    one_logit: bool = False  # two classes: one logit, or two
    by_sigmoid: bool = False  # several classes: scores by a sigmoid each, see Outputs
    # The refit as looked at on test after every so many epochs, and the best of these by AUC kept:
    # a choice on test, for comparison with Baharoon et al. alone. None: the last step's.
    test_every: int | None = None
    # Of first weights and order.
    seed: int = setting(0, "", flag="--seeds", least=0, read=_read_seed)
    device: str = setting("cpu", "", shown="")

    name = "heads"
    paper = "dinov2"  # the grid is DINOv2's, whoever named it
    section = SECTION
    has_layers = False
    joins_encoders = False
    own_scale = True
    is_chosen = False

    def __post_init__(self) -> None:
        check(self)
        if not self.n_last or min(self.n_last) < 1 or len(set(self.n_last)) < len(self.n_last):
            raise RequestError(
                f"n_last are different numbers of last blocks from 1 up, found {self.n_last}"
            )
        if self.test_every is not None and self.test_every < 1:
            raise RequestError(f"test_every is 1 or more, found {self.test_every}")
        if self.loss not in LOSSES:
            raise RequestError(f"loss is {' or '.join(LOSSES)}, found {self.loss!r}")
        if self.test_every is not None and not self.refit:
            raise RequestError("checkpoints are those of a refit; take train+val to --refit")

    @classmethod
    def read(cls, options: argparse.Namespace, base: Mapping[str, Any]) -> Heads:
        refit = {} if options.refit is None else {"refit": options.refit != "train"}
        return cls(**{**base, **given(options, cls), **refit})

    def check_places(self, layer: int | str, pools: tuple[str, ...]) -> None:
        if layer != -1 or len(pools) > 1 or "+" in "".join(pools):
            raise RequestError(
                "--kind heads chooses among the last layers itself, and their pools; leave out "
                "--layer, and name one --pool at most"
            )

    def check_few_shot(self, few_shot: FewShotConfig, by_protocol: bool) -> None:
        if self.test_every or (self.refit and not by_protocol):
            raise RequestError(
                "few shots are not refitted on val, whose labels are more, nor chosen on test; leave "
                "out --refit and --as-published"
            )

    def find_places(
        self, files: Sequence[Features], layer: int | str, pools: Sequence[str], reading: Reading
    ) -> list[tuple[Place, ...]]:
        """The class tokens of the last layers, and the last one's mean.

        Raises:
            RequestError: the file lacks class tokens of a layer, or the pool that is named.
        """
        (features,) = files
        ((place,),) = super().find_places(files, -1, pools, reading)
        if place.pool != "cls":
            # linear.py:421-423 of Baharoon et al.: of CNNs one input, without a second pool. Of SAM,
            # which has no class token, the mean (eval/utils.py:265-277); or what --pool names.
            return [(place,)]
        last, n_needed = features.last_layer, max(self.n_last)
        if n_needed > last + 1:
            raise RequestError(
                f"the grid needs class tokens of the last {n_needed} layers, and {features.encoder} "
                f"has {last + 1}; use --kind adamw"
            )
        needed = range(last - n_needed + 1, last + 1)
        if lacking := [i for i in needed if "cls" not in features.layers.get(i, [])]:
            raise RequestError(
                f"the grid needs class tokens of layers {needed[0]} to {last}, and "
                f"{features.path.name} has none of layer {lacking[0]}; make it anew with "
                "`extract --layers all`"
            )
        tokens = [replace(place, layer=i) for i in needed]
        has_mean = "mean" in features.layers[last] and not pools
        return [(*tokens, *([replace(place, pool="mean")] if has_mean else []))]

    def place_settings(self, places: tuple[Place, ...]) -> dict[str, Any]:
        return places[-1].settings  # its pool says that it chose among several

    # ------------------------------------------------------------ answers

    def answer(self, problem: Problem) -> Iterator[Answer]:
        """One answer: the head of the grid that val chose.

        Raises:
            RequestError: val has no images, or what ``fit_grid`` refuses.
        """
        val = problem.val_to_choose("a head")
        device, inputs = check_device(self.device), Inputs.of(problem)
        x = {name: split.x for name, split in problem.splits.items()}
        used = self if inputs.has_cls else replace(self, n_last=(1,))
        train, task = problem.splits["train"], problem.task
        shape = inputs.n_blocks, inputs.has_mean, task.word, task.n_classes
        fits = fit_grid(x["train"], train.y, *shape, used, device)
        place, values = choose(fits, x["val"], val.y, self.choose_by)
        fit = fits[place]
        scores = {"val": fit.predict_scores(x["val"])}
        chosen: dict[str, Any] = {
            **_named(fit),
            f"val_{self.choose_by}": [
                [f.n_last, f.with_mean, f.lr, None if np.isnan(v) else float(v)]
                for f, v in zip(fits, values, strict=True)
            ],
        }
        if self.refit:
            both = np.concatenate([x["train"], x["val"]]), np.concatenate([train.y, val.y])
            refits = refit_one(fit, *both, used, device, self.test_every)
            fit = refits[-1]
            if self.test_every:
                # Published so, and said in a mark: this looks at test to choose.
                number, aucs = choose(refits, x["test"], problem.splits["test"].y, "auc")
                fit = refits[number]
                chosen["test_auc"] = [float(value) for value in aucs]
            if not fit.is_finite:
                raise RequestError("the refit diverged; name smaller learning rates with --lr")
        scores["test"] = fit.predict_scores(x["test"])
        marks = [f"chosen: {inputs.describe(fit)}"]
        if n := sum(not f.is_finite for f in fits):
            marks.append(f"{n} of {len(fits)} heads diverged")
        rates = sorted({f.lr for f in fits})
        if len(rates) > 1 and fit.lr in (rates[0], rates[-1]):
            marks.append(f"the chosen learning rate {fit.lr:g} is the end of the grid")
        head = fit.outputs.head(fit.weights, fit.intercept, task)
        seen = problem.seen_by(head, inputs.seen_by(fit, problem.places))
        yield Answer(used._row_settings(inputs, fit), chosen, scores, marks, head=seen)

    def _row_settings(self, inputs: Inputs, fit: GridFit, **more: Any) -> dict[str, Any]:
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "device"}
        score_type = fit.outputs.score_type
        scored = {} if score_type == PROBABILITY else {"score_type": score_type}
        return {**found, "pool": inputs.pool, "standardised": False, **more, **scored}

    def answer_episodes(self, problem: Problem, episodes: Episodes) -> Iterator[Answer]:
        """One answer: in each episode the head of the grid that its own folds chose.

        Papers choose on val; under their protocol so does this, and the row says on how many images.
        Nothing is fitted on val: a refit on all of it would be no few-shot probe.

        Raises:
            TooFewError: an episode has nothing to divide into folds.
            RequestError: all heads of an episode diverged; or see ``fit_episode_grids``.
        """
        val = problem.val_of_paper("a head")
        device, inputs = check_device(self.device), Inputs.of(problem)
        x = {name: split.x for name, split in problem.splits.items()}
        used = self if inputs.has_cls else replace(self, n_last=(1,))
        train, task = problem.splits["train"], problem.task
        shape = inputs.n_blocks, inputs.has_mean, task.word, task.n_classes

        def fit(parts: Episodes) -> list[list[GridFit]]:
            return fit_episode_grids(x["train"], train.y, parts, *shape, used, device)

        if val:
            grids = fit(episodes)
            places = [choose(grid, x["val"], val.y, used.choose_by)[0] for grid in grids]
            by: dict[str, Any] = {"chosen_by": f"val {used.choose_by}"}
        else:
            folds = [
                make_episode_folds(pick(train, rows), task.word, USE_ADAMW) for rows in episodes
            ]
            rests = [
                rows[fold != held_out]
                for rows, fold in zip(episodes, folds, strict=True)
                for held_out in range(int(fold.max()) + 1)
            ]
            every = fit([*episodes, *rests])  # one loop for what is asked and what chooses
            grids, of_rests = every[: len(episodes)], iter(every[len(episodes) :])
            places, score_type = [], grids[0][0].outputs.score_type
            for rows, fold in zip(episodes, folds, strict=True):
                own = x["train"][rows]
                parts = [
                    [f.predict_scores(own[fold == i]) if f.is_finite else None for f in grid]
                    for i, grid in zip(range(int(fold.max()) + 1), of_rests, strict=False)
                ]
                places.append(best_of_folds(parts, fold, train.y[rows], task.word, score_type))
            loss = loss_name(task.word, score_type)
            of_patients = by_patient_settings(problem.question, train)
            by = {
                "chosen_by": f"in-episode {loss}",
                "folds": {"n": N_FOLDS, "seed": FOLD_SEED, **of_patients},
            }
        picked = [grid[place] for grid, place in zip(grids, places, strict=True)]
        if n := sum(not fit.is_finite for fit in picked):
            raise RequestError(
                f"training diverged in {n} of {len(picked)} episodes; name smaller --lr"
            )
        marks = ["heads are chosen by folds of each episode"]
        if val:
            marks = [self.chosen_on_val("heads are", val)]
        if self.refit:
            marks.append(
                "no refit: the release's takes all of val, whose labels are more than the shots"
            )
        (often, n), *_ = Counter(places).most_common(1)
        shown = picked[places.index(often)]
        marks.append(
            f"most often chosen: {inputs.describe(shown, 'last 1 class tokens')} "
            f"({n} of {len(places)})"
        )
        of_episodes = [[f.n_last, f.with_mean, f.lr] for f in picked]
        head = None
        if problem.keep_heads:
            outputs, width = shown.outputs, x["train"].shape[1]
            weights = np.zeros((len(picked), width, outputs.n_logits), np.float32)
            for own, f in zip(weights, picked, strict=True):
                own[f.columns] = f.weights  # of what it doesn't see they are 0
            intercepts = np.stack([f.intercept for f in picked])
            head = problem.seen_by(outputs.head(weights, intercepts, task))
        yield Answer(
            replace(used, refit=False)._row_settings(inputs, picked[0], **by),
            {**_named(shown), "of_episodes": of_episodes},
            {"test": np.stack([fit.predict_scores(x["test"]) for fit in picked])},
            marks,
            head=head,
        )


def _named(fit: GridFit) -> dict[str, Any]:
    return {"lr": fit.lr, "n_last": fit.n_last, "with_mean": fit.with_mean}


@dataclass(frozen=True)
class Inputs:
    """What the grid sees: class tokens of the last blocks side by side, then the last mean."""

    n_blocks: int
    has_mean: bool
    pool: str  # GRID, or cls: its half without the mean; else the one vector that there is

    @classmethod
    def of(cls, problem: Problem) -> Inputs:
        places = problem.places
        if places[0].pool != "cls":
            return cls(1, False, places[0].pool)
        n_blocks = sum(place.pool == "cls" for place in places)
        return cls(n_blocks, n_blocks < len(places), "cls" if problem.pools else GRID)

    @property
    def has_cls(self) -> bool:
        return self.pool in (GRID, "cls")

    def seen_by(self, fit: GridFit, places: tuple[Place, ...]) -> tuple[Place, ...]:
        """Those of the places, in their order, whose features a head of the grid sees."""
        return places[self.n_blocks - fit.n_last : self.n_blocks + fit.with_mean]

    def describe(self, fit: GridFit, of_one: str = "class token of the last block") -> str:
        """A head of the grid in words."""
        tokens = of_one if fit.n_last == 1 else f"last {fit.n_last} class tokens"
        tokens = tokens if self.has_cls else self.pool
        return f"lr {fit.lr:g}, {tokens}{' and mean' if fit.with_mean else ''}"
