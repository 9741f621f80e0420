"""From a trial that ended to a row: test is read, measured as a probe's is, and the weights are kept."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cache.commands.names import encoder_label
from cache.format.key import key_digest
from extract.key import encoder_name, protocol_words
from extract.machine.stopwatch import describe_device
from extract.spec import TRAINED, versions
from finetune.model.classifier import (
    Classifier,
    export_encoder,
    load_trained,
    updates_batchnorm,
    what_trains,
)
from finetune.model.modes import Trains
from finetune.setting import (
    KIND,
    READ,
    Setting,
    describe_mode,
    describe_rate,
    last_layer,
    named_rate,
)
from finetune.training.checkpoints import ENCODER, HEAD, save_tensors
from finetune.training.objective import Objective
from finetune.training.predict import Predicted, predict
from finetune.training.training import Learned
from finetune.trials import Tried, build, model_settings, run_refit
from probe.answer import Answer
from probe.cost import Cost, precise
from probe.metrics import classification as metrics
from probe.questions.question import Question, divide_samples
from probe.results import Encoded, Row
from probe.row import encoder_marks, make_row, of_patients, samples_of, tables_of


def make_answer(
    setting: Setting, learned: Learned, one: Tried, tried: Sequence[Tried], started: float
) -> Row:
    """Test the best weights of a trial, and say what it was.

    Args:
        setting: what all trials share.
        learned: what the trial learned from.
        one: the trial.
        tried: all those that it was chosen of.
        started: when the first began.
    """
    assert one.position
    config, position, question, trial = setting.config, one.position, learned.question, one.trial
    classifier = build(setting, learned.objective, trial.seed)
    load_trained(classifier, one.files.load_best(position), one.files.folder)
    trains = what_trains(classifier)
    has_changed = config.model.encoder_trains or updates_batchnorm(classifier)

    def score(split: str) -> Predicted:
        samples = np.flatnonzero(question.is_in(split))
        at_once = max(position.micro_batch, 1)
        return predict(classifier, setting.plain, samples, at_once, setting.ranks)

    found = {"val": score("val")}
    tested, marks = one, marks_of_batchnorm(setting, classifier)
    marks += trial.head.marks if trial.head else ()
    if config.train.refit != "train":
        tested = run_refit(setting, learned, one, classifier)
        marks.append(
            "tested is a new head, trained on train and val on the encoder that val chose; val "
            "numbers are those of the head before it"
        )
    assert tested.position
    found["test"] = score("test")
    if setting.ranks.is_first:
        keep_weights(setting, classifier, tested, has_changed)
    probe = probe_settings(setting, question, learned.objective, trial.seed, READ)
    if trial.head:
        probe["head_from"] = trial.head.digest
    best = next(check for check in position.checks if check["iteration"] == position.best)
    chosen = {
        **named_rate(config, trial.encoder_lr),
        "iteration": position.best,  # of the best val, so what training took
        "of": position.iteration,
        "seconds": best["seconds"],
        "images_per_s": best["images_per_s"],
        "seconds_per_test_image": round(found["test"].seconds_per_image, 6),
        "by": learned.objective.choose_by,
        "tried": [
            {
                **named_rate(config, other.trial.encoder_lr),
                "seed": other.trial.seed,
                "value": other.value if math.isfinite(other.value) else None,
                "iteration": other.position.best if other.position else None,
            }
            for other in tried
        ],
        "trains": say_trains(trains),
        **({"refit_iterations": tested.position.iteration} if tested is not one else {}),
        **({"head": dict(trial.head.source)} if trial.head else {}),
        **({"head_weights": classifier.head_digest} if classifier.head_digest else {}),
        "checkpoint": str(tested.files.best_path(tested.position)),
        **({"halved_micro_batches": position.halved} if position.halved else {}),
        "ddof": config.train.ddof,
    }
    scores = {name: learned.objective.scores(p.logits) for name, p in found.items()}
    seconds = best["seconds"] + (tested.position.seconds if tested is not one else 0.0)
    cost = cost_of(setting, trains, seconds, found["test"].seconds_per_image)
    return as_row(setting, question, Answer(probe, chosen, scores, marks), cost, started)


def cost_of(
    setting: Setting, trains: Trains, training_seconds: float, seconds_per_image: float
) -> Cost:
    """What a training took, and what its network takes.

    Args:
        setting: of the job.
        trains: the parameters.
        training_seconds: to the tested weights.
        seconds_per_image: of the forward passes over test, in float32.
    """
    parts = (trains.encoder, trains.adapters, trains.head)
    device, n_devices = describe_device(setting.device), setting.ranks.size
    return Cost(
        parameters=sum(part.n_all for part in parts),
        trained_parameters=sum(part.n_training for part in parts),
        inference_seconds_per_image=precise(seconds_per_image),
        training_seconds=precise(training_seconds),
        device=f"{n_devices} x {device}" if n_devices > 1 else device,
        precision="fp32",
    )


def probe_settings(
    setting: Setting, question: Question, objective: Objective, seed: int, read: list[str]
) -> dict[str, Any]:
    """Every setting that changes the numbers, as a row's ``probe`` has them."""
    config, of_type = setting.config, objective.score_type
    train = dataclasses.asdict(config.train)
    train.pop("ddof")
    if config.train.refit == "train":
        train.pop("refit")  # rows from before there was a choice have none
    if not config.rate_name:
        train.pop("encoder_lr")
    if len(config.rates) == 1:
        train.pop("seeds")  # of several rates, all seeds have a say in which one is taken
    return {
        "kind": KIND,
        **model_settings(config, setting.head_digest),
        "layer": last_layer(setting),
        **train,
        **({} if question.features.rows_are_samples else {"aggregate": "mean"}),
        **of_patients(setting.request, question, reads_test=True),
        **({} if of_type == metrics.PROBABILITY else {"score_type": of_type}),
        "training_seed": seed,
        "read": read,
        "n_resamples": setting.request.n_resamples,
    }


def say_trains(trains: Trains) -> dict[str, dict[str, Any]]:
    """Of each part: how many parameters train, of how many, and their names, many as one."""
    parts = {"encoder": trains.encoder, "adapters": trains.adapters, "head": trains.head}
    return {name: dataclasses.asdict(part) for name, part in parts.items() if part.n_all}


def as_row(setting: Setting, question: Question, answer: Answer, cost: Cost, started: float) -> Row:
    """Measure an answer as a probe's is measured, and say which encoder it is of."""
    nothing = np.zeros((len(question.labels), 0), np.float32)  # nobody reads the features here
    return make_row(
        question,
        answer,
        encoded_by(setting, question),
        setting.request,
        divide_samples(nothing, question),
        started,
        protocol=setting.followed,
        versions=versions(),
        cost=cost,
    )


def encoded_by(setting: Setting, question: Question) -> Encoded:
    """The encoder as it was before the training, and what of that a reader must know."""
    d, notes, followed = setting.job.description, setting.notes, setting.followed
    protocol = protocol_words(setting.job, setting.request.images)
    augment = setting.config.train.augment
    return Encoded(
        d.entry.name,
        encoder_name(d, setting.request.images),
        d.size,
        question.dataset,
        question.task.word,
        key_digest(setting.key),
        setting.key,
        samples_of(question),
        tables_of(question.features),
        encoder_label(d.entry.name, notes, setting.key),
        str(notes["seen"]),
        protocol,
        (
            *((f"trained as {followed}", *followed.differs) if followed else ()),
            *encoder_marks({**notes, "protocol": protocol}),
            *([f"trained on augmented images: {augment}"] if augment != "none" else []),
        ),
    )


def marks_of_batchnorm(setting: Setting, classifier: Classifier) -> list[str]:
    """What the row says of a frozen encoder that changed all the same."""
    if setting.config.model.encoder_trains or not updates_batchnorm(classifier):
        return []
    return ["BatchNorm of the frozen encoder trained on each batch's statistics"]


def keep_weights(setting: Setting, classifier: Classifier, one: Tried, has_changed: bool) -> None:
    """Beside the checkpoints, for ``extract --weights``: the encoder as it is now, and its head.

    The encoder's file says what it was trained on, and so do the rows of its features. One that
    hasn't changed has none.
    """
    trial, config = one.trial, setting.config
    save_tensors(one.files.folder / HEAD, classifier.head.state_dict())
    if not has_changed:
        return
    if setting.config.model.cut_after is not None:
        setting.say_once(f"  {setting.label}: no {ENCODER}, for extract takes whole encoders")
        return
    how = f"{describe_mode(config)}, {describe_rate(config, trial.encoder_lr)}, seed {trial.seed}"
    trained = {TRAINED: f"fine-tuned on {setting.job.source.name} ({how})"}
    path = one.files.folder / ENCODER
    save_tensors(path, export_encoder(classifier), trained)
    setting.say(f"  {setting.label}, seed {trial.seed}: for extract --weights: {path}")
