"""Fine-tuning on the very episodes of a probe's row, so that both answer one question.

A row holds how its episodes were drawn, and the digest of what was drawn. They are drawn again, by
ids and seed alone, and compared with that digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from finetune.start.samples import refuse_other_samples
from probe.episodes.draw import FewShotConfig, digest_of, draw_episodes, read_episodes
from probe.episodes.prior import class_shares, to_prior
from probe.questions.question import Question
from probe.row_names import find_row

FLAG = "--episodes-like"
FILE = "file"  # the draw of a row whose episodes were read from a table


@dataclass(frozen=True)
class Episodes:
    """A probe's episodes. S samples of the data set, E episodes."""

    # (E,) positions among the S samples, ascending: what an episode trains on, all of it from train.
    samples: tuple[NDArray[np.int64], ...]
    settings: Mapping[str, Any]  # the row's probe.few_shot, for a row beside it
    question: Question
    row: str  # the id of the row that they are like

    @property
    def mark(self) -> str:
        """What a reader of numbers must know."""
        return f"the {len(self.samples)} episodes of row {self.row[:16]}"

    def to_prior(self, scores: NDArray[np.floating], episode: int) -> NDArray[np.floating]:
        """Correct an episode's probabilities to the class shares that the probe's are corrected to.

        Args:
            scores: (N, C) probabilities of test.
            episode: whose they are.

        Returns:
            (N, C), float32 as a row of episodes stores them.
        """
        word = self.settings.get("prior")
        if word is None:  # the probe has no probabilities to correct
            return scores.astype(np.float32)
        question, task = self.question, self.question.task
        learnt = class_shares(question.labels[self.samples[episode]], task)
        natural = class_shares(question.labels[question.is_in("train")], task)
        return to_prior(scores, learnt[None], natural, task.word, word).astype(np.float32)


def episodes_like(
    run: str,
    results_dir: Path,
    question: Question,
    shots: int | None = None,
    file: Path | None = None,
    n_episodes: int | None = None,
) -> Episodes:
    """The episodes of a probe's few-shot row.

    Args:
        run: the row: its JSON file, the stem of that name, or the start of its id.
        results_dir: the folder of results.
        question: the question; labels and split must be the row's.
        shots: as asked for; None: the row's.
        file: the table that the row's episodes were read from, where they were.
        n_episodes: the first so many of them; None: all.

    Raises:
        RequestError: no such row, no few-shot row, one of other shots, data, labels or another
            split; or its episodes can't be drawn again.
    """
    path, row = find_row(run, results_dir, FLAG)
    settings, name = row["probe"].get("few_shot"), path.stem
    if not isinstance(settings, dict):
        raise RequestError(
            f"{FLAG}: {name} learnt from all of train; name a row of `probe --shots N`"
        )
    if shots is not None and shots != settings["shots"]:
        raise RequestError(
            f"{FLAG}: {name} has episodes of {settings['shots']} shots, not {shots}; name the row "
            f"of `probe --shots {shots}`"
        )
    refuse_other_samples(row, question, name)
    samples = _draw(settings, question, file, name)
    if n_episodes is not None and n_episodes > len(samples):
        raise RequestError(
            f"--episodes {n_episodes}: {name} has {len(samples)}; leave the flag out for all of them"
        )
    if digest_of(samples, question.features.ids) != settings["digest"]:
        raise RequestError(
            f"{FLAG}: the episodes of {name} can't be drawn again: ids, patients or numpy's order "
            "changed since, so ask the probe anew"
            + ("" if file is None else f", or {file} isn't its file")
        )
    return Episodes(tuple(samples[:n_episodes]), settings, question, row["id"])


def _draw(
    settings: Mapping[str, Any], question: Question, file: Path | None, name: str
) -> list[NDArray[np.int64]]:
    """Each episode's samples, by the row's rule or from its table."""
    train = np.flatnonzero(question.is_in("train"))
    ids, groups, shots = question.features.ids[train], question.features.groups, settings["shots"]
    if settings["draw"] == FILE:
        if file is None:
            raise RequestError(
                f"{FLAG}: the episodes of {name} come from a table; name it with --episodes-file"
            )
        return [train[rows] for rows in read_episodes(file, (shots,), ids, question.dataset)[shots]]
    if file is not None:
        raise RequestError(
            f"--episodes-file: {name} drew its episodes ({settings['draw']}); leave the file out"
        )
    config = FewShotConfig(
        (shots,), settings["episodes"], settings["episode_seed"], settings["draw"]
    )
    draws = draw_episodes(
        config,
        ids,
        question.labels[train],
        question.task,
        None if groups is None else groups[train],
    )
    return [train[rows] for rows in draws[shots]]
