"""Few-shot: every episode of a probe's row is trained on, and tested."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import numpy as np

from cache.errors import RequestError
from cache.task import REGRESSION
from finetune.model.classifier import load_trained, what_trains
from finetune.rows import as_row, marks_of_batchnorm, probe_settings, say_trains
from finetune.setting import OF_EPISODES, Setting, Trial, named_rate
from finetune.start.episodes import episodes_like
from finetune.training.objective import make_objective
from finetune.training.predict import predict
from finetune.training.training import Learned
from finetune.trials import build, check_measures, files_of, forget_trials, run_trial
from probe.answer import Answer
from probe.episodes.draw import digest_of
from probe.metrics import classification as metrics
from probe.questions.question import Asked
from probe.results import Row


def answer_episodes(setting: Setting, asked: Asked, started: float) -> Iterator[Row]:
    """A row for each seed: every episode of a probe's row is trained on, and tested.

    Nothing is chosen on val, which holds far more labels than an episode: the last weights count.

    Raises:
        RequestError: as ``check_measures`` and ``episodes_like``.
    """
    request, config = setting.request, setting.config
    assert request.few_shot
    wish, (rate,) = request.few_shot, config.rates  # see check_start
    found = episodes_like(
        wish.like, request.results_dir, asked, wish.shots, wish.table, wish.n_episodes
    )
    episodes = found.samples
    test = np.flatnonzero(asked.is_in("test"))
    n_columns = 1 if asked.task == REGRESSION else len(asked.class_names)
    like = found.settings["digest"]
    # Nothing is chosen: what classes alone are chosen by mustn't refuse continuous labels.
    train = dataclasses.replace(config.train, choose_by="loss")
    labels = asked.labels[asked.is_in("train")]
    whole = make_objective(asked.task, asked.class_names, labels, train)
    check_measures(setting, asked, whole, {"test": test})
    forget_trials(
        setting,
        [
            files_of(setting, asked, Trial(rate, seed, None, number, like))
            for seed in config.train.seeds
            for number in range(len(episodes))
        ],
    )
    for seed in config.train.seeds:
        scores = np.empty((len(episodes), len(test), n_columns), np.float32)
        for number, samples in enumerate(episodes):
            objective = make_objective(asked.task, asked.class_names, asked.labels[samples], train)
            if objective.score_type != metrics.PROBABILITY and found.settings.get("prior"):
                raise RequestError(
                    "--as-published scores several classes by a sigmoid each, which can't be "
                    "corrected to train's shares as those of the probe's episodes are; leave it out"
                )
            learned = Learned(asked, objective, samples, test[:0])
            one = run_trial(setting, learned, Trial(rate, seed, None, number, like))
            assert one.position
            classifier = build(setting, objective, seed)
            load_trained(classifier, one.files.load_best(one.position), one.files.folder)
            answers = predict(
                classifier, setting.plain, test, max(one.position.micro_batch, 1), setting.ranks
            )
            scores[number] = found.to_prior(objective.scores(answers.logits), number)
        few_shot = {
            **found.settings,
            "episodes": len(episodes),
            "images": max(map(len, episodes)),
            "digest": digest_of(list(episodes), asked.features.ids),
        }
        settings = probe_settings(setting, asked, objective, seed, OF_EPISODES)
        probe = {**settings, "few_shot": few_shot}
        chosen = {
            **named_rate(config, rate),
            "trains": say_trains(what_trains(classifier, config.model)),
            "ddof": config.train.ddof,
        }
        marks = [found.mark, *marks_of_batchnorm(setting, classifier)]
        yield as_row(setting, asked, Answer(probe, chosen, {"test": scores}, marks), started)
        started = time.perf_counter()
