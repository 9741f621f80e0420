"""Heads trained step by step on few-shot episodes: kinds "adamw" and "heads".

Whatever is chosen is chosen without val, whose labels are more than the shots: of AdamW the last
step is taken, and a head of the grid by folds of the episode itself. Papers choose on val; under
their protocol so do these, and the row says on how many images.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from probe.choosing.in_episode import by_patient_settings, make_episode_folds
from probe.choosing.plan import FOLD_SEED, N_FOLDS
from probe.config import ProbeConfig
from probe.kinds import adamw, heads
from probe.kinds.head_answers import Blocks, check_device, check_val, read_blocks
from probe.metrics import classification as metrics
from probe.metrics.losses import loss_name, loss_of
from probe.questions.question import Asked
from probe.questions.samples import Split, divide_samples, pick

USE_ADAMW = "--kind adamw chooses nothing: it takes the last step"

# As probe.kinds.few_shot has it: settings, what was chosen, (E, N, C) scores of test, marks.
Scores = tuple[dict[str, Any], dict[str, Any], NDArray[np.floating], list[str]]


def ask_adamw_episodes(
    config: ProbeConfig, asked: Asked, splits: dict[str, Split], episodes: list[NDArray[np.intp]]
) -> Iterator[Scores]:
    """One answer for each seed.

    Raises:
        RequestError: heads of a seed diverged, after the answers of the others; or see
            ``probe.kinds.adamw.fit_episodes``.
    """
    settings = config.adamw or adamw.AdamWConfig()
    train, val, test = (splits[name] for name in ("train", "val", "test"))
    chosen_on = _val_of(config, asked, val, "a checkpoint")
    fits = adamw.fit_episodes(
        train.x,
        train.y,
        episodes,
        asked.task,
        len(asked.class_names),
        settings,
        (val.x, val.y) if chosen_on else None,
        check_device(config.device),
    )
    shared = dataclasses.asdict(settings)
    del shared["seeds"], shared["ddof"]
    diverged: list[str] = []
    for number, seed in enumerate(settings.seeds):
        own = [of_episode[number] for of_episode in fits]
        finite = [fit for fit in own if isinstance(fit, adamw.HeadFit)]
        if len(finite) < len(own):
            diverged.append(f"{len(own) - len(finite)} of {len(own)} heads of seed {seed}")
            continue
        iterations = [fit.iteration for fit in finite]
        yield (
            {
                **shared,
                "standardised": False,
                "training_seed": seed,
                "chosen_by": f"val {settings.choose_by}" if chosen_on else "the last step",
            },
            {
                "iteration": int(np.median(iterations)),
                "iterations": iterations,
                "ddof": settings.ddof,
            },
            np.stack([fit.predict_scores(test.x) for fit in finite]),
            [
                _said("checkpoints are", val)
                if chosen_on
                else "the last step is taken: val isn't read"
            ],
        )
    if diverged:
        raise RequestError(
            f"training diverged: {', '.join(diverged)}; try --lr {settings.lr / 10:g}"
        )


def ask_grid_episodes(
    config: ProbeConfig, asked: Asked, splits: dict[str, Split], episodes: list[NDArray[np.intp]]
) -> Iterator[Scores]:
    """One answer: in each episode the head of the grid that val, or folds of its own, chose.

    Nothing is fitted on val: a refit on all of it would be no few-shot probe.

    Raises:
        TooFewError: an episode has nothing to divide into folds.
        RequestError: all heads of an episode diverged; or see ``probe.kinds.heads.fit_episode_grids``.
    """
    settings = config.heads or heads.HeadsConfig()
    train, val = splits["train"], splits["val"]
    chosen_on = _val_of(config, asked, val, "a head")
    device = check_device(config.device)
    fitted_on = asked.trained_on or asked
    inputs = read_blocks(fitted_on.features, settings, config)
    x = {name: split.x for name, split in divide_samples(inputs.x, fitted_on).items()}
    if asked.trained_on:
        own = read_blocks(asked.features, settings, config).x
        x["test"] = divide_samples(own, asked)["test"].x
    used = settings if inputs.has_cls else dataclasses.replace(settings, n_last=(1,))
    shape = inputs.n_blocks, inputs.has_mean, asked.task, len(asked.class_names)

    def fit(parts: list[NDArray[np.intp]]) -> list[list[heads.GridFit]]:
        return heads.fit_episode_grids(x["train"], train.y, parts, *shape, used, device)

    if chosen_on:
        grids = fit(episodes)
        places = [heads.choose(grid, x["val"], val.y, used.choose_by)[0] for grid in grids]
        by = {"chosen_by": f"val {used.choose_by}"}
    else:
        folds = [make_episode_folds(pick(train, rows), asked.task, USE_ADAMW) for rows in episodes]
        rests = [
            rows[fold != held_out]
            for rows, fold in zip(episodes, folds, strict=True)
            for held_out in range(int(fold.max()) + 1)
        ]
        every = fit([*episodes, *rests])  # one loop for what is asked and what chooses
        grids, of_rests = every[: len(episodes)], iter(every[len(episodes) :])
        places = []
        for rows, fold in zip(episodes, folds, strict=True):
            parts = [next(of_rests) for _ in range(int(fold.max()) + 1)]
            places.append(_best_of_folds(parts, fold, x["train"][rows], train.y[rows]))
        score_type = grids[0][0].outputs.score_type
        by = {
            "chosen_by": f"in-episode {loss_name(asked.task, score_type)}",
            "folds": {"n": N_FOLDS, "seed": FOLD_SEED, **by_patient_settings(asked, train)},
        }
    picked = [grid[place] for grid, place in zip(grids, places, strict=True)]
    if n := sum(not fit.is_finite for fit in picked):
        raise RequestError(f"training diverged in {n} of {len(picked)} episodes; name smaller --lr")
    n_test = len(splits["test"])
    score_type = picked[0].outputs.score_type
    asked_of = {
        **dataclasses.asdict(used),
        "refit": False,
        "pool": inputs.pool,
        "standardised": False,
        **by,
        **({} if score_type == metrics.PROBABILITY else {"score_type": score_type}),
    }
    scores = np.stack([fit.predict_scores(x["test"][:n_test]) for fit in picked])
    marks = [_said("heads are", val) if chosen_on else "heads are chosen by folds of each episode"]
    if settings.refit:
        marks.append(
            "no refit: the release's takes all of val, whose labels are more than the shots"
        )
    yield asked_of, _often(picked, places), scores, [*marks, _shown(picked, places, inputs)]


def _best_of_folds(
    parts: list[list[heads.GridFit]],
    fold: NDArray[np.intp],
    x: NDArray[np.floating],
    y: NDArray[np.integer],
) -> int:
    """The place of the head with the smallest loss of all folds' answers, of equals the first."""
    order = np.concatenate([np.flatnonzero(fold == held_out) for held_out in range(len(parts))])
    outputs = parts[0][0].outputs
    losses = []
    for of_folds in zip(*parts, strict=True):
        if not all(fit.is_finite for fit in of_folds):
            losses.append(np.inf)
            continue
        said = [fit.predict_scores(x[fold == held_out]) for held_out, fit in enumerate(of_folds)]
        scores = np.concatenate(said)
        losses.append(loss_of(scores, y[order], outputs.task, score_type=outputs.score_type))
    return int(np.argmin(losses))


def _often(picked: list[heads.GridFit], places: list[int]) -> dict[str, Any]:
    """The head that was chosen most often."""
    (place, _), *_ = Counter(places).most_common(1)
    fit = picked[places.index(place)]
    named = {"lr": fit.lr, "n_last": fit.n_last, "with_mean": fit.with_mean}
    return {**named, "of_episodes": [[f.n_last, f.with_mean, f.lr] for f in picked]}


def _shown(picked: list[heads.GridFit], places: list[int], inputs: Blocks) -> str:
    (place, n), *_ = Counter(places).most_common(1)
    fit = picked[places.index(place)]
    tokens = f"last {fit.n_last} class tokens" if inputs.has_cls else inputs.pool
    mean = " and mean" if fit.with_mean else ""
    return f"most often chosen: lr {fit.lr:g}, {tokens}{mean} ({n} of {len(places)})"


def _val_of(config: ProbeConfig, asked: Asked, val: Split, what: str) -> bool:
    """Whether choices are made on val, as a paper has it; which then must be there."""
    assert config.few_shot
    if config.few_shot.chosen_on != "val":
        return False
    check_val(asked.trained_on or asked, val, what)
    return True


def _said(what: str, val: Split) -> str:
    return f"{what} chosen on all {len(val):_} val images, as the paper does: more than the shots"
