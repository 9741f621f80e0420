"""Trials: one training each, of one learning rate and one seed, and which rate val prefers."""

from __future__ import annotations

import dataclasses
import hashlib
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
from finetune.setting import (
    Setting,
    describe_rate,
    named_rate,
)
from finetune.start.head import FirstHead, first_head
from finetune.training.checkpoints import Place, Trial
from finetune.training.objective import Objective
from finetune.training.training import Diverged, Learned, Training
from probe.encoded import samples_of
from probe.metrics.patients import Scored, by_patient
from probe.questions.question import Asked


@dataclass(frozen=True)
class Tried:
    """A trial that ended."""

    encoder_lr: float
    seed: int
    trial: Trial
    place: Place | None  # None: it diverged
    value: float  # of val, by what is chosen, higher is better; -inf: it diverged


def check_measures(
    setting: Setting,
    asked: Asked,
    objective: Objective,
    read: Mapping[str, NDArray[np.int64]],
) -> None:
    """Refuse before the training what couldn't be measured after it.

    Args:
        setting: of the job.
        asked: the question.
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
        judged = objective.judge(logits["val"], asked.labels[read["val"]])
        if math.isnan(objective.rank(judged)):
            raise RequestError(
                f"--choose-by {objective.choose_by}: val has none, for a class is missing there, or "
                "a label is known of no val image; take --choose-by loss, or another --split"
            )
    if setting.request.per_patient:
        groups = asked.features.groups
        for name, of in read.items():
            by_patient(
                Scored(
                    objective.scores(logits[name]),
                    asked.labels[of],
                    asked.features.ids[of],
                    None if groups is None else groups[of],
                )
            )


def make_first_head(setting: Setting, asked: Asked, objective: Objective) -> FirstHead | None:
    """The linear head that training begins with, where one was named.

    Raises:
        RequestError: as ``finetune.start.head.first_head``.
    """
    request, m = setting.request, setting.config.model
    if request.init_head_from is None:
        return None
    return first_head(
        request.init_head_from,
        asked,
        setting.key,
        m.pool,
        objective.n_logits,
        results_dir=request.results_dir,
        features_dir=request.images.root,
        layer=m.cut_after,
    )


def run_trial(
    setting: Setting,
    asked: Asked,
    learned: Learned,
    encoder_lr: float,
    seed: int,
    head: FirstHead | None,
    episode: int | None = None,
    like: str | None = None,
) -> Tried:
    """One training, or what is left of it; a diverged one is out of the race, not an error.

    Args:
        setting: what all trials share.
        asked: the question.
        learned: what is learned from which samples.
        encoder_lr: the encoder's full rate.
        seed: of the training.
        head: that it begins with; None: by the seed.
        episode: its number, few-shot.
        like: the digest of all the episodes.
    """
    trial = make_trial(setting, asked, encoder_lr, seed, head, episode, like)
    label = f"{setting.label}, {describe_rate(setting.config, encoder_lr)}, seed {seed}"
    label += f", {asked.name}" if asked.name else ""
    label += "" if episode is None else f", episode {episode}"
    with trial.held(setting.ranks):
        classifier = build(setting, learned.objective, seed, head)
        training = Training(
            classifier,
            setting.augmented,
            setting.plain,
            learned,
            setting.config,
            encoder_lr,
            seed,
            trial,
            setting.ranks,
            label,
            setting.say,
        )
        try:
            place = training.run()
        except Diverged as error:
            if len(setting.config.rates) == 1:
                raise
            setting.say(f"  {label}: {error}")
            return Tried(encoder_lr, seed, trial, None, -math.inf)
    value = max((training.rank(check["val"]) for check in place.checks), default=math.nan)
    setting.say(f"  {label}: {describe_end(training, place)}")
    return Tried(encoder_lr, seed, trial, place, value)


def run_refit(
    setting: Setting, asked: Asked, learned: Learned, one: Tried, classifier: Classifier
) -> Tried:
    """A new head on the encoder of a trial that ended, which stays as it is, from train and val.

    Args:
        setting: what all trials share.
        asked: the question.
        learned: what the trial learned from.
        one: the trial.
        classifier: with its best weights; it ends with the new head's last ones.
    """
    trial, label = refit_trial(one.trial), f"{setting.label}, seed {one.seed}, train and val"
    with trial.held(setting.ranks):
        start_head_anew(classifier, learned.objective.n_logits, one.seed)
        both = dataclasses.replace(
            learned, train=np.concatenate([learned.train, learned.val]), val=learned.val[:0]
        )
        training = Training(
            classifier,
            setting.augmented,
            setting.plain,
            both,
            dataclasses.replace(setting.config, model=classifier.config),
            one.encoder_lr,
            one.seed,
            trial,
            setting.ranks,
            label,
            setting.say,
        )
        place = training.run()
        load_trained(classifier, trial.load_best(place), trial.folder)
    setting.say(f"  {label}: {describe_end(training, place)}")
    return dataclasses.replace(one, trial=trial, place=place)


def refit_trial(trial: Trial) -> Trial:
    """The place of the head that is trained on train and val after a trial."""
    folder = trial.folder.with_name(f"{trial.folder.name}_refit")
    return Trial(folder, {**trial.question, "refit": "train+val"})


def make_trial(
    setting: Setting,
    asked: Asked,
    encoder_lr: float,
    seed: int,
    head: FirstHead | None,
    episode: int | None = None,
    like: str | None = None,
) -> Trial:
    """The place of a training; arguments as ``run_trial`` has them."""
    question = trial_question(setting, asked, encoder_lr, seed)
    if head:
        question["head"] = digest_arrays(head.weights, head.intercept)
    if episode is not None:
        question |= {"like": like, "episode": episode}
    return Trial(trial_folder(setting, question), question)


def forget_trials(setting: Setting, trials: Sequence[Trial]) -> None:
    """Throw away what is to be overwritten, all of it before the first training.

    So a run that is interrupted then goes on without ``--overwrite``, and takes nothing old.
    """
    if setting.request.run.overwrite and setting.ranks.is_first:
        for trial in trials:
            with trial.held(setting.ranks):
                trial.forget()
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
        found, wanted = head.weights.shape[1], classifier.places.shape[0]
        if found != wanted:  # of a row it is known already; a file says nothing else
            raise RequestError(
                f"--init-head-from: its head is of {found} features, and this one sees {wanted}; "
                "name one of the same encoder, layer and pool"
            )
        tensors = {"weight": head.weights, "bias": head.intercept}
        classifier.head.load_state_dict({n: torch.from_numpy(t) for n, t in tensors.items()})
    trains = what_trains(classifier, setting.config.model)
    setting.say_once(f"  trains     encoder {trains.encoder}")
    if trains.adapters.n_all:
        setting.say_once(f"             adapters {trains.adapters}")
    setting.say_once(f"             head {trains.head}")
    return classifier.to(setting.device)


def trial_question(setting: Setting, asked: Asked, encoder_lr: float, seed: int) -> dict[str, Any]:
    """What makes this training another than any other."""
    train = dataclasses.asdict(setting.config.train)
    for name in ("encoder_lr", "seeds", "ddof", "refit"):  # a refit is a training of its own
        train.pop(name)
    return {
        "features": key_digest(setting.key),
        "task": [asked.task, *asked.class_names],
        "samples": samples_of(asked),
        "model": model_settings(setting.config, setting.head_digest),
        "train": train,
        **named_rate(setting.config, encoder_lr),
        "seed": seed,
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
        values.setdefault(one.encoder_lr, []).append(one.value)
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


def describe_end(training: Training, place: Place) -> str:
    """How a training ended."""
    name = training.learned.objective.choose_by
    best = next((c for c in place.checks if c["iteration"] == place.best), None)
    if best is None or not best["val"]:
        return counted(place.iteration, "iteration")
    return (
        f"best val {name} {best['val'][name]:.3f} after {place.best:_} of "
        f"{training.n_iterations:_} iterations"
    )


def digest_arrays(*arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


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
