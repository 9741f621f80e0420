"""Reporting checklists: their items by number, in short words of our own.

A checklist is one CSV beside this file: item, section, topic, author (what only people can say; empty:
nothing), findings (what rows and files can say of it, by the names of ``pages.statements.STATEMENTS``).
The papers have the wording that counts.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from cache.errors import RequestError


@dataclass(frozen=True)
class Item:
    """One line of a checklist."""

    number: str  # as printed: "12", "15a"
    section: str
    topic: str
    author: str  # what only people can say
    findings: tuple[str, ...]


@dataclass(frozen=True)
class Checklist:
    """A checklist, and where it is from."""

    name: str  # of its CSV, and what a user types
    title: str
    source: str
    read_from: str  # what numbers and topics were taken from

    @property
    def items(self) -> tuple[Item, ...]:
        return _read(self.name)


TRANSCRIBED = (
    "Numbers and topics are as {} them, in short words of our own; hold them against the journal's before "
    "you hand this in"
)
CHECKLISTS = (
    Checklist(
        "claim2024",
        "CLAIM, 2024 update",
        "Tejani et al. 2024, Radiology: Artificial Intelligence 6:e240300, "
        "doi.org/10.1148/ryai.240300 (44 items)",
        TRANSCRIBED.format("two open transcriptions of its table have"),
    ),
    Checklist(
        "tripod-ai",
        "TRIPOD+AI",
        "Collins et al. 2024, BMJ 385:e078378, doi.org/10.1136/bmj-2023-078378 (27 items, 52 with "
        "their parts)",
        TRANSCRIBED.format("an open transcription, compared with the statement's supplement, has"),
    ),
    Checklist(
        "stard-ai",
        "STARD-AI",
        "Sounderajah et al. 2025, Nature Medicine 31:3283, doi.org/10.1038/s41591-025-03953-8 "
        "(40 items, 48 with their parts)",
        TRANSCRIBED.format("an open transcription, compared with the paper's table 2, has"),
    ),
)


def find_checklist(name: str) -> Checklist:
    """A checklist by its name.

    Raises:
        RequestError: there is none.
    """
    for checklist in CHECKLISTS:
        if checklist.name == name:
            return checklist
    known = ", ".join(checklist.name for checklist in CHECKLISTS)
    raise RequestError(f"no checklist {name!r}; there are {known}")


@cache
def _read(name: str) -> tuple[Item, ...]:
    text = files(__name__).joinpath(f"{name}.csv").read_text("utf-8")
    return tuple(
        Item(
            row["item"], row["section"], row["topic"], row["author"], tuple(row["findings"].split())
        )
        for row in csv.DictReader(text.splitlines())
    )
