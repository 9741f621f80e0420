"""How a study was made: commands, encoders and their licences, versions, what rows are marked with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cache.commands.names import counted, short_label
from cache.errors import CacheError
from probe.report.formats.cells import COUNT, Cell, Column, Page, Table
from probe.report.pages.notes import joined
from probe.report.rows.contenders import OF_DATA
from probe.report.rows.fields import written
from probe.report.rows.people import People
from probe.report.rows.stored import StoredRow
from probe.report.rows.typed import CONTROL, FINETUNE, lines_of
from probe.report.study.parts import Block, Commands

if TYPE_CHECKING:
    from cache.features import Features

N_DIGITS = 12  # of a digest
MOST_LINES = 60
TYPED = "as the feature files hold them"
REBUILT = (
    "Rows hold settings, not the line that was typed: these lines are made of them, and say every flag "
    "that isn't the default. They don't say how tables of labels are read (`--positive`, `--missing`), "
    "and of finetune not how images are prepared"
)
CONTROLS = "of `--controls`, beside those of these lines"
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
    digests = {source.digest for of in rows if _has_file(of) for source in of.row.sources}
    files = [file for file in people.files if file.digest in digests]
    found: list[Block] = []
    extracts = dict.fromkeys(str(f.header.attributes.get("command", "")) for f in files)
    lines = [line for line in extracts if line]
    lost = len(digests) - len({file.digest for file in files})
    wasnt = "wasn't" if lost == 1 else "weren't"
    gone = f"; {counted(lost, 'feature file')} of these rows {wasnt} found" if lost else ""
    found.append(Commands(tuple(lines), "Features", f"Commands, {TYPED}{gone}."))
    asked = [f"{line}  # {counted(line.n, 'row')}" for line in lines_of(rows)]
    more, n_controls = len(asked) - MOST_LINES, sum(of.row.answered.kind == CONTROL for of in rows)
    told = [REBUILT, *([f"{counted(n_controls, 'row')} {CONTROLS}"] if n_controls else [])]
    told += [f"{counted(more, 'more line')}: `report export`"] if more > 0 else []
    said = "".join(f"{words}. " for words in told).rstrip()
    found.append(Commands(tuple(asked[:MOST_LINES]), "Rows", said))
    found.append(Commands((typed,), "This page"))
    found.append(Page((_encoders(rows, people.files),), "Encoders"))
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


def _has_file(of: StoredRow) -> bool:
    """Whether it asks a feature file; controls and trainings read images."""
    return of.row.answered.kind not in (CONTROL, FINETUNE)


def _encoders(rows: Sequence[StoredRow], files: Sequence[Features]) -> Table:
    """Each encoder once for each of its weights and sizes."""
    licences = {_weights(file.key): _licence(file) for file in files}
    # Rows of encoders side by side say it of all together.
    seen_by = {file.digest: str(_notes(file).get("seen") or "unknown") for file in files}
    lines: dict[tuple[str, ...], None] = {}
    for of in rows:
        for e in of.row.encoded.parts:
            weights = _weights(e.key)
            words = (short_label(e.label), e.encoder, f"{e.size}" if e.size else "", weights)
            seen = of.row.encoded.seen if e is of.row.encoded else seen_by.get(e.digest, "unknown")
            lines[(*words, licences.get(weights, "unknown"), seen)] = None
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


def _weights(key: Mapping[str, Any]) -> str:
    return str(key.get("weights") or "").removeprefix("sha256:")[:N_DIGITS]


def _notes(file: Features) -> Mapping[str, Any]:
    try:
        return file.notes
    except (CacheError, OSError, ValueError):
        return {}


def _licence(file: Features) -> str:
    if not (notes := _notes(file)):
        return "unknown"
    if notes.get("random_weights"):
        return "random weights"
    return str(notes.get("weights_licence") or "not stated")


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
