"""A bump chart of ranks."""

import math

from probe.report.figures.frame import Frame
from probe.report.figures.plotted.picture import (
    Panel,
    Picture,
    first,
    hover,
    looks,
    named,
    numbers,
    points,
    wrapped,
)
from probe.report.figures.ranks import Rank

WIDE = 6  # px of a set of ranks
MOST_FLAT = 7  # probes whose names fit beside each other


def plot(frame: Frame[Rank]) -> Picture:
    """A panel for each data set; a gap where an encoder wasn't asked so."""
    panels, said = first(rank.panel for rank in frame.points)
    shown = {name: [rank for rank in frame.points if rank.panel == name] for name in panels}
    look = looks(rank.model for of in shown.values() for rank in of)
    most = max(rank.rank for of in shown.values() for rank in of)
    found = []
    for panel, ranks in shown.items():
        models = list(dict.fromkeys(rank.model for rank in ranks))
        probes = {rank.place: rank.probe for rank in ranks}
        places = range(max(probes) + 1)
        traces = []
        for number, model in enumerate(models):
            of = {rank.place: rank for rank in ranks if rank.model == model}
            off = (number - (len(models) - 1) / 2) * min(0.1, 0.5 / len(models))
            sets = [r for r in of.values() if not math.isnan(r.low)]
            line = {"color": look[model].colour, "width": WIDE}
            x = [each for r in sets for each in (r.place + off, r.place + off, None)]
            y = [each for r in sets for each in (r.low, r.high, None)]
            traces.append(
                {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": line, "opacity": 0.3,
                 "hoverinfo": "skip"}
            )  # fmt: skip
            text = [_text(of[place]) if place in of else "" for place in places]
            y = numbers(of[place].rank if place in of else math.nan for place in places)
            traces.append(points(look[model], [place + off for place in places], y, text))
        x_axis = {
            "tickvals": list(places),
            "ticktext": [wrapped(probes.get(place, ""), 14) for place in places],
            "tickangle": 0 if len(places) <= MOST_FLAT else -90,
            **{"range": [-0.4, len(places) - 0.6], "showgrid": False},
        }
        y_axis = {"title": named(frame.y), "dtick": 1, "range": [most + 0.6, 0.4]}
        height = (110 if len(places) <= MOST_FLAT else 170) + 34 * int(most)
        width = {"xaxis": x_axis, "yaxis": y_axis}
        found.append(Panel(panel, tuple(traces), width, height))
    n_probes = max(len({rank.place for rank in of}) for of in shown.values())
    return Picture(
        tuple(found), tuple(look.values()), width=min(640, 120 + 70 * n_probes), said=said
    )


def _text(rank: Rank) -> str:
    ends = "" if math.isnan(rank.low) else f", may be {rank.low:g} to {rank.high:g}"
    value = f"{rank.metric} {rank.value:.3f}"
    return hover(rank.model, rank.probe, f"rank {rank.rank:g}{ends}", value)
