"""What each kind of probe answers from few shots: from episodes to the scores of test.

Nothing is chosen on val: it holds far more labels than an episode. Logistic regression has one
strength, ridge chooses its penalty inside each episode by leaving one sample out, kNN its k by
leaving out a patient or a sample, where it isn't named, and any other estimator its settings by
folds of the episode. Heads that are trained step by step are in ``episode_heads``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.task import MULTI_LABEL, REGRESSION
from probe.answer import Answer
from probe.choosing.in_episode import (
    TooFewError,
    by_patient_settings,
    choose_settings,
    count_units,
    mark_of,
    said_of,
    units_of,
)
from probe.choosing.plan import FOLD_SEED, N_FOLDS
from probe.config import ProbeConfig
from probe.episodes.draw import (
    Draws,
    FewShotConfig,
    digest_of,
    draw_episodes,
    read_episodes,
    write_episodes,
)
from probe.episodes.prior import class_shares, to_prior
from probe.kinds import knn
from probe.kinds.episode_heads import Scores, ask_adamw_episodes, ask_grid_episodes
from probe.kinds.estimator import N_WARNED, Question, fit_all
from probe.kinds.kind import votes_of
from probe.kinds.left_out import largest_k, left_out_scores
from probe.kinds.linear import LinearConfig
from probe.kinds.ridge import RidgeConfig, as_scores, ridge_targets
from probe.metrics import classification as metrics
from probe.metrics.losses import loss_name, loss_of
from probe.questions.question import Asked
from probe.questions.samples import Split, pick
from probe.solvers import episodes as fewshot
from probe.solvers.standardise import FEW, UNLABELLED, Prepare, of_one_length, unlabelled_standard


def ask_episodes(config: ProbeConfig, asked: Asked, splits: dict[str, Split]) -> Iterator[Answer]:
    """One answer for each number of shots, and of kNN for each k that its episodes allow.

    Raises:
        RequestError: what the kind, the rule of drawing or an episodes file refuses; after the
            answers that there are, shots that are too few for a k or a choice.
    """
    few_shot, train = config.few_shot, splits["train"]
    assert few_shot is not None
    draws, rule = _draw(few_shot, asked, train)
    is_continuous = asked.task == REGRESSION
    if is_continuous and few_shot.prior not in (None, "none"):
        raise RequestError(
            f"--prior {few_shot.prior} is about shares of classes, and {asked.dataset} has "
            "continuous labels; leave it out"
        )
    too_few: list[str] = []
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
        score = _estimator if config.estimator else SCORE[config.kind]
        try:
            for settings, chosen, scores, more in score(config, asked, splits, episodes):
                score_type = settings.get("score_type", metrics.PROBABILITY)
                has_prior = not is_continuous and score_type == metrics.PROBABILITY
                if has_prior:
                    scores = _corrected(few_shot.prior_word, asked, train, episodes, scores)
                    drawn["prior"] = few_shot.prior_word
                    more = [*more, *PRIOR_MARKS[few_shot.prior_word]]
                elif few_shot.prior not in (None, "none"):
                    raise RequestError(
                        f"--prior {few_shot.prior} corrects probabilities, and {config.kind} gives "
                        "none; leave it out"
                    )
                said = {**settings, "few_shot": dict(drawn)}
                yield Answer(said, chosen, {"test": scores}, [*marks, *more])
        except TooFewError as error:
            too_few.append(f"--shots {shots}: {error}")
    if too_few:
        raise RequestError("; ".join(too_few))


def _corrected(
    word: str,
    asked: Asked,
    train: Split,
    episodes: list[NDArray[np.intp]],
    scores: NDArray[np.floating],
) -> NDArray[np.float32]:
    """(E, N, C) probabilities under the class shares that a word of ``probe.episodes.prior`` means.

    One by one: all at once would take six times the memory of the scores. As they are stored: what
    float32 holds for equal is so in the metrics, too.
    """
    n_classes = len(asked.class_names)
    natural = class_shares(train.y, asked.task, n_classes)
    return np.stack(
        [
            to_prior(
                answers,
                class_shares(train.y[rows], asked.task, n_classes)[None],
                natural,
                asked.task,
                word,
            ).astype(np.float32)
            for answers, rows in zip(scores, episodes, strict=True)
        ]
    )


PRIOR_MARKS = {
    "train": ["scores are corrected to the class shares of the whole of train"],
    "uniform": [],
    "em": ["transductive: scores are corrected to class shares estimated on all test images"],
    "none": [],
}


def _draw(config: FewShotConfig, asked: Asked, train: Split) -> tuple[Draws, dict[str, Any]]:
    """The episodes, and what the row says of how they were made."""
    dataset = (asked.trained_on or asked).dataset
    if config.file is not None and config.file.exists() and not config.names_rule:
        return read_episodes(config.file, config.shots, train.ids, dataset), {"draw": "file"}
    n_classes = len(asked.class_names)
    draws = draw_episodes(config, train.ids, train.y, asked.task, n_classes, train.groups)
    if config.file is None:
        return draws, {"draw": config.rule, "episode_seed": config.first_seed}
    if not config.file.exists():
        write_episodes(config.file, draws, train.ids, dataset)
    there = read_episodes(config.file, config.shots, train.ids, dataset)
    for shots, episodes in draws.items():
        if digest_of(there[shots], train.ids) != digest_of(episodes, train.ids):
            raise RequestError(
                f"{config.file} holds other episodes of {shots} shots than --draw, --episodes and "
                "--episode-seed, or the protocol, make; leave them out to use the file, or name "
                "another file to write"
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
    how = config.file.name if config.file else config.rule
    marks = [f"means over {len(episodes)} episodes ({how}); intervals are over episodes and test"]
    if len(episodes) == 1:
        marks = [f"one episode ({how}): the interval is about the test set alone"]
    if config.file:
        return [*marks, *_unlike(config.file.name, asked, train, shots, episodes)]
    if config.rule == "patients" and train.groups is None:
        marks.append("patients aren't known: each image stands for one")
    units = train.ids
    if train.groups is not None and config.rule not in ("first", "bigvision"):
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
        if config.rule != "natural" and 0 < count < shots
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
    if asked.task in (REGRESSION, MULTI_LABEL):
        return []
    counts = np.array([_counts(train.y[rows], train.ids[rows], asked) for rows in episodes])
    low, high = counts.min(), counts.max()
    if low == high == shots:
        return []
    return [f"{name} has {low} to {high} images of a class where it says {shots} shots"]


def _counts(labels: NDArray[np.integer], units: NDArray[np.str_], asked: Asked) -> list[int]:
    """(C,) how many samples, or patients, have each class."""
    if asked.task != MULTI_LABEL:
        labels = labels[:, None] == np.arange(len(asked.class_names))
    return [len(np.unique(units[column == 1])) for column in labels.T]


@dataclasses.dataclass(frozen=True)
class Standardising:
    """How the episodes' features are standardised, and what the row says of it."""

    word: str  # of the question
    prepare: Prepare | None  # None: by each episode's own samples
    mark: str = ""

    @property
    def marks(self) -> list[str]:
        return [self.mark] if self.mark else []


AS_STORED = Standardising("", None)


def _standardising(config: ProbeConfig, train: Split) -> Standardising:
    """As the flag, or the protocol, has it.

    Of train, never of val or test: a test image is met by itself.
    """
    assert config.few_shot
    how = config.few_shot.standardise_word
    if how == "episode":
        return Standardising("by each episode", None)
    if how == "none":
        return Standardising("none (L2)", of_one_length, "standardised: none (L2)")
    one = ", one scale for all features" if len(train) < FEW else ""
    said = f"standardised: {UNLABELLED} (n {len(train):_}{one})"
    return Standardising(UNLABELLED, unlabelled_standard(train.x), said)


def _linear(
    config: ProbeConfig, asked: Asked, splits: dict[str, Split], episodes: list[NDArray[np.intp]]
) -> Iterator[Scores]:
    settings = config.linear or LinearConfig(strengths=(fewshot.STRENGTH,))
    (strength,) = settings.strengths
    train, test = splits["train"], splits["test"]
    n_classes = len(asked.class_names)
    standardising = _standardising(config, train)
    scores = fewshot.logistic_scores(
        train.x,
        train.y,
        episodes,
        test.x,
        asked.task,
        n_classes,
        strength,
        standardising.prepare,
    )
    said = {
        "strengths": [strength],
        "tolerance": fewshot.TOLERANCE,
        "standardised": standardising.word,
        "chosen_by": "fixed",
    }
    yield said, {"strength": strength}, scores, standardising.marks


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
    standardising = _standardising(config, train)
    for n in np.unique(lengths).tolist():  # a penalty may depend on it
        alike = np.flatnonzero(lengths == n)
        rows = [episodes[i] for i in alike]
        answers[alike], chosen[alike] = fewshot.ridge_scores(
            train.x, targets, rows, test.x, settings.at(n), standardising.prepare
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
        "standardised": standardising.word,
        **({} if is_continuous else {"score_type": metrics.MARGIN}),
    }
    penalties = {"penalty": float(np.median(chosen)), "penalties": chosen.tolist()}
    yield said, penalties, answers, standardising.marks


def _knn(
    config: ProbeConfig, asked: Asked, splits: dict[str, Split], episodes: list[NDArray[np.intp]]
) -> Iterator[Scores]:
    settings = config.knn or knn.KnnConfig(k=(1,))
    if settings.one_k:
        yield _best_k(settings, asked, splits, episodes)
        return
    largest = min(map(len, episodes)) - settings.n_needed
    fitting = tuple(k for k in settings.k if k <= largest)
    if fitting:
        fits = dataclasses.replace(settings, k=fitting)
        found = [_neighbours_say(fits, asked, splits, rows) for rows in episodes]
        for k in fitting:
            said = {"k": k, **settings.settings}
            yield said, {}, np.stack([scores[k] for scores in found]), []
    if large := [str(k) for k in settings.k if k > largest]:
        raise TooFewError(_too_large(large, largest))


def _best_k(
    settings: knn.KnnConfig,
    asked: Asked,
    splits: dict[str, Split],
    episodes: list[NDArray[np.intp]],
) -> Scores:
    """The k of each episode that answers its own samples best, each by the others.

    Raises:
        TooFewError: there is nothing to leave out, or no k that leaves so many.
    """
    train, task = splits["train"], asked.task
    parts = [pick(train, rows) for rows in episodes]
    if min(max(count_units(part, task)) for part in parts) < 2:
        raise TooFewError(
            "leaving out the one sample, or patient, of a class says nothing of k; name one with --k"
        )
    largest = min(largest_k(settings, units_of(part)) for part in parts)
    # The first of equals is taken: the most neighbours, the smoothest vote.
    ks = tuple(sorted((k for k in settings.k if k <= largest), reverse=True))
    if not ks:
        raise TooFewError(_too_large([str(min(settings.k))], largest))
    settings = dataclasses.replace(settings, k=ks)
    places, found = [], []
    for part, rows in zip(parts, episodes, strict=True):
        said = left_out_scores(
            settings, part.x, part.y, units_of(part), task, len(asked.class_names)
        )
        losses = [
            loss_of(said[k], part.y, task, votes=votes_of(settings, k, part.y, asked)) for k in ks
        ]
        places.append(int(np.argmin(losses)))
        only = dataclasses.replace(settings, k=(ks[places[-1]],))
        found.append(_neighbours_say(only, asked, splits, rows)[ks[places[-1]]])
    asked_of = {
        "k_among": list(ks),
        **settings.settings,
        "chosen_by": f"leave-one-out {loss_name(task)}",
        "left_out": {"n": 1, **by_patient_settings(asked, train)},
    }
    chosen = said_of("k", ks, places)
    return asked_of, chosen, np.stack(found), [mark_of("k is", "leaving one out", chosen)]


def _too_large(large: list[str], largest: int) -> str:
    """Why no answer has these k; the largest that has one."""
    most = f"at most {largest}; name that with --k" if largest > 0 else "too few for any k"
    return f"k = {', '.join(large)} needs more images than some episodes have: {most}"


def _neighbours_say(
    settings: knn.KnnConfig, asked: Asked, splits: dict[str, Split], rows: NDArray[np.intp]
) -> dict[int, NDArray[np.float64]]:
    train, test = splits["train"], splits["test"]
    if asked.task == REGRESSION:
        return knn.predictions(settings, train.x[rows], train.y[rows][:, None], test.x)
    n_classes = len(asked.class_names)
    return knn.scores(settings, train.x[rows], train.y[rows], test.x, asked.task, n_classes)


def _estimator(
    config: ProbeConfig, asked: Asked, splits: dict[str, Split], episodes: list[NDArray[np.intp]]
) -> Iterator[Scores]:
    settings, question = config.estimator, Question(asked.task, len(asked.class_names))
    assert settings
    train, test, candidates = splits["train"], splits["test"], settings.candidates
    places, scores, warned, score_type = [], [], {}, ""
    standardising = _standardising(config, train) if settings.standardises else AS_STORED
    standard = standardising.prepare
    for rows in episodes:
        part = pick(train, rows)
        is_choosing = len(candidates) > 1
        places.append(choose_settings(settings, part, question, standard) if is_choosing else 0)
        only = settings.only(candidates[places[-1]])
        fitted = fit_all(only, part.x, part.y, question, standard)
        scores.append(fitted.scores(test.x, 0))
        score_type = fitted.score_type
        warned |= dict.fromkeys(fitted.warned)
    asked_of: dict[str, Any] = {
        "settings": {name: list(values) for name, values in settings.grid.items()},
        **settings.facts,
        **({"standardised": standardising.word} if settings.standardises else {}),
        **({} if asked.task == REGRESSION else {"score_type": score_type}),
        "chosen_by": "fixed",
    }
    chosen: dict[str, Any] = {"settings": candidates[0]}
    marks = [f"{settings.name} warns: {text}" for text in [*warned][:N_WARNED]]
    if len(candidates) > 1:
        asked_of["chosen_by"] = f"in-episode {loss_name(asked.task, score_type)}"
        folds = {"n": N_FOLDS, "seed": FOLD_SEED, **by_patient_settings(asked, train)}
        asked_of["folds"] = folds
        chosen = said_of("settings", candidates, places)
        marks = [mark_of("settings are", "folds of its own", chosen), *marks]
    yield asked_of, chosen, np.stack(scores), [*standardising.marks, *marks]


Ask = Callable[
    [ProbeConfig, Asked, dict[str, Split], list[NDArray[np.intp]]],
    Iterator[Scores],
]
SCORE: dict[str, Ask] = {
    "knn": _knn,
    "linear": _linear,
    "ridge": _ridge,
    "adamw": ask_adamw_episodes,
    "heads": ask_grid_episodes,
}
