"""How a study was made: commands, encoders and their licences, versions, what rows are marked with."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cache.commands.names import counted, short_label
from cache.errors import CacheError
from probe.report.formats.cells import COUNT, Cell, Column, Page, Table
from probe.report.pages.notes import joined
from probe.report.rows.contenders import OF_DATA
from probe.report.rows.fields import written
from probe.report.rows.people import People
from probe.report.rows.stored import StoredRow
from probe.report.study.parts import Block, Commands

if TYPE_CHECKING:
    from cache.features import Features

N_DIGITS = 12  # of a digest
MOST_LINES = 60
TYPED = "as the feature files hold them"
REBUILT = (
    "Rows hold settings, not the line that was typed: these lines are made of them, with the flags that "
    "say which question it is; all other settings stand in the table below"
)
# What the rebuilt lines say, and what says nothing of how it was asked.
IN_LINES = ("kind", "k", "few_shot", "place_chosen", "mode", *OF_DATA)
MARKED = (  # marks that a page says aloud
    *("random weights", "twin", "copies", "copy", "patients", "damaged", "missing", "fingerprint"),
)


def made(rows: Sequence[StoredRow], people: People, typed: str) -> tuple[Block, ...]:
    """The blocks of the section.

    Args:
        rows: that the page is of.
        people: that knows feature files.
        typed: the line that makes the page.
    """
    digests = {source.digest for of in rows for source in of.row.sources}
    files = [file for file in people.files if file.digest in digests]
    found: list[Block] = []
    extracts = dict.fromkeys(str(f.header.attributes.get("command", "")) for f in files)
    lines = [line for line in extracts if line]
    lost = len(digests) - len({file.digest for file in files})
    gone = f"; {counted(lost, 'feature file')} of these rows weren't found" if lost else ""
    found.append(Commands(tuple(lines), "Features", f"Commands, {TYPED}{gone}."))
    asked = list(_probes(rows))
    more = len(asked) - MOST_LINES
    said = f"{REBUILT}; {more} more lines: `report export`." if more > 0 else f"{REBUILT}."
    found.append(Commands(tuple(asked[:MOST_LINES]), "Rows", said))
    found.append(Commands((typed,), "This page"))
    found.append(Page((_encoders(rows, files),), "Encoders"))
    if settings := _settings(rows):
        found.append(Page((settings,), "Further settings"))
    found.append(Page((_versions(rows),), "Versions"))
    return tuple(found)


def marks(rows: Sequence[StoredRow]) -> Page | None:
    """What rows are marked with, and how many of them: those that shake a number first."""
    counts: dict[str, int] = defaultdict(int)
    said = joined(mark for of in rows for mark in of.row.marks)
    for of in rows:
        for mark in {said[mark] for mark in of.row.marks}:
            counts[mark] += 1
    if not counts:
        return None
    order = sorted(counts, key=lambda mark: (not any(w in mark for w in MARKED), -counts[mark]))
    lines = tuple((Cell(mark), Cell(value=counts[mark], form=COUNT)) for mark in order)
    table = Table((Column("mark"), Column("rows", is_right=True)), lines)
    return Page((table,), "What rows are marked with")


def _probes(rows: Sequence[StoredRow]) -> Iterator[str]:
    """A line for the rows that one command could have made."""
    alike: dict[tuple[str, ...], list[StoredRow]] = defaultdict(list)
    for of in rows:
        alike[tuple(_flags(of))].append(of)
    for flags, members in alike.items():
        models = ",".join(dict.fromkeys(of.row.encoded.model for of in members))
        data = ",".join(dict.fromkeys(of.row.encoded.dataset for of in members))
        words = [*flags, "--model", models, "--data", data]
        yield f"{shlex.join(words)}  # {counted(len(members), 'row')}"


def _flags(of: StoredRow) -> Iterator[str]:
    settings, row = of.row.answered.settings, of.row
    if row.answered.kind == "finetune":
        yield from ("finetune", "--mode", str(settings.get("mode", "")))
    else:
        yield from ("probe", "--kind", row.answered.kind)
    if "k" in settings:
        yield from ("--k", written(settings["k"]))
    elif "k" in row.answered.chosen:
        yield from ("--k", "auto")
    if "place_chosen" in settings:
        yield from ("--layer", "auto")
    elif "layer" in settings and row.answered.kind != "finetune":
        yield from ("--layer", written(settings["layer"]), "--pool", str(settings.get("pool", "")))
    few = settings.get("few_shot", {})
    if few:
        yield from (
            "--shots",
            written(few.get("shots")),
            "--episodes",
            written(few.get("episodes")),
        )
    name = row.answered.protocol.get("name")
    if name:
        yield from ("--protocol", str(name))
    split = row.posed.split
    if split.get("file"):
        yield from ("--split-file", str(split["file"]))
    elif split.get("rule"):
        yield from ("--split", str(split["rule"]))
    if row.posed.trained_on:
        yield from ("--train-data", row.posed.trained_on.dataset)


def _model(of: StoredRow) -> str:
    return short_label(of.row.encoded.label)


def _encoders(rows: Sequence[StoredRow], files: Sequence[Features]) -> Table:
    """Each encoder once for each of its weights and sizes."""
    by_digest = {file.digest: file for file in files}
    lines: dict[tuple[str, ...], None] = {}
    for of in rows:
        e = of.row.encoded
        notes = _notes(by_digest.get(e.digest))
        weights = str(e.key.get("weights") or "").removeprefix("sha256:")[:N_DIGITS]
        licence = str(notes.get("weights_licence") or "not stated") if notes else "unknown"
        is_random = bool(notes.get("random_weights"))
        words = (_model(of), e.encoder, f"{e.size}" if e.size else "", weights)
        lines[(*words, "random weights" if is_random else licence, e.seen)] = None
    names = (
        "encoder",
        "full name",
        "size",
        "weights, sha256",
        "licence of weights",
        "seen these images",
    )
    columns = tuple(Column(name) for name in names)
    return Table(columns, tuple(tuple(map(Cell, line)) for line in sorted(lines)))


def _notes(file: Features | None) -> Mapping[str, Any]:
    try:
        return {} if file is None else file.notes
    except (CacheError, OSError, ValueError):
        return {}


def _settings(rows: Sequence[StoredRow]) -> Table | None:
    """Settings that the rebuilt lines don't say, of each kind."""
    values: dict[tuple[str, str], dict[str, None]] = {}
    for of in rows:
        for name, value in of.row.answered.settings.items():
            if name not in IN_LINES and value is not None:
                values.setdefault((of.row.answered.kind, name), {})[_short(value)] = None
    if not values:
        return None
    lines = tuple(
        (Cell(kind), Cell(name), Cell(" | ".join(list(words)[:4]) + " | ..." * (len(words) > 4)))
        for (kind, name), words in sorted(values.items())
    )
    return Table((Column("kind"), Column("setting"), Column("value")), lines)


def _short(value: Any) -> str:
    if isinstance(value, list | tuple) and len(value) > 4:
        return f"{len(value)}: {written(value[0])} ... {written(value[-1])}"
    text = written(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _versions(rows: Sequence[StoredRow]) -> Table:
    found: dict[str, dict[str, None]] = {}
    for of in rows:
        for name, version in of.row.versions.items():
            found.setdefault(name, {})[str(version)] = None
    lines = tuple((Cell(name), Cell(", ".join(each))) for name, each in found.items())
    return Table((Column("package"), Column("versions that rows were made with")), lines)
