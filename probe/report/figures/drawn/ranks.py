"""A bump chart of ranks."""

from probe.report.figures.drawn.style import SMALL, Sheet, looks
from probe.report.figures.frame import Frame
from probe.report.figures.ranks import Rank


def draw(sheet: Sheet, frame: Frame[Rank]) -> None:
    """A panel for each data set; a gap where an encoder wasn't asked so."""
    panels = sheet.first(rank.panel for rank in frame.points)
    shown = {name: [rank for rank in frame.points if rank.panel == name] for name in panels}
    look = looks(rank.model for rank in frame.points if rank.panel in panels)
    most = max(rank.rank for of in shown.values() for rank in of)
    n_probes = max(len({r.place for r in of}) for of in shown.values())
    axes = sheet.panels(
        panels, width=min(sheet.width, 0.9 + 0.42 * n_probes), height=1.3 + 0.18 * most, sharey=True
    )
    for axis, name in zip(axes, panels, strict=True):
        models = list(dict.fromkeys(rank.model for rank in shown[name]))
        probes = {rank.place: rank.probe for rank in shown[name]}
        for number, model in enumerate(models):
            ranks = {rank.place: rank for rank in shown[name] if rank.model == model}
            off = (number - (len(models) - 1) / 2) * min(0.1, 0.5 / len(models))
            places = range(max(probes) + 1)
            x = [place + off for place in places]
            y = [ranks[place].rank if place in ranks else float("nan") for place in places]
            style = look[model]
            axis.plot(x, y, color=style.colour, marker=style.marker, ls=style.dash)
            low, high = (
                [getattr(ranks[p], end) if p in ranks else float("nan") for p in places]
                for end in ("low", "high")
            )
            axis.vlines(x, low, high, color=style.colour, lw=2.5, alpha=0.3)
        words = [sheet.wrap(probes.get(place, ""), 1.3, SMALL) for place in range(max(probes) + 1)]
        axis.set_xticks(range(len(words)), words, rotation=90)
        axis.set_yticks(range(1, int(most) + 1))
    axes[0].set_ylim(most + 0.5, 0.5)
    sheet.label(axes, frame.x, frame.y)
    sheet.legend([style.handle(model) for model, style in look.items()])
