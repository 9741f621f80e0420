"""Reliability before and after temperature."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from probe.report.figures.drawn.style import Sheet, looks
from probe.report.figures.frame import Frame
from probe.report.figures.palette import GREY
from probe.report.figures.reliability import AFTER, BEFORE, Bin


def draw(sheet: Sheet, frame: Frame[Bin]) -> None:
    """A panel for each answer; on the diagonal confidence is right."""
    panels = sheet.first(of.panel for of in frame.points)
    shown = {name: [of for of in frame.points if of.panel == name] for name in panels}
    titles = [f"{name}\n{_errors(shown[name])}" for name in panels]
    axes = sheet.panels(titles, height=1.75, sharex=True, sharey=True)
    look = looks((BEFORE, AFTER))
    for axis, name in zip(axes, panels, strict=True):
        axis.plot([0, 1], [0, 1], color=GREY, lw=0.6, ls=(0, (3, 2)))
        for of, style in look.items():
            _draw_bins(
                axis,
                [b for b in shown[name] if b.of == of and (of == BEFORE or b.temperature != 1)],
                style.colour,
                style.marker,
            )
    axes[0].set_xlim(min(b.above for of in shown.values() for b in of) - 0.03, 1.03)
    axes[0].set_ylim(-0.03, 1.03)
    sheet.label(axes, frame.x, frame.y)
    sheet.legend([style.handle(of) for of, style in look.items()])


def _draw_bins(axis: Axes, bins: Sequence[Bin], colour: str, marker: str) -> None:
    x, y = [b.confidence for b in bins], [b.right for b in bins]
    axis.plot(x, y, color=colour, lw=0.8)
    axis.scatter(
        x, y, s=[6 + 60 * b.n / b.n_all for b in bins], color=colour, marker=marker, lw=0, zorder=3
    )  # fmt: skip
    axis.vlines(x, [b.low for b in bins], [b.high for b in bins], color=colour, lw=0.6, alpha=0.6)


def _errors(bins: Sequence[Bin]) -> str:
    """ "ECE 0.045, after T 1.09 0.033; n 156"."""
    each = {b.of: b for b in bins}
    said = [f"ECE {each[BEFORE].error:.3f}"]
    if after := each.get(AFTER):
        if after.temperature == 1:
            said.append("T = 1")
        else:
            said.append(f"{after.error:.3f} at T = {after.temperature:.2f}")
    return f"{'; '.join(said)}; n\N{NO-BREAK SPACE}{each[BEFORE].n_all}"
