"""Trials: one training each, of one learning rate and one seed, and which rate val prefers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cache.commands.names import counted
from cache.errors import RequestError
from cache.format.key import N_DIGEST, file_stem, key_digest
from finetune.config import FinetuneConfig
from finetune.model.classifier import (
    Classifier,
    build_classifier,
    load_trained,
    start_head_anew,
    what_trains,
)
from finetune.setting import Setting, Trial, describe_rate, named_rate
from finetune.start.head import FirstHead, first_head
from finetune.training.checkpoints import Checkpoints, Position
from finetune.training.objective import Objective
from finetune.training.training import Diverged, Learned, Training
from probe.metrics.patients import Scored, by_patient
from probe.questions.question import Question
from probe.row import samples_of


@dataclass(frozen=True)
class Tried:
    """A trial that ended."""

    trial: Trial
    files: Checkpoints
    position: Position | None  # None: it diverged
    value: float  # of val, by what is chosen, higher is better; -inf: it diverged


def check_measures(
    setting: Setting,
    question: Question,
    objective: Objective,
    read: Mapping[str, NDArray[np.int64]],
) -> None:
    """Refuse before the training what couldn't be measured after it.

    Args:
        setting: of the job.
        question: the question.
        objective: what is learned.
        read: the samples of each split that is scored.

    Raises:
        RequestError: val can't decide by what it is asked to; or patients are to be measured, and
            aren't known or have several labels.
    """
    logits = {
        name: np.zeros((len(of), objective.n_logits), np.float32) for name, of in read.items()
    }
    if "val" in read:
        judged = objective.judge(logits["val"], question.labels[read["val"]])
        if math.isnan(objective.rank(judged)):
            raise RequestError(
                f"--choose-by {objective.choose_by}: val has none, for a class is missing there, or "
                "a label is known of no val image; take --choose-by loss, or another --split"
            )
    if setting.request.per_patient:
        groups = question.features.groups
        for name, of in read.items():
            by_patient(
                Scored(
                    objective.scores(logits[name]),
                    question.labels[of],
                    question.features.ids[of],
                    None if groups is None else groups[of],
                )
            )


def make_first_head(setting: Setting, question: Question, objective: Objective) -> FirstHead | None:
    """The linear head that training begins with, where one was named.

    Raises:
        RequestError: as ``finetune.start.head.first_head``.
    """
    request, m = setting.request, setting.config.model
    if request.init_head_from is None:
        return None
    return first_head(
        request.init_head_from,
        question,
        setting.key,
        m.pool,
        objective.n_logits,
        results_dir=request.results_dir,
        features_dir=request.images.root,
        layer=m.cut_after,
    )


def run_trial(setting: Setting, learned: Learned, trial: Trial) -> Tried:
    """One training, or what is left of it; a diverged one is out of the race, not an error."""
    files, name = files_of(setting, learned.question, trial), learned.question.name
    label = f"{setting.label}, {describe_rate(setting.config, trial.encoder_lr)}, seed {trial.seed}"
    label += f", {name}" if name else ""
    label += "" if trial.episode is None else f", episode {trial.episode}"
    with files.held(setting.ranks):
        classifier = build(setting, learned.objective, trial.seed, trial.head)
        training = Training(setting, learned, trial, classifier, files, label)
        try:
            position = training.run()
        except Diverged as error:
            if len(setting.config.rates) == 1:
                raise
            setting.say(f"  {label}: {error}")
            return Tried(trial, files, None, -math.inf)
    value = max((training.rank(check["val"]) for check in position.checks), default=math.nan)
    setting.say(f"  {label}: {describe_end(training, position)}")
    return Tried(trial, files, position, value)


def run_refit(setting: Setting, learned: Learned, one: Tried, classifier: Classifier) -> Tried:
    """A new head on the encoder of a trial that ended, which stays as it is, from train and val.

    Args:
        setting: what all trials share.
        learned: what the trial learned from.
        one: the trial.
        classifier: with its best weights; it ends with the new head's last ones.
    """
    seed, files = one.trial.seed, refit_files(one.files)
    label = f"{setting.label}, seed {seed}, train and val"
    with files.held(setting.ranks):
        start_head_anew(classifier, learned.objective.n_logits, seed)
        both = dataclasses.replace(
            learned, train=np.concatenate([learned.train, learned.val]), val=learned.val[:0]
        )
        config = dataclasses.replace(setting.config, model=classifier.config)
        own = dataclasses.replace(setting, config=config)
        training = Training(own, both, one.trial, classifier, files, label)
        position = training.run()
        load_trained(classifier, files.load_best(position), files.folder)
    setting.say(f"  {label}: {describe_end(training, position)}")
    return dataclasses.replace(one, files=files, position=position)


def refit_files(files: Checkpoints) -> Checkpoints:
    """Those of the head that is trained on train and val after a trial."""
    folder = files.folder.with_name(f"{files.folder.name}_refit")
    return Checkpoints(folder, {**files.question, "refit": "train+val"})


def files_of(setting: Setting, question: Question, trial: Trial) -> Checkpoints:
    """Those of a training, by what makes it another than any other."""
    what = trial_question(setting, question, trial)
    return Checkpoints(trial_folder(setting, what), what)


def forget_trials(setting: Setting, each: Sequence[Checkpoints]) -> None:
    """Throw away what is to be overwritten, all of it before the first training.

    So a run that is interrupted then goes on without ``--overwrite``, and takes nothing old.
    """
    if setting.request.run.overwrite and setting.ranks.is_first:
        for files in each:
            with files.held(setting.ranks):
                files.forget()
    setting.ranks.wait()


def build(
    setting: Setting, objective: Objective, seed: int, head: FirstHead | None = None
) -> Classifier:
    """The network with its first weights, on its device; what trains is said once."""
    classifier, _ = build_classifier(
        setting.job.description,
        setting.weights,
        setting.config.model,
        objective.n_logits,
        seed,
        setting.say_once,
    )
    if head:
        found, wanted = head.weights.shape[1], classifier.parts.shape[0]
        if found != wanted:  # of a row it is known already; a file says nothing else
            raise RequestError(
                f"--init-head-from: its head is of {found} features, and this one sees {wanted}; "
                "name one of the same encoder, layer and pool"
            )
        tensors = {"weight": head.weights, "bias": head.intercept}
        classifier.head.load_state_dict({n: torch.from_numpy(t) for n, t in tensors.items()})
    trains = what_trains(classifier)
    setting.say_once(f"  trains     encoder {trains.encoder}")
    if trains.adapters.n_all:
        setting.say_once(f"             adapters {trains.adapters}")
    setting.say_once(f"             head {trains.head}")
    return classifier.to(setting.device)


def trial_question(setting: Setting, question: Question, trial: Trial) -> dict[str, Any]:
    """What makes this training another than any other."""
    train = dataclasses.asdict(setting.config.train)
    for name in ("encoder_lr", "seeds", "ddof", "refit"):  # a refit is a training of its own
        train.pop(name)
    return {
        "features": key_digest(setting.key),
        "task": [question.task.word, *question.task.class_names],
        "samples": samples_of(question),
        "model": model_settings(setting.config, setting.head_digest),
        "train": train,
        **named_rate(setting.config, trial.encoder_lr),
        "seed": trial.seed,
        **({"head": trial.head.digest} if trial.head else {}),
        **({} if trial.episode is None else {"like": trial.like, "episode": trial.episode}),
    }


def trial_folder(setting: Setting, question: dict[str, Any]) -> Path:
    """``runs/{dataset}/{model}_{size}_{mode}_{digest}/{rate and seed}``."""
    of_rate = setting.config.rate_name
    shared = {n: v for n, v in question.items() if n not in (of_rate, "seed", "episode")}
    d = setting.job.description
    rate = f"lr{question[of_rate]:g}_" if of_rate else ""
    name = f"{file_stem(d.entry.name)}_{d.size}_{setting.config.model.mode}"
    folder = setting.request.runs_dir / file_stem(setting.job.source.name)
    episode = f"_episode{question['episode']:03d}" if "episode" in question else ""
    run = f"{name}_{key_digest(shared)[:N_DIGEST]}"
    return folder / run / f"{rate}seed{question['seed']}{episode}"


def choose_rate(tried: Sequence[Tried]) -> float:
    """The encoder's rate with the highest mean over seeds; the smaller of two.

    Raises:
        RequestError: every rate diverged.
    """
    means = _means(tried)
    if max(means.values()) == -math.inf:
        raise RequestError(f"every learning rate diverged; try --encoder-lr {min(means) / 10:g}")
    return max(means, key=lambda rate: (means[rate], -rate))


def _means(tried: Sequence[Tried]) -> dict[float, float]:
    """Of each rate the mean over seeds of what is chosen by, higher is better."""
    values: dict[float, list[float]] = {}
    for one in tried:
        values.setdefault(one.trial.encoder_lr, []).append(one.value)
    return {rate: float(np.mean(of)) for rate, of in sorted(values.items())}


def describe_choice(config: FinetuneConfig, by: str, tried: Sequence[Tried], best: float) -> str:
    """Which rate is tested, and how all did on val by ``by``."""
    sign = -1 if by == "loss" else 1
    means = ", ".join(
        f"{rate:g}: {'diverged' if value == -math.inf else f'{sign * value:.3f}'}"
        for rate, value in _means(tried).items()
    )
    return (
        f"{describe_rate(config, best)} is tested; best val {by}, in the mean over seeds: {means}"
    )


def describe_end(training: Training, position: Position) -> str:
    """How a training ended."""
    name = training.learned.objective.choose_by
    best = next((c for c in position.checks if c["iteration"] == position.best), None)
    if best is None or not best["val"]:
        return counted(position.iteration, "iteration")
    return (
        f"best val {name} {best['val'][name]:.3f} after {position.best:_} of "
        f"{training.length.n_iterations:_} iterations"
    )


def model_settings(config: FinetuneConfig, head_digest: str | None) -> dict[str, Any]:
    """What of the network changes numbers; memory and compilation don't.

    Args:
        config: the settings.
        head_digest: of the DeiT head's weights, wherever they are; None: they are random.
    """
    settings = dataclasses.asdict(config.model)
    settings["head_weights"] = head_digest or settings["head_weights"]
    for name in ("grad_checkpointing", "compile"):
        settings.pop(name)
    unused = {"lora": config.model.lora is None, "head_weights": config.model.head == "linear"}
    unused["pool"] = config.model.head == "deit"
    return {name: value for name, value in settings.items() if not unused.get(name)}
