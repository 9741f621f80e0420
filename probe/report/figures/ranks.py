"""Ranks of encoders under each probe, joined: whether the order depends on the probe."""

from collections.abc import Mapping
from dataclasses import dataclass

from cache.errors import RequestError
from probe.report.figures.frame import Asked, Frame
from probe.report.formats.cells import Cell
from probe.report.pages.sensitivity import KINDS, MISSING, TAU, page_of_sensitivity

SETS = "Bars: simultaneous sets of ranks, 95 % of each panel together; where they share no rank, ranks differ; without a bar the set is one rank."
LISTS = "report sensitivity"
NO_SETS = "No sets of ranks: too many or too few to test."


@dataclass(frozen=True)
class Rank:
    """One encoder's rank under one probe; equal ones share their mean rank."""

    panel: str
    probe: str
    place: int  # of the probe, from 0
    model: str
    metric: str
    value: float
    rank: float  # 1 is the best
    low: float  # of its set of ranks, both ends among them; nan: nothing was tested
    high: float


def make(asked: Asked) -> Frame[Rank]:
    """The ranks of ``report sensitivity``.

    Raises:
        RequestError: there are no two probes of two encoders each.
    """
    usual = [c for c in asked.contenders if c.first.row.answered.kind in KINDS]
    page = page_of_sensitivity(usual, (asked.metric,), asked.people)
    found = []
    at = page.notes.index(MISSING) if MISSING in page.notes else len(page.notes)
    notes = [note for note in page.notes[:at] if note != TAU]
    commands = page.notes[at + 1 :]
    for table in page.tables:
        probes = list(dict.fromkeys(c.over for c in table.columns if c.name == "rank"))
        panel = table.title.partition(": ranks")[0]
        if probes:
            notes += [line for line in table.below if "not tested" in line]
        for row in table.rows:
            cells = {(c.over, c.name): cell for c, cell in zip(table.columns, row, strict=True)}
            for place, probe in enumerate(probes):
                rank = cells[probe, "rank"]
                if rank.value is None:
                    notes += _crowded(panel, probe, row[0].text, cells)
                    continue
                value = next(
                    cell.value
                    for (over, name), cell in cells.items()
                    if over == probe and name != "rank" and cell.value is not None
                )
                low = float("nan") if rank.low is None else rank.low
                high = float("nan") if rank.high is None else rank.high
                found.append(
                    Rank(
                        panel, probe, place, row[0].text, asked.metric, value, rank.value, low, high
                    )
                )
    if not found:
        raise RequestError("nothing to draw: no probe ranks two encoders")
    has_sets = any(rank.low == rank.low for rank in found)
    caption = f"Ranks by {asked.metric}, 1 the best. {SETS if has_sets else NO_SETS}"
    said = tuple(dict.fromkeys(notes))
    return Frame("ranks", tuple(found), caption, said, y="rank", commands=commands, lists=LISTS)


def _crowded(
    panel: str, probe: str, model: str, cells: Mapping[tuple[str, str], Cell]
) -> list[str]:
    """Where an encoder has several answers to a probe it has no rank."""
    said = [cell.text for (over, _), cell in cells.items() if over == probe and cell.text]
    return [f"Left out: {panel}, {probe}: {said[0]} of {model}"] if said else []
