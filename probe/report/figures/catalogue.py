"""Which figures there are, and making one of them."""

from importlib import import_module
from importlib.util import find_spec
from typing import IO, Any

from cache.commands.names import near_names
from cache.errors import RequestError
from probe.report.figures.frame import Asked, Frame

FIGURES = {  # a module each
    "layers": "a metric at each layer, a line each pool; the chosen layer ringed",
    "shots": "few-shot curves: a metric by labelled images of each class",
    "sizes": "a metric by the size of the encoder's input",
    "confusion": "confusion matrices, counts and shares of each true class",
    "recall": "recall of each class, with intervals",
    "subgroups": "a metric in each subgroup of --by, with intervals",
    "reliability": "how often answers are right, by their confidence; before and after temperature",
    "deciding": "what each test set can decide, and gaps of the best to the second",
    "ranks": "ranks of encoders under each probe",
}
FORMATS = ("png", "svg", "pdf")


def find(name: str) -> Any:
    """The module of a figure.

    Raises:
        RequestError: there is none of this name, or no matplotlib.
    """
    if name not in FIGURES:
        near = near_names(name, FIGURES, f"figures are {', '.join(FIGURES)}")
        raise RequestError(f"no figure {name!r}; {near}")
    if not find_spec("matplotlib"):
        raise RequestError("figures need matplotlib: pip install 'medprobe[report]'")
    return import_module(f"probe.report.figures.{name}")


def make(name: str, asked: Asked) -> Frame[Any]:
    """What a figure shows.

    Raises:
        RequestError: see ``find``; or rows that it needs are missing.
    """
    return find(name).make(asked)


def write(name: str, frame: Frame[Any], file: IO[bytes], form: str, width: float) -> None:
    """Draw a figure.

    Args:
        name: of the figure.
        frame: as its ``make`` gave it.
        file: that is written.
        form: one of ``FORMATS``.
        width: inches.
    """
    from probe.report.figures.style import METADATA, styled

    with styled():
        draw(name, frame, width).savefig(file, format=form, metadata=METADATA[form])


def draw(name: str, frame: Frame[Any], width: float) -> Any:
    """A figure of matplotlib's; to be called, and saved, in ``style.styled()``."""
    from probe.report.figures.style import Sheet

    sheet = Sheet(width)
    find(name).draw(sheet, frame)
    sheet.finish(frame.caption)
    return sheet.figure
