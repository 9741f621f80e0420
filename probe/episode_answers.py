"""What each kind of probe answers from few shots: from episodes to the scores of test.

Nothing is chosen on val: it holds far more labels than an episode. Logistic regression has one
strength, ridge chooses its penalty inside each episode by leaving one sample out, kNN has its k.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.labels import REGRESSION
from probe import fewshot, knn, metrics
from probe.config import ProbeConfig
from probe.episodes import (
    Draws,
    FewShotConfig,
    digest_of,
    draw_episodes,
    read_episodes,
    write_episodes,
)
from probe.features import Split
from probe.linear import LinearConfig
from probe.overlay import Asked
from probe.prior import class_shares, to_prior
from probe.ridge import RidgeConfig, as_scores, ridge_targets

# What a kind answers: its settings, what the episodes chose, (E, N, C) scores of test, marks.
Scores = tuple[dict[str, Any], dict[str, Any], NDArray[np.floating], list[str]]
# The same with the draw among the settings, and scores by split, as probe.answers has them.
Answer = tuple[dict[str, Any], dict[str, Any], dict[str, NDArray[Any]], list[str]]


def ask_episodes(config: ProbeConfig, asked: Asked, splits: dict[str, Split]) -> Iterator[Answer]:
    """One answer for each number of shots, and of kNN for each k that its episodes allow.

    Raises:
        RequestError: what the kind, the rule of drawing or an episodes file refuses; after the
            answers that there are, k that are larger than the episodes.
    """
    few_shot, train = config.few_shot, splits["train"]
    assert few_shot is not None
    n_classes = len(asked.class_names)
    draws, rule = _draw(few_shot, asked, train)
    is_continuous = asked.task == REGRESSION
    if is_continuous and few_shot.prior not in (None, "none"):
        raise RequestError(
            f"--prior {few_shot.prior} is about shares of classes, and {asked.dataset} has "
            "continuous labels; leave it out"
        )
    smallest = {shots: min(map(len, draws[shots])) for shots in few_shot.shots}
    for shots in few_shot.shots:
        episodes = draws[shots]
        marks = _marks(few_shot, asked, train, shots, episodes)
        drawn = {
            "shots": shots,
            "episodes": len(episodes),
            "images": max(map(len, episodes)),
            **rule,
            "digest": digest_of(episodes, train.ids),
        }
        for settings, chosen, scores, more in SCORE[config.kind](config, asked, splits, episodes):
            has_prior = not is_continuous and settings.get("score_type") != metrics.MARGIN
            if has_prior:
                learnt = [class_shares(train.y[r], asked.task, n_classes)[None] for r in episodes]
                natural = class_shares(train.y, asked.task, n_classes)
                word = few_shot.prior_word
                # One by one: all at once would take six times the memory of the scores. As they are
                # stored: what float32 holds for equal is so in the metrics, too.
                scores = np.stack(
                    [
                        to_prior(answers, shares, natural, asked.task, word).astype(np.float32)
                        for answers, shares in zip(scores, learnt, strict=True)
                    ]
                )
                drawn["prior"] = word
                more = [*more, *PRIOR_MARKS[word]]
            answers = {"test": scores}
            yield {**settings, "few_shot": dict(drawn)}, chosen, answers, [*marks, *more]
    if config.knn and max(config.knn.k) + config.knn.n_needed > min(smallest.values()):
        listed = ", ".join(f"{shots} shots {n}" for shots, n in smallest.items())
        raise RequestError(
            f"k = {max(config.knn.k)} needs more images than some episodes have ({listed} at "
            "least); name a smaller one with --k"
        )


PRIOR_MARKS = {
    "train": ["scores are corrected to the class shares of the whole of train"],
    "uniform": [],
    "em": ["transductive: scores are corrected to class shares estimated on all test images"],
    "none": [],
}


def _draw(config: FewShotConfig, asked: Asked, train: Split) -> tuple[Draws, dict[str, Any]]:
    """The episodes, and what the row says of how they were made."""
    if config.file is not None and config.file.exists() and not config.names_rule:
        return read_episodes(config.file, config.shots, train.ids), {"draw": "file"}
    n_classes = len(asked.class_names)
    draws = draw_episodes(config, train.ids, train.y, asked.task, n_classes, train.groups)
    if config.file is None:
        return draws, {"draw": config.draw, "episode_seed": config.seed}
    if not config.file.exists():
        write_episodes(config.file, draws, train.ids)
    there = read_episodes(config.file, config.shots, train.ids)
    for shots, episodes in draws.items():
        if digest_of(there[shots], train.ids) != digest_of(episodes, train.ids):
            raise RequestError(
                f"{config.file} holds other episodes of {shots} shots than --draw, --episodes and "
                "--episode-seed make; leave them out to use the file, or name another file to write"
            )
    # Whether it was read or written: the ids, by digest, are what was asked.
    return draws, {"draw": "file"}


def _marks(
    config: FewShotConfig,
    asked: Asked,
    train: Split,
    shots: int,
    episodes: list[NDArray[np.intp]],
) -> list[str]:
    how = config.file.name if config.file else config.draw
    marks = [f"means over {len(episodes)} episodes ({how}); intervals resample episodes and test"]
    if len(episodes) == 1:
        marks = [f"one episode ({how}): the interval is about the test set alone"]
    if config.file:
        return [*marks, *_unlike(config.file.name, asked, train, shots, episodes)]
    if config.draw == "patients" and train.groups is None:
        marks.append("patients aren't known: each image stands for one")
    units = train.ids
    if train.groups is not None and config.draw not in ("first", "bigvision"):
        units = np.where(train.groups == "", train.ids, train.groups)
    if len(np.unique(units)) < len(units):
        marks.append("shots are patients, with all their images")
    if asked.task == REGRESSION:
        return marks
    counts = np.array([_counts(train.y[rows], units[rows], asked) for rows in episodes])  # (E, C)
    absent = [n for n, c in zip(asked.class_names, counts.min(axis=0), strict=True) if c == 0]
    if absent:
        marks.append(f"episodes without any {', '.join(absent[:3])}")
    few = [
        f"{name} {count}"
        for name, count in zip(asked.class_names, counts.max(axis=0), strict=True)
        if config.draw != "natural" and 0 < count < shots
    ]
    if few:
        marks.append(f"fewer than {shots} in train, all taken: {', '.join(few[:3])}")
    return marks


def _unlike(
    name: str, asked: Asked, train: Split, shots: int, episodes: list[NDArray[np.intp]]
) -> list[str]:
    """What a file of episodes, whoever made it, has of a class, where that isn't the shots.

    Ids of one data set may be ids of another: an episode is then no longer even by class.
    """
    if asked.task in (REGRESSION, metrics.MULTI_LABEL):
        return []
    counts = np.array([_counts(train.y[rows], train.ids[rows], asked) for rows in episodes])
    low, high = counts.min(), counts.max()
    if low == high == shots:
        return []
    return [f"{name} has {low} to {high} images of a class where it says {shots} shots"]


def _counts(labels: NDArray[np.integer], units: NDArray[np.str_], asked: Asked) -> list[int]:
    """(C,) how many samples, or patients, have each class."""
    if asked.task != metrics.MULTI_LABEL:
        labels = labels[:, None] == np.arange(len(asked.class_names))
    return [len(np.unique(units[column == 1])) for column in labels.T]


def _linear(
    config: ProbeConfig, asked: Asked, splits: dict[str, Split], episodes: list[NDArray[np.intp]]
) -> Iterator[Scores]:
    settings = config.linear or LinearConfig(strengths=(fewshot.STRENGTH,))
    (strength,) = settings.strengths
    train, test = splits["train"], splits["test"]
    n_classes = len(asked.class_names)
    scores = fewshot.logistic_scores(
        train.x, train.y, episodes, test.x, asked.task, n_classes, strength
    )
    said = {
        "strengths": [strength],
        "tolerance": fewshot.TOLERANCE,
        "standardised": "by each episode",
        "chosen_by": "fixed",
    }
    yield said, {"strength": strength}, scores, []


def _ridge(
    config: ProbeConfig, asked: Asked, splits: dict[str, Split], episodes: list[NDArray[np.intp]]
) -> Iterator[Scores]:
    settings = config.ridge or RidgeConfig()
    train, test = splits["train"], splits["test"]
    is_continuous = asked.task == REGRESSION
    targets = ridge_targets(train.y, asked.task, len(asked.class_names))
    lengths = np.array([len(rows) for rows in episodes])
    answers = np.empty((len(episodes), len(test), targets.shape[1]))
    chosen = np.empty(len(episodes))
    for n in np.unique(lengths).tolist():  # a penalty may depend on it
        alike = np.flatnonzero(lengths == n)
        rows = [episodes[i] for i in alike]
        answers[alike], chosen[alike] = fewshot.ridge_scores(
            train.x, targets, rows, test.x, settings.at(n)
        )
    answers = as_scores(answers, asked.task)
    said = {
        **(
            {
                "penalties": sorted(settings.penalties, reverse=True),
                "chosen_by": "leave-one-out squared error",
            }
            if settings.alpha is None
            else {"alpha": settings.alpha, "chosen_by": "fixed"}
        ),
        "standardised": "by each episode",
        **({} if is_continuous else {"score_type": metrics.MARGIN}),
    }
    yield said, {"penalty": float(np.median(chosen)), "penalties": chosen.tolist()}, answers, []


def _knn(
    config: ProbeConfig, asked: Asked, splits: dict[str, Split], episodes: list[NDArray[np.intp]]
) -> Iterator[Scores]:
    settings = config.knn or knn.KnnConfig(k=(1,))
    smallest = min(map(len, episodes))
    fitting = tuple(k for k in settings.k if k + settings.n_needed <= smallest)
    if not fitting:
        return
    settings = dataclasses.replace(settings, k=fitting)
    found = [_neighbours_say(settings, asked, splits, rows) for rows in episodes]
    for k in fitting:
        said = {"k": k, **settings.settings}
        yield said, {}, np.stack([scores[k] for scores in found]), []


def _neighbours_say(
    settings: knn.KnnConfig, asked: Asked, splits: dict[str, Split], rows: NDArray[np.intp]
) -> dict[int, NDArray[np.float64]]:
    train, test = splits["train"], splits["test"]
    if asked.task == REGRESSION:
        return knn.predictions(settings, train.x[rows], train.y[rows][:, None], test.x)
    n_classes = len(asked.class_names)
    return knn.scores(settings, train.x[rows], train.y[rows], test.x, asked.task, n_classes)


Ask = Callable[
    [ProbeConfig, Asked, dict[str, Split], list[NDArray[np.intp]]],
    Iterator[Scores],
]
SCORE: dict[str, Ask] = {"knn": _knn, "linear": _linear, "ridge": _ridge}
