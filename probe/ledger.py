"""The ledger of a folder of results: how often test sets were read, and what was asked beforehand.

``results/ledger.jsonl`` has a line for each row that was written and read test, and one for each
question that was named before its answer was looked at, in the order in which that happened. Lines
are added and never changed, so the ledger still knows of rows that were replaced or deleted.

A line is added in one write, and begins with its newline: what a full disk or a crash cuts short
costs that line, and not the next one, too.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cache.files import append, open_regular

NAME = "ledger.jsonl"
TIME = "%Y-%m-%dT%H:%M:%SZ"  # UTC


@dataclass(frozen=True)
class Reading:
    """A row was written that read a test set."""

    time: str  # UTC, as TIME has it
    test_set: str  # SHA-256, see ``probe.results.Row.test_set``
    question: str  # SHA-256, see ``probe.results.Row.question``
    row: str  # its id
    dataset: str
    model: str  # the encoder, as it is called beside others
    kind: str
    target: str = ""  # labels laid over the stored ones, in words
    split: str = ""  # a split laid over the stored one


@dataclass(frozen=True)
class Named:
    """A question was named."""

    time: str  # UTC, as TIME has it
    named: str  # its words


def ledger_path(root: Path) -> Path:
    """The ledger of a folder of results, whether it is there or not."""
    return root / NAME


def add_line(root: Path, line: Reading | Named) -> None:
    """Add a line to the ledger.

    Raises:
        OSError: it can't be written.
    """
    append(ledger_path(root), "\n" + json.dumps(dataclasses.asdict(line)))


def read_lines(root: Path) -> list[Reading | Named]:
    """What the ledger says, in its order; lines that are none, such as torn ones, are left out.

    Raises:
        OSError: it is there and can't be read.
    """
    try:
        with open_regular(ledger_path(root)) as file:
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    return [line for words in text.splitlines() for line in _parse(words)]


def utc(seconds: float | None = None) -> str:
    """A time as the ledger has it; None: now."""
    when = datetime.now(timezone.utc)
    if seconds is not None:
        when = datetime.fromtimestamp(seconds, timezone.utc)
    return when.strftime(TIME)


def _parse(words: str) -> Iterator[Reading | Named]:
    try:
        found = json.loads(words)
    except (ValueError, RecursionError):
        return
    for of in (Reading, Named):
        if isinstance(found, dict) and (line := _make(of, found)):
            yield line
            return


def _make(of: type[Any], found: Mapping[str, Any]) -> Any:
    """A line of this sort; None where it isn't. What a later medprobe adds is left out."""
    kept = {f.name: found[f.name] for f in dataclasses.fields(of) if f.name in found}
    if not all(isinstance(value, str) for value in kept.values()):
        return None
    try:
        return of(**kept)
    except TypeError:  # a part is missing
        return None
