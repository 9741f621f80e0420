"""Pictures: written without a screen or a warning, no text cut, none over another."""

import io
from xml.etree import ElementTree

import pytest
from drawing import (
    NAMES,
    asked_of,
    check_texts,
    drawn_texts,
    few_shot,
    kinds,
    layered,
    priced,
    tempered,
    tuned,
)

pytest.importorskip("matplotlib")

from probe.report.figures import catalogue
from probe.report.figures.drawn.style import WIDTHS, Sheet, looks, styled

BEGINS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


def sizes():
    return [of for size in (112, 224) for of in layered(range(3, 4), ("cls",), size=size)]


def classes(n):
    return kinds(("linear", "knn"), n_classes=n, n=20 * n)


CASES = {
    "layers": ("layers", lambda: layered(range(12))),
    "shots": ("shots", few_shot),
    "sizes": ("sizes", sizes),
    "confusion": ("confusion", kinds),
    "confusion of 5": ("confusion", lambda: classes(5)),
    "confusion of 11": ("confusion", lambda: classes(11)),
    "confusion of 16": ("confusion", lambda: classes(16)),
    "recall": ("recall", kinds),
    "recall of 11": ("recall", lambda: classes(11)),
    "reliability": ("reliability", lambda: tempered(kinds(("linear",)))),
    "curves": ("curves", lambda: tuned("encoder_lr", (1e-7, 1e-6, 1e-5, 1e-4, 1e-3), NAMES)),
    "calibration": ("calibration", lambda: classes(3)),
    "matrix": ("matrix", lambda: kinds() + kinds(dataset="others")),
    "matrix of 9": ("matrix", lambda: kinds(("linear",), [f"encoder {i}" for i in range(9)])),
    "cost": ("cost", lambda: priced(kinds(("linear",), [f"encoder {i}" for i in range(12)]))),
    "cost of long names": ("cost", lambda: priced(kinds(("linear", "knn")))),
    "ranks": ("ranks", lambda: kinds(models=[f"encoder {i}" for i in range(8)])),
    "ranks of long names": ("ranks", kinds),
    "deciding of twins": (
        "deciding",
        lambda: [of for name in ("a", "b", "c") for of in kinds(n=60, dataset=name)],
    ),
    "deciding": ("deciding", lambda: kinds(n=60) + kinds(n=70, dataset="others")),
}


@pytest.fixture(scope="module")
def frames():
    """Name of a case -> its frame, made once."""
    made = {}

    def frame(case):
        if case not in made:
            name, rows = CASES[case]
            metric = "acc" if name == "deciding" else "auc"
            made[case] = catalogue.make(name, asked_of(rows(), metric, across="encoder-lr"))
        return made[case]

    return frame


@pytest.mark.parametrize(
    ("case", "width"),
    [
        *((case, "one") for case in CASES),
        *((case, "two") for case in ("layers", "recall", "deciding")),
    ],
)
def test_no_text_is_cut_or_over_another(frames, case, width):
    with styled():
        check_texts(catalogue.draw(frames(case), WIDTHS[width]))


@pytest.mark.parametrize("form", catalogue.FORMATS)
@pytest.mark.parametrize("case", ["shots"])
def test_each_format_is_written_the_same_each_time(frames, case, form):
    made = [io.BytesIO(), io.BytesIO()]
    for file in made:
        catalogue.write(frames(case), file, form, WIDTHS["one"])
    assert made[0].getvalue().startswith(BEGINS[form])
    assert made[0].getvalue() == made[1].getvalue()


def test_the_caption_stands_in_the_picture(frames):
    frame = frames("layers")
    with styled():
        texts, _ = drawn_texts(catalogue.draw(frame, WIDTHS["two"]))
    assert frame.caption in [text.replace("\n", " ") for text, _ in texts]


def test_28_looks_are_different():
    found = looks(map(str, range(28)))
    assert len({(look.colour, look.dash) for look in found.values()}) == 28
    few = list(looks(map(str, range(7))).values())
    assert len({look.colour for look in few}) == len({look.marker for look in few}) == 7


def test_a_missing_row_is_a_gap():
    rows = [of for of in layered(range(5), ("cls",)) if of.row.answered.settings["layer"] != 2]
    rows += [of for of in layered((2,), ("cls",)) if of.row.encoded.model == "vit"]
    rows += layered(range(5), ("mean",))
    frame = catalogue.make("layers", asked_of(rows))
    with styled():
        figure = catalogue.draw(frame, WIDTHS["two"])
    axis = next(a for a in figure.axes if "lite" in a.get_title(loc="left"))
    by_colour = {line.get_color(): line.get_ydata() for line in axis.lines}
    gaps = sorted(sum(value != value for value in line) for line in by_colour.values())
    assert gaps == [0, 1]


ODD = (
    "{0} {x} %d",
    "\x1b[31m\x07 \ud800 \u202e",
    "n" * 200,
)  # braces, what no font has, one long word


@pytest.mark.parametrize("figure", ["cost", "recall"])
def test_any_name_is_drawn(figure):
    rows = priced(kinds(("linear",), ODD, dataset="{data} \x1b"))
    file = io.BytesIO()
    frame = catalogue.make(figure, asked_of(rows))
    catalogue.write(frame, file, "svg", WIDTHS["two"])
    ElementTree.fromstring(file.getvalue())  # a control character makes it none
    assert all("{data} \x1b" in point.panel for point in frame.points)


def test_a_long_word_is_measured_as_far_as_lines_go(monkeypatch):
    measured = []
    monkeypatch.setattr(
        Sheet, "measure", lambda _, text, size=0: measured.append(text) or len(text)
    )
    with styled():
        lines = Sheet(WIDTHS["one"]).wrap("m" * 2000, 40).split("\n")
    assert lines == ["m" * 40] * 50
    assert len(measured) < 50 * 50
