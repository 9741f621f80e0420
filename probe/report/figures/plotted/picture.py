"""A picture for a page: panels that flow, one below another where a screen is narrow, and a legend.

Each panel is a plot of its own, so titles, legend and caption are the page's text: they wrap, and
nothing is cut. Colours are variables of the page's style, ``var(--ink)``, of which there are two sets,
light and dark; the page's script puts in whichever is shown.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from probe.report.figures.palette import COLOURS, MOST_PANELS
from probe.report.formats.cells import line

INK, SOFT, LINE, PAPER, SHADE = (f"var(--{n})" for n in ("ink", "soft", "line", "paper", "shade"))
SERIES = tuple(f"var(--c{n})" for n in range(len(COLOURS)))  # in the order of COLOURS
BLUE, RED = SERIES[0], SERIES[COLOURS.index("#D55E00")]
# As those of ``drawn.style``, of plotly's names.
MARKERS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x")
DASHES = ("solid", "dash", "dot", "dashdot")
WRAP = 22  # letters of a line beside an axis
BREAKS = "_-/.:"  # behind which a longer word breaks
HEIGHT, WIDTH = 250, 300  # px of a panel, and how narrow it may be


@dataclass(frozen=True)
class Look:
    """What tells one series from others; also its entry in a legend."""

    label: str
    colour: str
    marker: str = ""  # "": a line alone
    dash: str = ""  # "": dots alone


PRINTED = Look("as printed", INK, "circle-open")


@dataclass(frozen=True)
class Panel:
    """One plot."""

    title: str
    traces: tuple[Mapping[str, Any], ...]  # of plotly's names
    layout: Mapping[str, Any]  # its axes and shapes; fonts, colours and margins are the page's
    height: int = HEIGHT  # px
    width: int = 0  # px that it takes, where it doesn't fill its column
    least: int = 0  # px that its plot takes at least; on a narrower screen it scrolls


@dataclass(frozen=True)
class Picture:
    """What stands below a figure's heading, above its caption."""

    panels: tuple[Panel, ...]
    keys: tuple[Look, ...] = ()  # of the legend
    width: int = WIDTH  # px that a panel needs; as many stand beside each other as fit
    said: str = ""  # what isn't drawn


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for each name, in their order; 28 are different."""
    n = len(SERIES)
    return {
        name: Look(name, SERIES[i % n], MARKERS[i % n], DASHES[i // n % len(DASHES)])
        for i, name in enumerate(dict.fromkeys(names))
    }


def first(names: Iterable[str]) -> tuple[list[str], str]:
    """As many panels as a picture holds, each once, and what is to be said of the others."""
    every = list(dict.fromkeys(names))
    more = f"The first {MOST_PANELS} of {len(every)} panels; narrow the rows to see others."
    return every[:MOST_PANELS], more if len(every) > MOST_PANELS else ""


def words(text: object) -> str:
    """A text that plotly shows as it is: it takes some HTML."""
    return escape(line(str(text)), quote=False).replace(
        "$", "&#36;"
    )  # it typesets what stands between dollars


def named(text: str) -> dict[str, str]:
    """The title of an axis."""
    return {"text": words(text)}


def wrapped(text: str, width: int = WRAP) -> str:
    """A text in lines beside an axis; its own stay, and a word that is longer than a line breaks."""
    lines: list[str] = []
    for part in str(text).splitlines():
        lines.append("")
        for word in line(part).split(" "):
            while len(word) > width:
                n = max((n for n in range(4, width + 1) if word[n - 1] in BREAKS), default=width)
                lines += [word[:n], ""]
                word = word[n:]
            if len(lines[-1]) + len(word) >= width:
                lines.append("")
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "<br>".join(words(each) for each in lines if each)


def hover(*lines: str) -> str:
    """What stands beside a point: the first line bold, "" left out."""
    said = [words(each) for each in lines if each]
    return "<br>".join([f"<b>{said[0]}</b>", *said[1:]])


def ends(low: float, high: float) -> str:
    """ " [0.903 0.959]", or nothing."""
    return "" if math.isnan(low) else f" [{low:.3f} {high:.3f}]"


def numbers(values: Iterable[float]) -> list[float | None]:
    """JSON has neither nan nor infinity: a gap."""
    return [value if math.isfinite(value) else None for value in values]


def points(
    look: Look, x: Sequence[Any], y: Sequence[Any], text: Sequence[str], **facts: Any
) -> Any:
    """A trace of one series, as ``looks`` has it, with texts to hover over."""
    mode = "+".join(["lines"] * bool(look.dash) + ["markers"] * bool(look.marker))
    return {
        **{"type": "scatter", "mode": mode, "x": list(x), "y": list(y), "name": words(look.label)},
        **{"hovertext": list(text), "hoverinfo": "text"},
        "marker": {"color": look.colour, "symbol": look.marker or "circle", "size": 7},
        "line": {"color": look.colour, "dash": look.dash or "solid", "width": 1.6},
        **facts,
    }  # fmt: skip


def bars(
    values: Sequence[float], low: Sequence[float], high: Sequence[float], colour: str
) -> dict[str, Any]:
    """Error bars from low to high; none where they are nan."""
    above = numbers(h - v for v, h in zip(values, high, strict=True))
    below = numbers(v - l for v, l in zip(values, low, strict=True))
    return {
        **{"type": "data", "symmetric": False, "array": above, "arrayminus": below},
        **{"color": colour, "thickness": 1, "width": 0},
    }  # fmt: skip


def hollow(look: Look) -> dict[str, Any]:
    """What makes a trace of printed numbers."""
    marker = {"color": look.colour, "symbol": f"{look.marker}-open", "size": 7}
    return {"marker": marker, "line": {"color": look.colour, "dash": look.dash, "width": 0.8}}


def ranged(marks: Sequence[Any]) -> list[float]:
    """The range of an axis that holds all values and ends of marks."""
    every = [each for m in marks for each in (m.value, m.low, m.high) if math.isfinite(each)]
    return ruled(min(every, default=0.0), max(every, default=1.0))


def ruled(low: float, high: float, room: float = 0.05) -> list[float]:
    """The range of an axis that holds both, with some room."""
    pad = room * ((high - low) or 0.1)
    return [low - pad, high + pad]
