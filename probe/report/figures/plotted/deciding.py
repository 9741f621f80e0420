"""What this benchmark can decide."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from probe.report.figures.apart import moved_apart
from probe.report.figures.deciding import (
    ASSUMED,
    LOWEST,
    NOT_SEPARATED,
    OURS,
    PUBLISHED,
    SEPARATED,
    SMALLEST,
    UNTESTED,
    Mark,
)
from probe.report.figures.frame import Frame
from probe.report.figures.plotted.picture import (
    BLUE,
    INK,
    RED,
    SHADE,
    SOFT,
    Look,
    Panel,
    Picture,
    hover,
    named,
    points,
    words,
)
from probe.report.formats.cells import spaced
from probe.report.statistics.claims import HOLDS, UNTOLD

COLOURS = {SEPARATED: BLUE, HOLDS: BLUE, NOT_SEPARATED: RED, UNTOLD: RED, UNTESTED: SOFT}
MARKERS = {SEPARATED: "circle", HOLDS: "circle", NOT_SEPARATED: "diamond", UNTOLD: "diamond"}
OTHER = "square"  # of what wasn't tested
HEIGHT, LETTER = 330, 7  # px of the panel without names, and of a letter
NAME, BESIDE, NARROW = 17, 80, 320  # px between names, beside the panel, and of it at least
STEPS = (1, 2, 5)


def plot(frame: Frame[Mark]) -> Picture:
    """One panel: a column for each test set, by its units."""
    marks = frame.points
    floors = sorted((m for m in marks if m.what in (SMALLEST, ASSUMED)), key=lambda m: m.n_units)
    x = np.log10([mark.n_units for mark in floors])
    pad = max(0.12, 0.06 * float(np.ptp(x)), 0.4 - float(np.ptp(x)) / 2)  # decades
    left, right = float(x.min()) - pad, float(x.max()) + pad
    width = max(NARROW, BESIDE + NAME * len(floors))
    room = NAME / (width - BESIDE)
    places = left + moved_apart((x - left) / (right - left), room) * (right - left)
    at = {mark.data: float(place) for mark, place in zip(floors, places, strict=True)}
    half = 0.4 * room * (right - left)
    highest = max((mark.value for mark in marks if mark.value == mark.value), default=0.1)
    low, high = float(np.log10(0.85 * LOWEST)), float(np.log10(max(1.6 * highest, 0.1)))
    shapes, names = [], []
    for mark in floors:
        x0, x1 = at[mark.data] - half, at[mark.data] + half
        top = mark.value if mark.value == mark.value else 10**high
        shade = {"type": "rect", "y0": 10 ** (low - 1), "fillcolor": SHADE, "line": {"width": 0}}
        dash = "dot" if mark.what == ASSUMED else "solid"
        edge = {"type": "line", "y0": top, "line": {"color": INK, "width": 2, "dash": dash}}
        shapes += [{**of, "x0": x0, "x1": x1, "y1": top, "layer": "below"} for of in (shade, edge)]
        names.append(
            {"text": words(_name(mark)), "x": at[mark.data], "y": 1, "yref": "paper",
             "yanchor": "bottom", "xanchor": "center", "textangle": -90, "showarrow": False}
        )  # fmt: skip
    longest = LETTER * max(len(_name(mark)) for mark in floors)
    layout = {
        "xaxis": _axis(frame.x, left, right, grid=False) | {"type": "linear"},
        "yaxis": _axis(frame.y, low, high, is_log=True),
        **{"shapes": shapes, "annotations": names, "margin": {"t": longest + 8}},
    }
    traces = (*_floors(floors, at), *_leads(marks, at, half))
    panel = Panel("", traces, layout, int(HEIGHT + longest))
    return Picture((panel,), tuple(_keys(marks)), width)


def _name(mark: Mark) -> str:
    return f"{mark.data}, n {spaced(f'{mark.n_units:_}')}"


def _axis(title: str, low: float, high: float, is_log: bool = False, grid: bool = True) -> Any:
    """An axis whose range is in decades; x is drawn by its logarithm, for columns are moved there."""
    every = [s * 10.0**d for d in range(int(low) - 2, int(high) + 2) for s in STEPS]
    ticks = [tick for tick in every if low <= np.log10(tick) <= high]
    return {
        **{"title": named(title), "type": "log", "range": [low, high], "showgrid": grid},
        "tickvals": ticks if is_log else [float(np.log10(tick)) for tick in ticks],
        "ticktext": [f"{tick:g}" for tick in ticks],
    }


def _floors(floors: Sequence[Mark], at: Mapping[str, float]) -> Iterator[Any]:
    """What to hover over on each dash."""
    known = [mark for mark in floors if mark.value == mark.value]
    text = [hover(_name(m), f"{m.what} {m.value:.3f} in {m.metric}", _cut(m.how)) for m in known]
    x, y = [at[mark.data] for mark in known], [mark.value for mark in known]
    look = Look("smallest", INK, "line-ew")
    yield points(look, x, y, text, opacity=0)


def _leads(marks: Sequence[Mark], at: Mapping[str, float], half: float) -> Iterator[Any]:
    of_set: dict[str, list[Mark]] = defaultdict(list)
    for mark in marks:
        if mark.what in (OURS, PUBLISHED):
            of_set[mark.data].append(mark)
    place: dict[int, float] = {}
    for data, leads in of_set.items():
        spread = np.linspace(-0.7, 0.7, len(leads)) * half if len(leads) > 1 else [0.0]
        place |= {id(mark): at[data] + float(off) for mark, off in zip(leads, spread, strict=True)}
    for what in (PUBLISHED, OURS):  # ours above
        mine = [mark for mark in marks if mark.what == what]
        if not mine:
            continue
        symbols = ["triangle-down" if m.value < LOWEST else _marker(m) for m in mine]
        hollow = "-open" if what == PUBLISHED else ""
        marker = {
            "color": [COLOURS[mark.verdict] for mark in mine],
            "symbol": [f"{symbol}{hollow}" for symbol in symbols],
            **{"size": 6 if hollow else 9, "line": {"width": 1 if hollow else 0}},
        }
        x, y = [place[id(mark)] for mark in mine], [max(mark.value, LOWEST) for mark in mine]
        yield points(Look(what, INK, "circle"), x, y, [_text(m) for m in mine], marker=marker)


def _marker(mark: Mark) -> str:
    return MARKERS.get(mark.verdict, OTHER)


def _text(mark: Mark) -> str:
    lead = f"leads {mark.second} by {mark.value:.3f}"
    return hover(mark.best, lead, f"{mark.what}: {mark.verdict}", mark.data, _cut(mark.how))


def _cut(text: str, most: int = 70) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def _keys(marks: Sequence[Mark]) -> Iterator[Look]:
    """A legend of what is there."""
    for what, verdict in sorted(dict.fromkeys((mark.what, mark.verdict) for mark in marks)):
        if what in (SMALLEST, ASSUMED):
            dash = "dot" if what == ASSUMED else "solid"
            more = ", assumed" if what == ASSUMED else ""
            yield Look(f"smallest difference shown{more}", INK, dash=dash)
        else:
            hollow = "-open" if what == PUBLISHED else ""
            symbol = MARKERS.get(verdict, OTHER)
            yield Look(f"{what}, {verdict}", COLOURS[verdict], f"{symbol}{hollow}")
