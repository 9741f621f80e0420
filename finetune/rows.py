"""From a trial that ended to a row: test is read, measured as a probe's is, and the weights are kept."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.commands.names import encoder_label
from cache.format.key import key_digest
from extract.plan import encoder_name, protocol_words
from extract.run import TRAINED, versions
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
from finetune.start.head import FirstHead
from finetune.training.checkpoints import ENCODER, HEAD, save_tensors
from finetune.training.objective import Objective
from finetune.training.predict import Predicted, predict
from finetune.training.training import Learned
from finetune.trials import (
    Tried,
    build,
    digest_arrays,
    model_settings,
    run_refit,
)
from probe.config import ProbeConfig
from probe.episodes.draw import FewShotConfig
from probe.kinds.ridge import RidgeConfig
from probe.metrics import classification as metrics
from probe.questions.question import Asked
from probe.questions.samples import divide_samples
from probe.results import Row
from probe.row import make_row, of_patients


def make_answer(
    setting: Setting,
    asked: Asked,
    learned: Learned,
    one: Tried,
    tried: Sequence[Tried],
    head: FirstHead | None,
    started: float,
) -> Row:
    """Test the best weights of a trial, and say what it was."""
    assert one.place
    config, place = setting.config, one.place
    classifier = build(setting, learned.objective, one.seed)
    load_trained(classifier, one.trial.load_best(place), one.trial.folder)
    trains = what_trains(classifier, config.model)
    has_changed = config.model.encoder_trains or updates_batchnorm(classifier)

    def score(split: str) -> Predicted:
        samples = np.flatnonzero(asked.is_in(split))
        at_once = max(place.micro_batch, 1)
        return predict(classifier, setting.plain, samples, at_once, setting.ranks)

    found = {"val": score("val")}
    tested, marks = one, marks_of_batchnorm(setting, classifier)
    if config.train.refit != "train":
        tested = run_refit(setting, asked, learned, one, classifier)
        marks.append(
            "tested is a new head, trained on train and val on the encoder that val chose; val "
            "numbers are those of the head before it"
        )
    assert tested.place
    found["test"] = score("test")
    if setting.ranks.is_first:
        keep_weights(setting, classifier, tested, has_changed)
    probe = probe_settings(setting, asked, learned.objective, one.seed, READ)
    if head:
        probe["head_from"] = digest_arrays(head.weights, head.intercept)
    best = next(check for check in place.checks if check["iteration"] == place.best)
    chosen = {
        **named_rate(config, one.encoder_lr),
        "iteration": place.best,  # of the best val, so what training took
        "of": place.iteration,
        "seconds": best["seconds"],
        "images_per_s": best["images_per_s"],
        "seconds_per_test_image": round(found["test"].seconds_per_image, 6),
        "by": learned.objective.choose_by,
        "tried": [
            {
                **named_rate(config, other.encoder_lr),
                "seed": other.seed,
                "value": other.value if math.isfinite(other.value) else None,
                "iteration": other.place.best if other.place else None,
            }
            for other in tried
        ],
        "trains": say_trains(trains),
        **({"refit_iterations": tested.place.iteration} if tested is not one else {}),
        **({"head": dict(head.source)} if head else {}),
        **({"head_weights": classifier.head_digest} if classifier.head_digest else {}),
        "checkpoint": str(tested.trial.best_path(tested.place)),
        **({"halved_micro_batches": place.halved} if place.halved else {}),
        "ddof": config.train.ddof,
    }
    scores = {name: learned.objective.scores(p.logits) for name, p in found.items()}
    return as_row(setting, asked, probe, chosen, scores, marks, started)


def probe_settings(
    setting: Setting, asked: Asked, objective: Objective, seed: int, read: list[str]
) -> dict[str, Any]:
    """Every setting that changes the numbers, as a row's ``probe`` has them."""
    config = setting.config
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
        **({} if setting.images.rows_are_samples else {"aggregate": "mean"}),
        **of_patients(as_probe(setting), asked),
        **(
            {}
            if objective.score_type == metrics.PROBABILITY
            else {"score_type": objective.score_type}
        ),
        "training_seed": seed,
        "read": read,
        "n_resamples": setting.request.n_resamples,
    }


def as_probe(setting: Setting, few: Mapping[str, Any] | None = None) -> ProbeConfig:
    """The settings of a probe that measures likewise; its kind is of no meaning here."""
    request = setting.request
    return ProbeConfig(
        kind="ridge",
        ridge=RidgeConfig(),
        few_shot=FewShotConfig((few["shots"],), few["episodes"]) if few else None,
        per_patient=request.per_patient,
        seed=request.seed,
        n_resamples=request.n_resamples,
    )


def say_trains(trains: Trains) -> dict[str, dict[str, Any]]:
    """Of each part: how many parameters train, of how many, and their names, many as one."""
    parts = {"encoder": trains.encoder, "adapters": trains.adapters, "head": trains.head}
    return {name: dataclasses.asdict(part) for name, part in parts.items() if part.n_all}


def as_row(
    setting: Setting,
    asked: Asked,
    probe: dict[str, Any],
    chosen: dict[str, Any],
    scores: dict[str, NDArray[Any]],
    marks: list[str],
    started: float,
) -> Row:
    """Measure the scores as a probe's are measured, and say which encoder they are of."""
    request, d = setting.request, setting.job.description
    nothing = np.zeros((len(asked.labels), 0), np.float32)  # nobody reads the features here
    splits = divide_samples(nothing, asked)
    row = make_row(
        as_probe(setting, probe.get("few_shot")),
        asked,
        splits,
        probe,
        chosen,
        scores,
        marks,
        started,
    )
    protocol = protocol_words(setting.job, request.images)
    return dataclasses.replace(
        row,
        features={
            "model": d.entry.name,
            "label": encoder_label(d.entry.name, setting.notes, setting.key),
            "encoder": encoder_name(d, request.images),
            "size": d.size,
            "dataset": asked.dataset,
            "task": asked.task,
            "digest": key_digest(setting.key),
            "key": setting.key,
            "samples": row.features["samples"],
            "tables": row.features["tables"],
        },
        marks=(*row.marks, *_marks(setting, protocol)),
        seen=str(setting.notes["seen"]),
        protocol=protocol,
        probe_protocol=dataclasses.asdict(setting.followed) if setting.followed else {},
        versions={**row.versions, **versions()},
    )


def _marks(setting: Setting, protocol: str) -> Iterator[str]:
    notes, train, followed = setting.notes, setting.config.train, setting.followed
    if followed:
        yield f"trained as {followed}"
        yield from followed.differs
    if str(notes["seen"]).startswith("yes"):
        how = str(notes["seen"]).removeprefix("yes").lstrip(":, ")
        yield "the encoder saw these images in pretraining" + (how and f": {how}")
    if protocol:
        yield f"preprocessed as {protocol}"
    if notes.get("fitted"):
        yield str(notes["fitted"])
    if notes["random_weights"]:
        yield "random weights"
    if notes["own_weights"]:
        yield f"weights from {notes['weights'] or 'a file'}"
    if train.augment != "none":
        yield f"trained on augmented images: {train.augment}"


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
    save_tensors(trial.folder / HEAD, classifier.head.state_dict())
    if not has_changed:
        return
    if setting.config.model.cut_after is not None:
        setting.say_once(f"  {setting.label}: no {ENCODER}, for extract takes whole encoders")
        return
    how = f"{describe_mode(config)}, {describe_rate(config, one.encoder_lr)}, seed {one.seed}"
    trained = {TRAINED: f"fine-tuned on {setting.job.source.name} ({how})"}
    path = trial.folder / ENCODER
    save_tensors(path, export_encoder(classifier), trained)
    setting.say(f"  {setting.label}, seed {one.seed}: for extract --weights: {path}")
