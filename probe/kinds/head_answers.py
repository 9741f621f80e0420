"""What heads trained step by step answer: kinds "adamw" and "heads"."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.features import Features
from cache.task import MULTI_LABEL
from probe.answer import Answer
from probe.kinds import adamw, heads
from probe.metrics import classification as metrics
from probe.places import default_pool, read_samples
from probe.questions.question import Asked
from probe.questions.samples import divide_samples

if TYPE_CHECKING:
    from probe.config import ProbeConfig
    from probe.questions.samples import Split

GRID = "grid"  # the pool of a row whose head chose among several


class DivergedError(RequestError):
    """Heads of one matrix that have no answer, said after those that have one.

    ``seeds`` says which, and when that was seen: "seed 0 after 240 iterations".
    """

    def __init__(self, heads: Sequence[adamw.Diverged], lr: float) -> None:
        self.seeds = ", ".join(f"seed {h.seed} after {h.iteration} iterations" for h in heads)
        self.cure = f"try --lr {lr / 10:g}"
        super().__init__(f"training diverged: {self.seeds}; {self.cure}")


def ask_adamw(config: ProbeConfig, asked: Asked, splits: dict[str, Split]) -> Iterator[Answer]:
    """One answer for each seed.

    Raises:
        DivergedError: some diverged; after the answers of the others.
    """
    return ask_adamw_at_once(config, asked, [splits])[0]


def ask_adamw_at_once(
    config: ProbeConfig, asked: Asked, places: Sequence[dict[str, Split]]
) -> list[Iterator[Answer]]:
    """For each place one answer for each seed, from one loop over all of them.

    That loop is one work: interrupted, none of its answers is there.

    Returns:
        For each place its answers; each raises ``DivergedError`` after the last where heads did.

    Raises:
        RequestError: see ``probe.kinds.adamw.fit_heads``.
    """
    settings = config.adamw or adamw.AdamWConfig()
    first = places[0]
    check_val(asked.trained_on or asked, first["val"], "a checkpoint")
    fits = adamw.fit_heads(
        [splits["train"].x for splits in places],
        first["train"].y,
        [splits["val"].x for splits in places],
        first["val"].y,
        asked.task,
        len(asked.class_names),
        settings,
        check_device(config.device),
    )
    return [_of_seeds(settings, own, splits) for own, splits in zip(fits, places, strict=True)]


def _of_seeds(
    settings: adamw.AdamWConfig,
    fits: list[adamw.HeadFit | adamw.Diverged],
    splits: dict[str, Split],
) -> Iterator[Answer]:
    shared = dataclasses.asdict(settings)
    del shared["seeds"], shared["ddof"]  # neither changes this row's numbers
    for fit in fits:
        if isinstance(fit, adamw.Diverged):
            continue
        at_end = fit.iteration == fit.checks[-1][0]
        is_rising = at_end and len(fit.checks) > 1 and settings.patience is not None
        yield Answer(
            {**shared, "standardised": False, "training_seed": fit.seed},
            {
                "iteration": fit.iteration,
                f"val_{settings.choose_by}": [[at, value] for at, value in fit.checks],
                "ddof": settings.ddof,
            },
            {name: fit.predict_scores(splits[name].x) for name in ("val", "test")},
            ["val was still improving when training ended"] if is_rising else [],
        )
    if diverged := [fit for fit in fits if isinstance(fit, adamw.Diverged)]:
        raise DivergedError(diverged, settings.lr)


def ask_heads(config: ProbeConfig, asked: Asked, splits: dict[str, Split]) -> Iterator[Answer]:
    """One answer: the head of the grid that val chose.

    Raises:
        RequestError: a layer that the grid needs isn't stored, val has no images, or what
            ``probe.kinds.heads`` refuses.
    """
    settings = config.heads or heads.HeadsConfig()
    fitted_on = asked.trained_on or asked
    check_val(fitted_on, splits["val"], "a head")
    device = check_device(config.device)
    inputs = read_blocks(fitted_on.features, settings, config)
    x = {name: split.x for name, split in divide_samples(inputs.x, fitted_on).items()}
    if asked.trained_on:
        own = read_blocks(asked.features, settings, config).x
        x["test"] = divide_samples(own, asked)["test"].x
    train, val = splits["train"], splits["val"]
    shape = inputs.n_blocks, inputs.has_mean, asked.task, len(asked.class_names)
    used = settings if inputs.has_cls else dataclasses.replace(settings, n_last=(1,))
    fits = heads.fit_grid(x["train"], train.y, *shape, used, device)
    place, values = heads.choose(fits, x["val"], val.y, settings.choose_by)
    fit = fits[place]
    scores = {"val": fit.predict_scores(x["val"])}
    chosen: dict[str, Any] = {
        "lr": fit.lr,
        "n_last": fit.n_last,
        "with_mean": fit.with_mean,
        f"val_{settings.choose_by}": [
            [f.n_last, f.with_mean, f.lr, None if np.isnan(v) else float(v)]
            for f, v in zip(fits, values, strict=True)
        ],
    }
    if settings.refit:
        both = np.concatenate([x["train"], x["val"]]), np.concatenate([train.y, val.y])
        refits = heads.refit_one(fit, *both, used, device, settings.test_every)
        fit = refits[-1]
        if settings.test_every:
            # Published so, and said in a mark: this looks at test to choose.
            number, aucs = heads.choose(refits, x["test"], splits["test"].y, "auc")
            fit = refits[number]
            chosen["test_auc"] = [float(value) for value in aucs]
        if not fit.is_finite:
            raise RequestError("the refit diverged; name smaller learning rates with --lr")
    scores["test"] = fit.predict_scores(x["test"][: len(splits["test"])])
    score_type = fit.outputs.score_type
    yield Answer(
        {
            **dataclasses.asdict(used),
            "pool": inputs.pool,
            "standardised": False,
            **({} if score_type == metrics.PROBABILITY else {"score_type": score_type}),
        },
        chosen,
        scores,
        _marks(fits, fit, inputs),
    )


def _marks(fits: list[heads.GridFit], fit: heads.GridFit, inputs: Blocks) -> list[str]:
    tokens = (
        "class token of the last block" if fit.n_last == 1 else f"last {fit.n_last} class tokens"
    )
    tokens = tokens if inputs.has_cls else inputs.pool
    marks = [f"chosen: lr {fit.lr:g}, {tokens}{' and mean' if fit.with_mean else ''}"]
    if n := sum(not f.is_finite for f in fits):
        marks.append(f"{n} of {len(fits)} heads diverged")
    rates = sorted({f.lr for f in fits})
    if len(rates) > 1 and fit.lr in (rates[0], rates[-1]):
        marks.append(f"the chosen learning rate {fit.lr:g} is the end of the grid")
    return marks


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Class tokens of the last blocks side by side, then the last mean; see heads.fit_grid."""

    x: NDArray[np.floating]  # (S, D * (n_blocks + has_mean))
    n_blocks: int
    has_mean: bool
    pool: str  # GRID, or cls: its half without the mean; else the one vector that there is

    @property
    def has_cls(self) -> bool:
        return self.pool in (GRID, "cls")


def read_blocks(features: Features, settings: heads.HeadsConfig, config: ProbeConfig) -> Blocks:
    """What the grid sees of a file.

    Raises:
        RequestError: it lacks class tokens of a block, or the pool that is named.
    """
    last, aggregate = features.last_layer, config.aggregate
    (pool,) = config.pools or (default_pool(features, -1, config.reading),)
    if pool != "cls":
        # linear.py:421-423 of Baharoon et al.: of CNNs one input, without a second pool. Of SAM,
        # which has no class token, the mean (eval/utils.py:265-277); or what --pool names.
        return Blocks(read_samples(features, -1, pool, aggregate), 1, False, pool)
    n_needed = max(settings.n_last)
    if n_needed > last + 1:
        raise RequestError(
            f"the grid needs class tokens of the last {n_needed} layers, and {features.encoder} has "
            f"{last + 1}; use --kind adamw"
        )
    needed = range(last - n_needed + 1, last + 1)
    if lacking := [i for i in needed if "cls" not in features.layers.get(i, [])]:
        raise RequestError(
            f"the grid needs class tokens of layers {needed[0]} to {last}, and "
            f"{features.path.name} has none of layer {lacking[0]}; make it anew with "
            "`extract --layers all`"
        )
    has_mean = "mean" in features.layers[last] and not config.pools
    places = [(i, "cls") for i in needed] + ([(last, "mean")] if has_mean else [])
    x = np.empty(0)
    for number, place in enumerate(places):  # one after the other: all twice would be gigabytes
        part = read_samples(features, *place, aggregate)
        n_rows, width = part.shape
        if number == 0:
            x = np.empty((n_rows, width * len(places)), part.dtype)
        x[:, number * width : (number + 1) * width] = part
        del part  # before the next is read
    return Blocks(x, len(needed), has_mean, "cls" if config.pools else GRID)


def check_val(asked: Asked, val: Split, what: str) -> None:
    """Refuse to choose on nothing.

    Raises:
        RequestError: val has no images.
    """
    if not len(val):
        raise RequestError(
            f"{asked.dataset} has no val images to choose {what} on, and it is never chosen on "
            "test; divide it anew, as with --split 80/10/10"
        )
    if asked.task == MULTI_LABEL and np.isnan(metrics.label_shares(val.y)).any():
        raise RequestError(f"{asked.dataset} has a label that is known of no val image")


def check_device(device: str) -> str:
    """Refuse a device that isn't there.

    Raises:
        RequestError: torch can't use it.
    """
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch without CUDA
        reason = str(error).splitlines()[0]
        raise RequestError(f"--device {device} can't be used ({reason}); leave it out") from None
    return device
