"""Few-shot around any kind: draw episodes, ask it, correct class shares, say what a reader must know.

Nothing is chosen on val: it holds far more labels than an episode.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from cache.errors import RequestError
from probe.answer import Answer
from probe.arrays import Floats, Ints, Singles, Texts
from probe.choosing.in_episode import TooFewError
from probe.episodes.draw import (
    Draws,
    FewShotConfig,
    digest_of,
    draw_episodes,
    read_episodes,
    write_episodes,
)
from probe.episodes.prior import class_shares, to_prior
from probe.kinds.kind import Episodes, Kind, Problem
from probe.metrics import classification as metrics
from probe.questions.question import Question, Split
from probe.results import SHOTS_ARE_PATIENTS


def answer_few_shot(kind: Kind, problem: Problem) -> Iterator[Answer]:
    """One answer for each number of shots, and of kNN for each k that its episodes allow.

    Raises:
        RequestError: what the kind, the rule of drawing or an episodes file refuses; after the
            answers that there are, shots that are too few for a k or a choice.
    """
    few_shot, train, question = problem.few_shot, problem.splits["train"], problem.question
    assert few_shot is not None
    draws, rule = _draw(few_shot, question, train)
    has_shares = problem.task.is_classification
    if problem.task.is_continuous and few_shot.prior not in (None, "none"):
        raise RequestError(
            f"--prior {few_shot.prior} is about shares of classes, and {question.dataset} has "
            "continuous labels; leave it out"
        )
    too_few: list[str] = []
    for shots in few_shot.shots:
        episodes = draws[shots]
        if not min(map(len, episodes)):
            raise RequestError(
                f"{question.title}: an episode of {shots} shots has no image, as no patient is of one "
                "class alone; leave --shots out, to learn from all of train"
            )
        marks = _marks(few_shot, question, train, shots, episodes)
        drawn = {
            "shots": shots,
            "episodes": len(episodes),
            "images": max(map(len, episodes)),
            **rule,
            "digest": digest_of(episodes, train.ids),
        }
        try:
            for answer in kind.answer_episodes(problem, episodes):
                scores, more = answer.scores["test"], answer.marks
                if has_shares and answer.score_type == metrics.PROBABILITY:
                    scores = _corrected(few_shot.prior_word, question, train, episodes, scores)
                    drawn["prior"] = few_shot.prior_word
                    more = [*more, *PRIOR_MARKS[few_shot.prior_word]]
                elif few_shot.prior not in (None, "none"):
                    raise RequestError(
                        f"--prior {few_shot.prior} corrects probabilities, and {kind.name} gives "
                        "none; leave it out"
                    )
                yield replace(
                    answer,
                    settings={**answer.settings, "few_shot": dict(drawn)},
                    scores={"test": scores},
                    marks=[*marks, *more],
                )
        except TooFewError as error:
            too_few.append(f"--shots {shots}: {error}")
    if too_few:
        raise RequestError("; ".join(too_few))


def _corrected(
    word: str, question: Question, train: Split, episodes: Episodes, scores: Floats
) -> Singles:
    """(E, N, C) probabilities under the class shares that a word of ``probe.episodes.prior`` means.

    One by one: all at once would take six times the memory of the scores. As they are stored: what
    float32 holds for equal is so in the metrics, too.
    """
    task, natural, found = question.task, class_shares(train.y, question.task), []
    for answers, rows in zip(scores, episodes, strict=True):
        learnt = class_shares(train.y[rows], task)[None]
        found.append(to_prior(answers, learnt, natural, task.word, word).astype(np.float32))
    return np.stack(found)


PRIOR_MARKS = {
    "train": ["scores are corrected to the class shares of the whole of train"],
    "uniform": [],
    "em": ["transductive: scores are corrected to class shares estimated on all test images"],
    "none": [],
}


def _draw(config: FewShotConfig, question: Question, train: Split) -> tuple[Draws, dict[str, Any]]:
    """The episodes, and what the row says of how they were made."""
    dataset = (question.trained_on or question).dataset
    if config.file is not None and config.file.exists() and not config.names_rule:
        return read_episodes(config.file, config.shots, train.ids, dataset), {"draw": "file"}
    draws = draw_episodes(config, train.ids, train.y, question.task, train.groups)
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
    config: FewShotConfig, question: Question, train: Split, shots: int, episodes: Episodes
) -> list[str]:
    how = config.file.name if config.file else config.rule
    marks = [f"means over {len(episodes)} episodes ({how}); intervals are over episodes and test"]
    if len(episodes) == 1:
        marks = [f"one episode ({how}): the interval is about the test set alone"]
    if config.file:
        return [*marks, *_unlike(config.file.name, question, train, shots, episodes)]
    if config.rule == "patients" and train.groups is None:
        marks.append("patients aren't known: each image stands for one")
    units = train.ids
    if train.groups is not None and config.rule not in ("first", "bigvision"):
        units = np.where(train.groups == "", train.ids, train.groups)
    if len(np.unique(units)) < len(units):
        marks.append(SHOTS_ARE_PATIENTS)
    if not question.task.is_classification:
        if (n := len(np.unique(units))) < shots:
            marks.append(f"fewer than {shots} in train, all {n} taken")
        return marks
    names = question.task.class_names
    counts = np.array(
        [_counts(train.y[rows], units[rows], question) for rows in episodes]
    )  # (E, C)
    absent = [name for name, n in zip(names, counts.min(axis=0), strict=True) if n == 0]
    if absent:
        marks.append(f"episodes without any {', '.join(absent[:3])}")
    most = [] if config.rule == "natural" else zip(names, counts.max(axis=0), strict=True)
    few = [f"{name} {n}" for name, n in most if 0 < n < shots]
    if few:
        marks.append(f"fewer than {shots} in train, all taken: {', '.join(few[:3])}")
    return marks


def _unlike(
    name: str, question: Question, train: Split, shots: int, episodes: Episodes
) -> list[str]:
    """What a file of episodes, whoever made it, has of a class, where that isn't the shots.

    Ids of one data set may be ids of another: an episode is then no longer even by class.
    """
    if not question.task.is_classification or question.task.has_several_labels:
        return []
    counts = np.array([_counts(train.y[rows], train.ids[rows], question) for rows in episodes])
    low, high = counts.min(), counts.max()
    if low == high == shots:
        return []
    return [f"{name} has {low} to {high} images of a class where it says {shots} shots"]


def _counts(labels: Ints, units: Texts, question: Question) -> list[int]:
    """(C,) how many samples, or patients, have each class."""
    if not question.task.has_several_labels:
        labels = labels[:, None] == np.arange(question.task.n_classes)
    return [len(np.unique(units[column == 1])) for column in labels.T]
