"""A reporting checklist with what rows and files know of each item, and AUTHOR where only people can say.

Items point to the tables below them, by title. External test sets have tables of their own.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import groupby

from cache.errors import RequestError
from probe.report.findings.deciding import Asked, Shown, choose, from_labels, from_rows
from probe.report.findings.division import tested
from probe.report.findings.reported import Reported, Reports
from probe.report.formats.cells import Cell, Column, Page, Table
from probe.report.pages import reported
from probe.report.pages.deciding import make_page as page_of_decisions
from probe.report.pages.ledger import make_page as page_of_ledger
from probe.report.pages.notes import joined
from probe.report.pages.statements import EXTERNAL, QUESTIONS, STATEMENTS
from probe.report.published.checklists import Checklist, Item
from probe.report.rows.people import People

AUTHOR = "AUTHOR"
HEADS = ("item", "topic", "from rows and files", "from the authors")
UNKNOWN = "unknown to rows and files"
FILLED = (
    "Filled in from stored rows and feature files; each cell that begins with AUTHOR is for people to write, "
    "and every other one for them to check. Nothing here says that a study was done well."
)
NOT_A_DEVICE = "These are numbers of research; no model here is a medical device."


def page_of_checklist(checklist: Checklist, of: Reports) -> Page:
    """Fill a checklist.

    Raises:
        RequestError: a prevalence out of range.
    """
    tables = _tables(of)
    titles = [table.title for table in tables]
    said = {
        name: STATEMENTS[name].of(of)
        for name in dict.fromkeys(name for item in checklist.items for name in item.findings)
    }

    def row(item: Item) -> tuple[Cell, ...]:
        words = [line for name in item.findings for line in said[name]]
        more = _existing([t for name in item.findings for t in STATEMENTS[name].tables], titles)
        words = [*dict.fromkeys(words), *([f"See {', '.join(more)}"] if more else [])]
        author = item.author
        if item.findings and not words:
            words, author = [UNKNOWN], item.author or item.topic
        people = Cell(f"{AUTHOR}: {author}", is_marked=True) if author else Cell("")
        return Cell(item.number), Cell(item.topic), Cell(". ".join(words)), people

    items = [
        Table(tuple(map(Column, HEADS)), tuple(map(row, members)), title=section)
        for section, members in groupby(checklist.items, lambda item: item.section)
    ]
    lead = (
        f"{checklist.source}. {checklist.read_from}.",
        FILLED,
        NOT_A_DEVICE,
        *(
            f"{x.name}: no threshold, calibration or failures are told: {x.lacking}"
            for x in of.reported
            if x.lacking
        ),
    )
    marks = [f"{x.name}: {mark}" for x in of.reported for mark in x.contender.marks]
    notes = tuple(dict.fromkeys(joined(marks).values()))
    return Page(
        (*items, *tables),
        f"{checklist.title}: {', '.join(of.datasets)}",
        lead,
        notes,
        "for the authors",
    )


def _existing(wanted: Sequence[str], titles: Collection[str]) -> list[str]:
    """Those of some titles, or of what they begin with, that there are tables of, quoted."""
    found = [t for word in wanted for t in titles if t == word or t.startswith(f"{word} of ")]
    return [f'"{title}"' for title in dict.fromkeys(found)]


def _tables(of: Reports) -> list[Table]:
    """All tables: of the internal test sets, then of the external ones."""

    def results(sets: Sequence[Reported]) -> list[Table]:
        return [
            *reported.performance(sets),
            *reported.operations(sets, of.prevalence),
            *reported.calibration(sets),
            *reported.confusion(sets),
            *reported.wrong(sets),
        ]

    outside = [
        *reported.models(of.external),
        *reported.flow(of.external),
        *reported.characteristics(of.external),
        *reported.leaks(of.external),
        *results(of.external),
    ]
    return [
        *reported.models(of.internal),
        *reported.flow(of.internal),
        *reported.characteristics(of.internal),
        *reported.leaks(of.internal),
        *results(of.internal),
        *(replace(table, title=f"{EXTERNAL}{table.title.lower()}") for table in outside),
        *_decided(of),
        *_ledger(of),
        *reported.versions(of.reported),
    ]


def _decided(of: Reports) -> list[Table]:
    """What each test set can show, as `report decide` says it of these rows."""
    shown = [each for one in of.reported for each in _decisions(one, of.people)]
    if not shown:
        return []
    page = page_of_decisions(shown, Asked(), ())
    (table,) = page.tables
    return [replace(table, title="Smallest differences", below=(*page.lead, *table.below))]


def _decisions(of: Reported, people: People) -> list[Shown]:
    try:
        if found := from_rows(of.dataset, choose(of.dataset, of.rivals), people, Asked()):
            return found
        features = tested([of.contender], people)
        return from_labels(features, Asked()) if features else []
    except RequestError:  # scores or patients that are gone
        return []


def _ledger(of: Reports) -> list[Table]:
    tables = page_of_ledger(of.record.ledger, of.datasets).tables
    titles = ("Ledger", QUESTIONS)
    return [
        replace(table, title=titles[table.columns[0].name.startswith("question")])
        for table in tables
    ]
