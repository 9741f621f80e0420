"""A bump chart of ranks."""

from probe.report.figures.drawn.style import BESIDE, SMALL, Sheet, looks
from probe.report.figures.frame import Frame
from probe.report.figures.ranks import Rank

HIGH = 1.3  # inches of a probe's name that is turned


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
    n_columns = axes[0].get_subplotspec().get_gridspec().ncols  # type: ignore[union-attr]
    room = 0.95 * (sheet.width / n_columns - BESIDE) / n_probes
    names = {rank.probe for of in shown.values() for rank in of}
    is_rotated = any(
        sheet.measure(word, SMALL) > room for name in names for word in name.split(" ")
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
        most_wide = HIGH if is_rotated else room
        every = [probes.get(place, "") for place in range(max(probes) + 1)]
        words = [sheet.wrap(word, most_wide, SMALL) for word in every]
        axis.set_xticks(range(len(words)), words, rotation=90 if is_rotated else 0)
        axis.set_yticks(range(1, int(most) + 1))
    axes[0].set_ylim(most + 0.5, 0.5)
    sheet.label(axes, frame.x, frame.y)
    sheet.legend([style.handle(model) for model, style in look.items()])
