"""One row: an answer, measured, with all that a reader of its numbers must know.

Which encoder and which samples it is of is what feature files and extract say of them.
"""

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cache.commands.names import short_label, version_of
from cache.errors import RequestError
from cache.features import Features
from cache.format.key import key_digest
from probe.answer import Answer
from probe.choosing.plan import HELD_OUT, as_val
from probe.cost import UNKNOWN, Cost
from probe.metrics import overlap
from probe.metrics.intervals import clusters
from probe.metrics.marks import never_learnt
from probe.metrics.measure import measure
from probe.metrics.metric import Measuring
from probe.metrics.patients import Scored, by_patient
from probe.protocols import Followed, reading_of
from probe.questions.leaks import without_twins
from probe.questions.question import Question, Split
from probe.results import (
    IDS,
    PATIENTS,
    ROWS,
    Answered,
    Encoded,
    Part,
    Posed,
    Row,
    TrainedOn,
    rows_of,
)
from probe.solvers.standardise import UNLABELLED


def encoded_of(question: Question, protocol: Followed | None = None) -> Encoded:
    """The encoder of a feature file, as its notes have it; of several side by side all together.

    Args:
        question: the question of its samples.
        protocol: the paper whose probe is followed.
    """
    each = [_encoded_of(features, question, protocol) for features in question.files]
    return each[0] if len(each) == 1 else _side_by_side(question.files, each)


def _side_by_side(files: Sequence[Features], each: Sequence[Encoded]) -> Encoded:
    sizes = {e.size for e in each}
    names = [e.label if len(sizes) == 1 else f"{e.label}@{e.size}" for e in each]
    short = [
        short_label(e.label) if len(sizes) == 1 else f"{short_label(e.label)}@{e.size}"
        for e in each
    ]
    seen = [e.seen for e in each]
    saw = [s for s in seen if s.startswith("yes")]
    alike = seen[0] if len(set(seen)) == 1 else "unknown"
    papers = dict.fromkeys(e.protocol for e in each)
    digests = [e.digest for e in each]
    return replace(
        each[0],
        model="+".join(e.model for e in each),
        encoder="+".join(e.encoder for e in each),
        size=max(sizes),
        digest=joined_digest(files),
        key={"joined": digests},
        own_label="+".join(names),
        seen=saw[0] if saw else alike,
        protocol=" + ".join(paper or "its own" for paper in papers) if any(papers) else "",
        marks=tuple(
            dict.fromkeys(
                f"{name}: {mark}" for name, e in zip(short, each, strict=True) for mark in e.marks
            )
        ),
        joined=tuple(Part(e.model, e.label, e.encoder, e.size, e.digest, e.key) for e in each),
    )


def joined_digest(files: Sequence[Features]) -> str:
    """What makes the features of one file, or of several side by side, others."""
    digests = [features.digest for features in files]
    return digests[0] if len(digests) == 1 else key_digest({"joined": digests})


def _encoded_of(features: Features, question: Question, protocol: Followed | None) -> Encoded:
    notes = features.notes
    # Files from before these notes: nobody knows, and the images were prepared the usual way.
    prepared = str(notes.get("protocol") or "")
    papers = [protocol.name if protocol else "", prepared.partition(",")[0]]
    followed = [
        *(protocol.marks if protocol else ()),
        *(n for p in dict.fromkeys(papers) for n in reading_of(p).notes_on(features.encoder)),
    ]
    marks = encoder_marks(notes, followed)
    return Encoded(
        features.model,
        features.encoder,
        features.size,
        features.dataset,
        question.task.word,
        features.digest,
        features.key,
        samples_of(question),
        tables_of(features),
        features.label,
        str(notes.get("seen") or "unknown"),
        prepared,
        (*marks, "layers without a norm rule") if notes.get("raw_layers") else marks,
    )


def encoder_marks(notes: Mapping[str, Any], followed: Sequence[str] = ()) -> tuple[str, ...]:
    """What a reader of numbers must know of an encoder's last layer.

    Args:
        notes: as feature files have them.
        followed: marks of the papers that are followed.
    """
    seen, protocol = str(notes.get("seen") or ""), notes.get("protocol")
    marks = []
    if seen.startswith("yes"):
        how = seen.removeprefix("yes").lstrip(":, ")
        marks.append("the encoder saw these images in pretraining" + (how and f": {how}"))
    marks += [f"preprocessed as {protocol}"] if protocol else []
    marks += [str(notes["fitted"])] if notes.get("fitted") else []
    marks += [*followed, *(["random weights"] if notes.get("random_weights") else [])]
    if notes.get("own_weights"):
        marks.append(f"weights from {notes.get('weights') or 'a file'}")
    return tuple(marks)


def samples_of(question: Question) -> dict[str, int | str]:
    """What makes labels and split another question, and which rows make a sample.

    Checksums, or digests of what lies over them: other labels or splits are another question of the
    same features.
    """
    rows = {
        rows_of(number): features.header.tables["rows/sample"]
        for number, features in enumerate(question.files)
        if not features.rows_are_samples
    }
    return {**question.samples, **rows}


def tables_of(features: Features) -> dict[str, int | None]:
    """Checksums of the tables that a row doesn't name otherwise, for the row.

    Returns:
        PATIENTS (None where nobody knows them) and IDS; ROWS too, but of volumes, whose rows depend
        on how they were cut.
    """
    tables = features.header.tables
    found = {PATIENTS: tables.get("samples/groups"), IDS: tables["samples/ids"]}
    return found if "slices" in features.key else {**found, ROWS: tables["rows/ids"]}


def of_patients(measuring: Measuring, question: Question, reads_test: bool) -> dict[str, Any]:
    """What the question holds of patients, where they may be measured or resampled.

    The checksum of their names: the same features with other patients have other intervals. Whether
    one has several samples is asked of all splits: folds of one rule are one question. What is
    chosen by folds, and episodes, name patients among their own settings.
    """
    groups = question.features.groups
    resampled = groups is not None and int(clusters(groups).max(initial=-1)) + 1 < len(groups)
    if not (measuring.per_patient or (resampled and reads_test)):
        return {}
    checksum = {"groups": question.features.header.tables.get("samples/groups")}
    return {"scores_of": "patients", **checksum} if measuring.per_patient else checksum


def make_row(
    question: Question,
    answer: Answer,
    encoded: Encoded,
    measuring: Measuring,
    splits: Mapping[str, Split],
    started: float,
    *,
    protocol: Followed | None = None,
    versions: Mapping[str, str] | None = None,
    cost: Cost = UNKNOWN,
) -> Row:
    """Measure an answer, and say of its numbers what a reader must know.

    Args:
        question: the question.
        answer: to it; its settings are all that change the numbers.
        encoded: whose features were asked.
        measuring: how.
        splits: what was learnt from and answered; of few-shot answers test alone is measured.
        started: when the answer's making began.
        protocol: the paper that is followed, a ``Followed``.
        versions: of libraries that make numbers, beside this one's and numpy's.
        cost: what it takes; of a control without an encoder nothing.
    """
    task, settings = question.task, answer.settings
    marks = answer.marks
    score_type = answer.score_type
    few_shot = settings.get("few_shot")
    n = {name: len(split) for name, split in splits.items()}
    if few_shot:
        n["train"] = few_shot["images"]
    if settings.get("standardised") == UNLABELLED:
        n["unlabelled"] = len(splits["train"])
    is_learnt = "train" in settings["read"] and not few_shot
    if is_learnt:
        of_test = ["train", "val"] if settings.get("refit") else ["train"]
        known = np.concatenate([splits[name].y for name in of_test])
        marks = [*marks, *never_learnt(known, task)]
    splits, scores = as_val(splits, answer.scores)
    # Folds of both are what val is then.
    learnt_of = "val" if HELD_OUT in answer.scores else "train"
    scored = {
        name: Scored(scores[name], splits[name].y, splits[name].ids, splits[name].groups)
        for name in scores
    }
    if measuring.per_patient:
        scored = {name: by_patient(s, task.is_dense) for name, s in scored.items()}
        who = [f"{len(s.ids):_} of {name}" for name, s in scored.items() if len(s.ids)]
        marks = [*marks, f"patients are measured, {' and '.join(who)}"]
    kept = dict(scored)
    if answer.left_out is not None:
        train = splits["train"]
        left_out = Scored(answer.left_out, train.y, train.ids, train.groups)
        # Nothing is measured of train: where its patients are unknown, or have several labels,
        # the row stands without these scores.
        with contextlib.suppress(RequestError):
            left_out = by_patient(left_out, task.is_dense) if measuring.per_patient else left_out
            kept["train"] = left_out._replace(scores=left_out.scores.astype(np.float32))
    measured = measure(
        scored,
        task,
        score_type=score_type,
        learnt=splits[learnt_of].y if is_learnt else None,
        votes=answer.votes,
        measuring=measuring,
        protocol=protocol.name if protocol else "",
        patch_pixels=None if measuring.per_patient else answer.extras.get(overlap.PATCH_PIXELS),
        images=[answer.extras[n] for n in (overlap.IMAGES, overlap.IMAGES_PIXELS)]
        if overlap.IMAGES in answer.extras
        else None,
    )
    alone = without_twins(
        question,
        splits["test"],
        scores["test"],
        score_type=score_type,
        per_patient=measuring.per_patient,
        protocol=protocol.name if protocol else "",
    )
    return Row(
        encoded,
        Posed(
            question.target, question.division, _trained_on(question.trained_on), question.n_leaks
        ),
        Answered(
            settings,
            answer.chosen,
            dataclasses.asdict(protocol) if protocol else {},
            overlap.SCORE_TYPE
            if task.is_dense
            else "prediction"
            if task.is_continuous
            else score_type,
        ),
        dataclasses.replace(measured, without_twins=alone),
        measuring.seed,
        n,
        round(time.perf_counter() - started, 4),
        {name: version_of(name) for name in ("medprobe", "numpy")} | dict(versions or {}),
        (*question.marks, *marks, *measured.marks, *encoded.marks),
        {
            # As they were measured: in float32 a saturated probability ties with its neighbours,
            # and an evaluator that reads the file would find another AUC.
            **{f"{name}_scores": s for name, (s, *_) in kept.items()},
            **{f"{name}_labels": answers.labels for name, answers in kept.items()},
            **{f"{name}_ids": answers.ids for name, answers in kept.items()},
            "class_names": np.array(question.task.class_names),
            **(answer.head.arrays if answer.head else {}),
            **answer.extras,
        },
        cost,
    )


def _trained_on(train: Question | None) -> TrainedOn | None:
    if train is None:
        return None
    features = train.features
    facts = samples_of(train), tables_of(features), train.target, train.division
    return TrainedOn(train.dataset, joined_digest(train.files), *facts)
