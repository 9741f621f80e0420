"""One row: an answer, measured, with all that a reader of its numbers must know."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.labels.columns import REGRESSION
from probe.choosing.plan import HELD_OUT, as_val
from probe.comparable import tables_of
from probe.config import ProbeConfig
from probe.kinds.controls import KIND as CONTROL
from probe.kinds.controls import described
from probe.kinds.few_shot import UNLABELLED
from probe.metrics import classification as metrics
from probe.metrics.calibration import Votes
from probe.metrics.episodes import measure_episodes
from probe.metrics.intervals import clusters
from probe.metrics.measure import Measured, measure, never_learnt
from probe.metrics.patients import Scored, by_patient
from probe.paper_encoders import reading_of
from probe.places import rows_are_samples
from probe.questions.leaks import without_twins
from probe.questions.question import Asked
from probe.questions.samples import Split
from probe.results import Row
from probe.solvers.faiss_library import faiss_versions


def of_patients(config: ProbeConfig, asked: Asked) -> dict[str, Any]:
    """What the question holds of patients, where they may be measured or resampled.

    The checksum of their names: the same features with other patients have other intervals. Whether
    one has several samples is asked of all splits: folds of one rule are one question. What is
    chosen by folds, and episodes, name patients among their own settings.
    """
    groups = asked.features.groups
    resampled = groups is not None and int(clusters(groups).max(initial=-1)) + 1 < len(groups)
    if not (config.per_patient or (resampled and config.reads_test)):
        return {}
    checksum = {"groups": asked.features.header.tables.get("samples/groups")}
    return {"scores_of": "patients", **checksum} if config.per_patient else checksum


def make_row(
    config: ProbeConfig,
    asked: Asked,
    splits: dict[str, Split],
    probe: dict[str, Any],
    chosen: dict[str, Any],
    scores: dict[str, NDArray[np.float64]],
    marks: list[str],
    started: float,
    *,
    votes: Votes | None = None,
) -> Row:
    """Score the answer and put it into a row."""
    features, task = asked.features, asked.task
    score_type = probe.get("score_type", metrics.PROBABILITY)
    n_samples = {name: len(split) for name, split in splits.items()}
    is_learnt = not config.few_shot and config.kind != "zeroshot"
    if is_learnt:
        of_test = ["train", "val"] if probe.get("refit") else ["train"]
        known = np.concatenate([splits[name].y for name in of_test])
        marks = [*marks, *never_learnt(known, task, asked.class_names)]
    learnt_of = "val" if HELD_OUT in scores else "train"  # folds of both are what val is then
    by_unlabelled = probe.get("standardised") == UNLABELLED
    splits, scores = as_val(splits, scores)
    learnt = {"train": splits[learnt_of].y} if is_learnt else {}
    scored = {
        name: Scored(scores[name], splits[name].y, splits[name].ids, splits[name].groups)
        for name in scores
    }
    if config.per_patient:
        scored = {name: by_patient(answers) for name, answers in scored.items()}
        n = {name: f"{len(s.ids):_} of {name}" for name, s in scored.items() if len(s.ids)}
        marks = [*marks, f"patients are measured, {' and '.join(n.values())}"]
    episodes: dict[str, list[float]] = {}
    if config.few_shot:
        found = measure_episodes(
            scored["test"].scores,
            scored["test"].labels,
            task,
            config.n_resamples,
            config.seed,
            score_type=score_type,
            groups=scored["test"].groups,
            class_names=asked.class_names,
        )
        episodes = found.episodes
        measured = Measured({}, found.mean, found.marks, found.methods, {}, None)
    else:
        measured = measure(
            {name: answers.scores for name, answers in scored.items()},
            {**learnt, **{name: answers.labels for name, answers in scored.items()}},
            task,
            asked.class_names,
            score_type=score_type,
            groups={name: answers.groups for name, answers in scored.items()},
            votes=votes,
        )
    marks = [*asked.marks, *marks, *measured.marks]
    notes = {"seen": "no"} if probe["kind"] == CONTROL else features.notes
    # Files from before these notes: nobody knows, and the images were prepared the usual way.
    seen, protocol = str(notes.get("seen") or "unknown"), str(notes.get("protocol") or "")
    if seen.startswith("yes"):
        how = seen.removeprefix("yes").lstrip(":, ")
        marks = [*marks, "the encoder saw these images in pretraining" + (how and f": {how}")]
    if protocol:
        marks = [*marks, f"preprocessed as {protocol}"]
    if notes.get("fitted"):
        marks = [*marks, str(notes["fitted"])]
    if config.protocol:
        marks = [*marks, *config.protocol.marks]
    papers = [config.protocol.name if config.protocol else "", protocol.partition(",")[0]]
    for paper in dict.fromkeys(papers):
        marks = [*marks, *reading_of(paper).notes_on(features.encoder)]
    if notes.get("random_weights"):
        marks = [*marks, "random weights"]
    if notes.get("own_weights"):
        marks = [*marks, f"weights from {notes.get('weights') or 'a file'}"]
    if notes.get("raw_layers"):
        marks = [*marks, "layers without a norm rule"]
    return Row(
        features=described(asked, probe["control"], samples_of(asked))
        if probe["kind"] == CONTROL
        else {
            "model": features.model,
            "label": features.label,
            "encoder": features.encoder,
            "size": features.size,
            "dataset": features.dataset,
            "task": task,
            "digest": features.digest,
            "key": features.key,
            # Checksums, or digests of what lies over them: other labels or splits are another
            # question of the same features.
            "samples": samples_of(asked),
            "tables": tables_of(features),
        },
        probe=probe,
        seed=config.seed,
        metrics=measured.test,
        val_metrics=measured.val,
        n={
            **n_samples,
            **({"train": probe["few_shot"]["images"]} if config.few_shot else {}),
            **({"unlabelled": n_samples["train"]} if by_unlabelled else {}),
        },
        seconds=round(time.perf_counter() - started, 4),
        versions=_versions(config),
        marks=tuple(marks),
        seen=seen,
        target=asked.target,
        split=asked.division,
        trained_on=_trained_on(asked.trained_on),
        leaks=asked.n_leaks,
        without_twins=_without_twins(config, asked, splits["test"], scores["test"], score_type),
        episodes=episodes,
        intervals=measured.methods,
        per_class=measured.per_class,
        temperature=measured.temperature,
        score_type="prediction" if task == REGRESSION else score_type,
        protocol=protocol,
        probe_protocol=dataclasses.asdict(config.protocol) if config.protocol else {},
        chosen=chosen,
        scores={
            # As they were measured: in float32 a saturated probability ties with its neighbours,
            # and an evaluator that reads the file would find another AUC.
            **{f"{name}_scores": s for name, (s, *_) in scored.items()},
            **{f"{name}_labels": answers.labels for name, answers in scored.items()},
            **{f"{name}_ids": answers.ids for name, answers in scored.items()},
            "class_names": np.array(asked.class_names),
        },
    )


def _without_twins(
    config: ProbeConfig,
    asked: Asked,
    test: Split,
    scores: NDArray[np.float64],
    score_type: str,
) -> dict[str, Any]:
    """See ``probe.questions.leaks``; of episodes the mean of each metric."""
    wanted = {"score_type": score_type, "per_patient": config.per_patient}
    if not config.few_shot:
        return without_twins(asked, test, scores, **wanted)
    each = [without_twins(asked, test, answers, **wanted) for answers in scores]
    means = {name: float(np.mean([values[name] for values in each])) for name in each[0]}
    return means | {name: each[0][name] for name in means if name == "n"}


def samples_of(asked: Asked) -> dict[str, int | str]:
    """What makes labels and split another question, and which rows make a sample."""
    tables = asked.features.header.tables
    rows = {} if rows_are_samples(asked.features) else {"rows": tables["rows/sample"]}
    return {**asked.samples, **rows}


def _trained_on(train: Asked | None) -> dict[str, Any]:
    if train is None:
        return {}
    samples = {"samples": samples_of(train), "tables": tables_of(train.features)}
    samples |= {"target": train.target, "split": train.division}
    return {"dataset": train.dataset, "digest": train.features.digest, **samples}


def _versions(config: ProbeConfig) -> dict[str, str]:
    found = {}
    others = ["scikit-learn"] if config.kind.startswith("sklearn.") else []
    for name in ("medprobe", "numpy", *others):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found | (faiss_versions() if config.kind == "knn" else {})
