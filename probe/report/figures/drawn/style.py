"""How all pictures look: sizes, colours, and text that is measured before it is placed.

Each of the colours goes with a marker and a dash, so that a picture printed grey says the same.

Widths are those of one and two columns of Nature's journals, 89 and 183 mm. Matplotlib's constrained
layout moves axes until labels fit; what it doesn't know is measured here: text is wrapped to
what its panel is wide, and the picture is made as high as legend, panels and caption need.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D

from probe.report.figures.heat import Scale
from probe.report.figures.palette import BLACK, COLOURS, MOST_PANELS

MARKERS = "osD^vPX"
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))
MM = 1 / 25.4  # inches
WIDTHS = {"one": 89 * MM, "two": 183 * MM}  # columns of a paper
POINTS = 7.0  # of all text; Nature asks for 5 to 7
SMALL = 6.0
LINE_HEIGHT = 1.35 * POINTS / 72  # inches
BESIDE = 0.62  # inches beside a panel that labels of its y axis take, if they are numbers
DPI = 300
BREAKS = "_-/.:"  # behind which a long word breaks
RC: Any = {  # of matplotlib's names
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "font.family": ["DejaVu Sans"],
    "font.size": POINTS,
    "axes.titlesize": POINTS,
    "axes.labelsize": POINTS,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": POINTS,
    "figure.labelsize": SMALL,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "axes.formatter.use_mathtext": False,
    "text.parse_math": False,  # names hold dollar signs
    "pdf.fonttype": 42,  # editable text
    "svg.hashsalt": "medprobe",  # the same picture, the same file
}
METADATA = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}


@dataclass(frozen=True)
class Look:
    """What tells one series from others."""

    colour: str
    marker: str
    dash: Any  # as matplotlib's linestyle

    def handle(self, label: str) -> Line2D:
        """For a legend."""
        return Line2D([], [], color=self.colour, marker=self.marker, ls=self.dash, label=label)


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for each name, in their order; 28 are different, by colour and marker 49."""
    n = len(COLOURS)
    return {
        name: Look(COLOURS[i % n], MARKERS[(i + i // n) % n], DASHES[i // n % len(DASHES)])
        for i, name in enumerate(dict.fromkeys(names))
    }


def hollow() -> Line2D:
    """What a legend says of printed numbers."""
    handle = Look(BLACK, "o", "").handle("as printed")
    handle.set(markerfacecolor="white", markeredgewidth=0.7)
    return handle


@dataclass
class Sheet:
    """A picture in the making."""

    width: float  # inches
    figure: Figure = field(init=False)
    _height: float = 0.0  # inches of panels and legends
    later: list[Callable[[], None]] = field(default_factory=list)  # when panels have their places
    _said: list[str] = field(default_factory=list)
    _wide: dict[tuple[str, float], float] = field(default_factory=dict)  # inches of measured texts

    def __post_init__(self) -> None:
        self.figure = Figure(figsize=(self.width, self.width), layout="constrained")
        FigureCanvasAgg(self.figure)  # measures text
        self.figure.get_layout_engine().set(w_pad=0.04, h_pad=0.04)  # type: ignore[union-attr]

    def first(self, names: Iterable[str]) -> list[str]:
        """As many panels as a picture holds, each once; the caption says how many aren't drawn."""
        every = list(dict.fromkeys(names))
        if len(every) > MOST_PANELS:
            self._said.append(
                f"The first {MOST_PANELS} of {len(every)} panels; narrow the rows to see others."
            )
        return every[:MOST_PANELS]

    def panels(
        self,
        titles: Sequence[str],
        *,
        width: float = 2.1,
        height: float = 1.55,
        beside: float = BESIDE,
        **shared: Any,
    ) -> list[Axes]:
        """Axes below titles, from left to right.

        Args:
            titles: of each panel; wrapped to its width.
            width: inches of a panel with its labels, at least; so many fit beside each other.
            height: inches of a panel without its title.
            beside: inches of its width that labels of its y axis take.
            shared: ``sharex`` and ``sharey`` of matplotlib.
        """
        n = len(titles)
        n_rows = math.ceil(n / max(1, int((self.width + 0.05) / width)))
        n_columns = math.ceil(n / n_rows)  # four panels stand in two rows of two
        grid = self.figure.subplots(n_rows, n_columns, squeeze=False, **shared)
        axes = list(grid.flat)
        for spare in axes[n:]:
            spare.remove()
        room = self.width / n_columns - beside
        wrapped = [self.wrap(title, room) for title in titles]
        for axis, title in zip(axes, wrapped, strict=False):
            axis.set_title(title, loc="left")
        n_lines = max(title.count("\n") + 1 for title in wrapped)
        self._height = n_rows * (height + n_lines * LINE_HEIGHT)
        if shared.get("sharex"):  # below a missing panel stands the axis of the one above it
            for axis in axes[max(0, n - n_columns) : n]:
                axis.tick_params(labelbottom=True)
        return axes[:n]

    def label(self, axes: Sequence[Axes], x: str, y: str) -> None:
        """Name the axes once: left of each row, below each column."""
        n_columns = axes[0].get_subplotspec().get_gridspec().ncols  # type: ignore[union-attr]
        for place, axis in enumerate(axes):
            if place % n_columns == 0:
                axis.set_ylabel(y)
            if place + n_columns >= len(axes):
                axis.set_xlabel(x)

    def add_height(self, inches: float) -> None:
        """For what stands above or below panels."""
        self._height += inches

    def colour_bar(self, image: AxesImage, axes: Sequence[Axes], scale: Scale) -> None:
        """Above the panels."""
        ticks = [scale.low, (scale.low + scale.high) / 2, scale.high]
        bar = self.figure.colorbar(
            *(image, None, list(axes)),
            location="top", shrink=0.5, ticks=ticks, panchor=False,
            fraction=0.1 / self._height, pad=0.1 / self._height,
        )  # fmt: skip
        bar.ax.set_xticklabels([scale.say(tick, ".2g") for tick in ticks])
        for value in scale.marks:
            bar.ax.axvline(value, color="white" if scale.is_dark(value) else BLACK, lw=1)
        bar.set_label(scale.label)
        self._height += 0.5

    def legend(self, handles: Sequence[Artist]) -> None:
        """Above the panels, in as many columns as fit."""
        for handle in handles:
            handle.set_label(self.wrap(str(handle.get_label()), 0.8 * self.width))
        for n_columns in range(len(handles), 0, -1):
            legend = self.figure.legend(
                handles=list(handles), loc="outside upper left", ncols=n_columns, borderaxespad=0.2
            )
            box = legend.get_window_extent()
            if box.width <= 0.98 * self.width * self.figure.dpi or n_columns == 1:
                self._height += box.height / self.figure.dpi
                return
            legend.remove()

    def finish(self, caption: str) -> None:
        """Add the caption, and give the picture its height."""
        text = self.wrap(" ".join([caption, *self._said]), 0.96 * self.width, SMALL)
        self.figure.supxlabel(text, x=0.01, ha="left", color="#333333", linespacing=1.25)
        n_lines = text.count("\n") + 1
        self._height += n_lines * 1.3 * SMALL / 72 + 0.25
        self.figure.set_size_inches(self.width, self._height)
        if self.later:
            self.figure.draw_without_rendering()
        for step in self.later:
            step()

    def wrap(self, text: str, room: float, size: float = POINTS) -> str:
        """Break a text into lines, and words that are longer than one.

        Args:
            text: its own line breaks stay.
            room: inches.
            size: points.
        """
        return "\n".join(
            line for part in text.splitlines() for line in self._lines(part, room, size)
        )

    def _lines(self, text: str, room: float, size: float) -> Iterator[str]:
        line = ""
        for word in text.split(" "):  # not at what holds "224 px" together
            if self.measure(f"{line} {word}".strip(), size) <= room:
                line = f"{line} {word}".strip()
                continue
            if line:
                yield line
            while len(word) > 1 and self.measure(word, size) > room:
                n = self._break(word, room, size)
                yield word[:n]
                word = word[n:]
            line = word
        yield line

    def _break(self, word: str, room: float, size: float) -> int:
        """Letters of a word that fit into a line; it breaks behind one of BREAKS where it has one."""
        fits = [1]  # as far as it fits: of a very long word the rest isn't measured
        while fits[-1] + 1 < len(word) and self.measure(word[: fits[-1] + 1], size) <= room:
            fits.append(fits[-1] + 1)
        return max((n for n in fits if word[n - 1] in BREAKS), default=fits[-1])

    def measure(self, text: str, size: float = POINTS) -> float:
        """Inches that one line of text is wide."""
        if (text, size) not in self._wide:  # names are wrapped over and over
            renderer = self.figure.canvas.get_renderer()  # type: ignore[attr-defined]
            font = FontProperties(family="DejaVu Sans", size=size)
            width = renderer.get_text_width_height_descent(text, font, ismath=False)[0]
            self._wide[text, size] = width / DPI
        return self._wide[text, size]


def styled() -> Any:
    """A context in which all that is drawn looks so, whatever a user's matplotlibrc says."""
    return rc_context(RC)
