"""Which figures there are, and making one of them."""

from importlib import import_module
from importlib.util import find_spec
from typing import IO, Any

from cache.commands.names import near_names
from cache.errors import RequestError
from probe.report.figures.frame import Asked, Frame
from probe.report.figures.plotted.picture import Picture

FIGURES = {  # a module each
    "layers": "a metric at each layer, a line each pool; the chosen layer ringed",
    "shots": "few-shot curves: a metric by labelled images of each class",
    "sizes": "a metric by the size of the encoder's input",
    "curves": "a metric by any number of a row, --across encoder-lr, freeze-until, k, n_train...",
    "cost": "a metric against images/s, parameters and bytes; which encoder none beats in both",
    "confusion": "confusion matrices, counts and shares of each true class",
    "recall": "recall of each class, with intervals",
    "subgroups": "a metric in each subgroup of --by, with intervals",
    "reliability": "how often answers are right, by their confidence; before and after temperature",
    "calibration": "slope and intercept of the answers of each class, with intervals",
    "deciding": "what each test set can decide, and gaps of the best to the second",
    "matrix": "each two encoders over data sets: difference, and sets where one is separated",
    "ranks": "ranks of encoders under each probe",
}
FORMATS = ("png", "svg", "pdf")


def find(name: str) -> str:
    """A figure's name.

    Raises:
        RequestError: there is none of this name.
    """
    if name not in FIGURES:
        near = near_names(name, FIGURES, f"figures are {', '.join(FIGURES)}")
        raise RequestError(f"no figure {name!r}; {near}")
    return name


def make(name: str, asked: Asked) -> Frame[Any]:
    """What a figure shows; needs no matplotlib.

    Raises:
        RequestError: there is no such figure, or rows that it needs are missing.
    """
    return import_module(f"probe.report.figures.{find(name)}").make(asked)


def check_drawing() -> None:
    """Refuse to draw without matplotlib.

    Raises:
        RequestError: it isn't installed.
    """
    if not find_spec("matplotlib"):
        raise RequestError("pictures need matplotlib: pip install 'medprobe[report]'")


def write(frame: Frame[Any], file: IO[bytes], form: str, width: float) -> None:
    """Draw a figure.

    Args:
        frame: as a figure's ``make`` gave it.
        file: that is written.
        form: one of ``FORMATS``.
        width: inches.

    Raises:
        RequestError: matplotlib isn't installed.
    """
    check_drawing()
    from probe.report.figures.drawn.style import METADATA, styled

    with styled():
        draw(frame, width).savefig(file, format=form, metadata=METADATA[form])


def plot(frame: Frame[Any]) -> Picture:
    """What a page's script draws; needs no plotly."""
    return import_module(f"probe.report.figures.plotted.{frame.shape}").plot(frame)


def draw(frame: Frame[Any], width: float) -> Any:
    """A figure of matplotlib's; to be called, and saved, in ``drawn.style.styled()``."""
    from probe.report.figures.drawn.style import Sheet

    sheet = Sheet(width)
    import_module(f"probe.report.figures.drawn.{frame.shape}").draw(sheet, frame)
    sheet.finish(frame.caption)
    return sheet.figure
