"""How far tuning moved each layer: CKA of a layer before with the same layer after."""

import math
from dataclasses import replace

from cache.errors import RequestError
from probe.places import ALL
from probe.report.figures.cka import check_of, compare, pool_of
from probe.report.figures.curves import Mark
from probe.report.figures.files import AskedOfFiles, caption_of, panel_of
from probe.report.figures.frame import Frame
from probe.report.figures.pairs import Both, pairs_of, tuned_only
from probe.report.findings.alike import LayersAlike

EVERY, TRIMMED = "all samples", "without the 1 % of the largest norms"


def make(asked: AskedOfFiles) -> Frame[Mark]:
    """A panel for each encoder and data set; the check is a line of its own.

    Raises:
        RequestError: no encoder has layers before and after.
    """
    if len(asked.files) == 2 and len({(of.model, of.dataset) for of in asked.files}) == 1:
        pairs, notes = pairs_of(asked)  # any two, such as random weights and published ones
    else:
        pairs, notes = tuned_only(asked)
    marks: list[Mark] = []
    ways: list[tuple[str, str]] = []
    for both in pairs:
        compared = _layers(asked, both)
        if not compared:
            raise RequestError(f"{both.one.path} and {both.other.path} have no layer in common")
        every = replace(
            compared[0],
            left=tuple(of.left[0] for of in compared),
            right=tuple(of.right[0] for of in compared),
        )
        ways.append((every.samples.dataset, every.describe()))
        notes += every.samples.notes
        pool = pool_of(every.left)
        marks += _marks(panel_of(every.samples, f"{both.title}{pool}"), compared, bool(pool))
    found = [(a.value, b.value) for a, b in zip(marks[::2], marks[1::2], strict=True)]
    caption = " ".join([caption_of(ways), *check_of(found, "Where both lines part", "Gap")])
    return Frame(
        *("curves", tuple(marks), f"Each layer before and after. {caption}", notes),
        *("layer, from 0", "CKA, before and after"),
    )


def _layers(asked: AskedOfFiles, both: Both) -> list[LayersAlike]:
    """Each layer and pool that both have."""
    after = {place: place for place in asked.places(both.other, ALL)}
    before = [place for place in asked.places(both.one, ALL) if place in after]
    return [compare(asked, [place], [after[place]]) for place in before]


def _marks(panel: str, compared: list[LayersAlike], is_one_pool: bool) -> list[Mark]:
    """Two for each layer: of all samples, and the check."""
    found = []
    for of in compared:
        (pair,) = of.pairs()
        for line, value, n in ((EVERY, pair.cka, pair.n), (TRIMMED, pair.trimmed, pair.n_trimmed)):
            found.append(
                Mark(
                    *(panel, line if is_one_pool else f"{pair.pool}, {line}", "layer"),
                    *(float(pair.layer), "cka", of.samples.split, value, math.nan, math.nan),
                    *("", n, False),
                )
            )
    return found
