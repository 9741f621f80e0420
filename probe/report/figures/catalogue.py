"""Which figures there are, and making one of them."""

from collections.abc import Collection
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import IO, Any

from cache.commands.names import near_names
from cache.errors import RequestError
from probe.report.figures.files import AskedOfFiles
from probe.report.figures.frame import Asked, Frame
from probe.report.figures.plotted.picture import Picture
from probe.report.formats.cells import spaced
from probe.report.rows.fields import metrics_of, no_metric

OF_ROWS, OF_FILES = ("kind", "name", "results"), ("files", "size")  # flags that say which
PLACES = ("layer", "pool", "split")
CKA = (*PLACES, "biased", "batch", "seed")


@dataclass(frozen=True)
class Figure:
    """What a figure is."""

    told: str  # what it shows
    reads: tuple[str, ...] = ()  # flags that not every figure reads
    of_files: bool = False  # whether it is of feature files, AskedOfFiles; else of rows, Asked


FIGURES = {  # a module each
    "layers": Figure(
        "a metric at each layer, a line each pool; the chosen layer ringed", ("metric",)
    ),
    "shots": Figure("few-shot curves: a metric by labelled images of each class", ("metric",)),
    "sizes": Figure("a metric by the size of the encoder's input", ("metric",)),
    "curves": Figure(
        "a metric by any number of a row, --across encoder-lr, freeze-until, k, n_train...",
        ("metric", "across"),
    ),
    "cost": Figure(
        "a metric against images/s, seconds, parameters, bytes; which encoder none beats in both",
        ("metric",),
    ),
    "attention": Figure(
        "at which layers and pools fused probes look, of each data set, or with --by class of each class",
        ("by",),
    ),
    "confusion": Figure("confusion matrices, counts and shares of each true class"),
    "recall": Figure("recall of each class, with intervals"),
    "subgroups": Figure("a metric in each subgroup of --by, with intervals", ("metric", "by")),
    "reliability": Figure(
        "how often answers are right, by their confidence; before and after temperature"
    ),
    "calibration": Figure("slope and intercept of the answers of each class, with intervals"),
    "deciding": Figure(
        "what each test set can decide, and gaps of the best to the second", ("metric",)
    ),
    "matrix": Figure(
        "each two encoders over data sets: difference, and sets where one is separated",
        ("metric",),
    ),
    "together": Figure(
        "each two encoders side by side and averaged: how much better than the better one alone",
        ("metric",),
    ),
    "ranks": Figure("ranks of encoders under each probe", ("metric",)),
    "cka": Figure(
        "how alike layers are, of one or two encoders, or the last ones of several", CKA, True
    ),
    "drift": Figure("how far tuning moved each layer: CKA before and after", CKA, True),
    "scatter": Figure(
        "samples of a layer in the plane, by class", (*PLACES, "method", "seed"), True
    ),
    "neighbours": Figure(
        "the share of nearest neighbours that encoders share", (*PLACES, "k", "seed"), True
    ),
}
LIKE = {  # papers' figures of feature files, each with its function of figures.cka
    "huix2024:fig7": Figure("CKA of layers before and after tuning, figure 7", CKA, True),
    "huix2024:fig8": Figure("CKA of the last layers of encoders, figure 8", CKA, True),
}
MAKERS = {"huix2024:fig7": "before_and_after", "huix2024:fig8": "last_layers"}
FORMATS = ("png", "svg", "pdf")


def find(name: str) -> Figure:
    """A figure by its name.

    Raises:
        RequestError: there is none of this name.
    """
    known = {**FIGURES, **LIKE}
    if name not in known:
        near = near_names(name, FIGURES, f"figures are {', '.join(FIGURES)}")
        raise RequestError(f"no figure {name!r}; {near}")
    return known[name]


def make(name: str, asked: Asked | AskedOfFiles) -> Frame[Any]:
    """What a figure shows; needs no matplotlib.

    Args:
        name: of the figure.
        asked: rows, or feature files, whichever it is of.

    Raises:
        RequestError: there is no such figure, or rows or files that it needs are missing.
    """
    figure = find(name)
    if isinstance(asked, Asked) and "metric" in figure.reads:
        if asked.metric not in metrics_of(asked.rows):
            raise no_metric(asked.metric, asked.rows)
    module = "cka" if name in LIKE else name
    return getattr(import_module(f"probe.report.figures.{module}"), MAKERS.get(name, "make"))(asked)


def refuse_unread(name: str, typed: Collection[str]) -> None:
    """Refuse flags that a figure doesn't read.

    Args:
        name: of the figure.
        typed: flags, without dashes.

    Raises:
        RequestError: it is of rows, and one is of feature files, or of another figure.
    """
    figure = find(name)
    for flag in typed:
        if flag in figure.reads:
            continue
        if names := [other for other, of in FIGURES.items() if flag in of.reads]:
            raise RequestError(f"--{flag} belongs to {', '.join(names)}, not to {name}")
        if figure.of_files and flag in OF_ROWS:
            raise RequestError(
                f"--{flag} is of rows, and {name} of feature files: --data, --model, --size, --where "
                "PART=VALUE, --features DIR or --files FILE say which"
            )
        if not figure.of_files and flag in OF_FILES:
            raise RequestError(
                f"--{flag} is of feature files, and {name} of rows: --data, --model, --kind, --name "
                "and --where FIELD=VALUE say which"
            )


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
    import_module(f"probe.report.figures.drawn.{frame.shape}").draw(sheet, frame.legible())
    missing = f" {frame.missing}: `{frame.lists}` lists them." if frame.missing else ""
    sheet.finish(spaced(f"{frame.caption}{missing}"))
    return sheet.figure
