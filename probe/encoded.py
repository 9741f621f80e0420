"""Which encoder, and which samples, a row is of: what feature files and extract say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cache.features import Features
from probe.places import rows_are_samples
from probe.protocols import Followed, reading_of
from probe.questions.question import Question
from probe.results import Encoded

PATIENTS, IDS, ROWS = "patients", "ids", "images of a sample"  # of Encoded.tables


def encoded_of(question: Question, protocol: Followed | None = None) -> Encoded:
    """The encoder of a feature file, as its notes have it.

    Args:
        question: the question of its samples.
        protocol: the paper whose probe is followed.
    """
    features, notes = question.features, question.features.notes
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
    tables = question.features.header.tables
    rows = {} if rows_are_samples(question.features) else {"rows": tables["rows/sample"]}
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
