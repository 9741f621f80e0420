"""Frames as plotly draws them: what the picture of matplotlib holds, in plotly's names."""

import dataclasses
import json
import math

import pytest
from contending import labels_of
from drawing import asked_of, few_shot, kinds, layered, priced, tempered

from probe.report.figures.catalogue import make, plot
from probe.report.figures.curves import PUBLISHED
from probe.report.figures.curves import Mark as Mark_
from probe.report.figures.deciding import Mark
from probe.report.figures.frame import Frame
from probe.report.figures.heat import Scale, Tile
from probe.report.figures.palette import COLOURS, MOST_PANELS
from probe.report.figures.plotted.picture import SERIES, looks, wrapped
from probe.report.figures.scatter import Spot
from probe.report.statistics.claims import UNTOLD

ROWS = {
    "layers": layered,
    "shots": few_shot,
    "confusion": lambda: kinds(n_classes=3),
    "recall": lambda: kinds(n_classes=3),
    "reliability": lambda: tempered(kinds()),
    "calibration": lambda: kinds(n_classes=3),
    "deciding": kinds,
    "ranks": kinds,
    "matrix": lambda: [of for name in ("a", "b") for of in kinds(("linear",), dataset=name)],
    "cost": lambda: priced(kinds(("linear",))),
}


def traces(picture):
    return [trace for panel in picture.panels for trace in panel.traces]


@pytest.fixture(scope="module")
def made():
    frames = {name: make(name, asked_of(rows())) for name, rows in ROWS.items()}
    return {name: (frame, plot(frame)) for name, frame in frames.items()}


@pytest.mark.parametrize("name", ROWS)
def test_plotly_knows_every_name_and_value(made, name):
    graph_objects = pytest.importorskip("plotly.graph_objects")
    picture = made[name][1]
    assert picture.panels
    for panel in picture.panels:  # an unknown name or value is a ValueError
        graph_objects.Figure(data=list(panel.traces), layout=dict(panel.layout))
    json.dumps([panel.layout for panel in picture.panels] + traces(picture), allow_nan=False)


@pytest.mark.parametrize("name", ["layers", "recall"])
def test_what_is_no_number_is_a_gap_in_json(made, name):
    first, second, *rest = made[name][0].points
    facts = {"chosen": True} if name == "layers" else {}  # a ring around nothing
    nobody = dataclasses.replace(first, value=math.nan, low=math.nan, high=math.nan, **facts)
    open_end = dataclasses.replace(second, high=math.inf)
    frame = dataclasses.replace(made[name][0], points=(nobody, open_end, *rest))
    picture = plot(frame)
    json.dumps([panel.layout for panel in picture.panels] + traces(picture), allow_nan=False)


@pytest.mark.parametrize("name", ["layers", "shots", "recall", "ranks", "cost"])
def test_each_number_is_drawn(made, name):
    frame, picture = made[name]
    axis = "x" if name == "recall" else "y"
    value = "rank" if name == "ranks" else "value"
    drawn = [v for t in traces(picture) if "hovertext" in t for v, said in zip(t[axis], t["hovertext"], strict=True) if said]  # fmt: skip
    assert sorted(drawn) == pytest.approx(sorted(getattr(p, value) for p in frame.points))


def test_bars_end_where_intervals_do(made):
    frame, picture = made["layers"]
    mark = frame.points[0]
    trace = picture.panels[0].traces[0]
    assert trace["y"][0] + trace["error_y"]["array"][0] == pytest.approx(mark.high)
    assert trace["y"][0] - trace["error_y"]["arrayminus"][0] == pytest.approx(mark.low)


def test_each_encoder_has_its_marker_also_where_another_beats_it(made):
    frame, picture = made["cost"]
    names = {spot.name for spot in frame.points}
    assert names <= {look.label for look in picture.keys}
    of = {}
    for trace in traces(picture):
        if "lines" not in trace["mode"]:
            of.setdefault(trace["marker"]["symbol"], set()).add(trace["name"])
    assert len(of) == len(names)
    assert all(len(each) == 1 for each in of.values())


def test_a_matrix_holds_shares_and_says_n(made):
    frame, picture = made["confusion"]
    colours, inside = picture.panels[0].traces
    tile = frame.points[1]
    assert colours["z"][0][1] == tile.value
    assert inside["text"][1] == f"{tile.text}<br>{tile.more}"
    assert f"n {tile.n_true}" in picture.panels[0].layout["yaxis"]["ticktext"][0]


def test_small_tiles_have_a_bar_of_colours_in_place_of_texts():
    tiles = tuple(
        Tile("p", f"r{i}", f"c{j}", math.nan if i == j else 0.5, "0.500", "", i < j)
        for i in range(30) for j in range(30)
    )  # fmt: skip
    picture = plot(Frame("heat", tiles, "", scale=Scale(-1, 1, "CKA", True)))
    unknown, colours = picture.panels[0].traces
    assert unknown["z"][0][0] == 1
    assert colours["z"][0][:2] == [None, 0.5]
    assert colours["colorbar"]["title"]["text"] == "CKA"
    assert len(picture.panels[0].layout["shapes"]) == 30 * 29 / 2


def crowded(n, n_panels, name="c{:02d}" + "x" * 57):
    names = [name.format(i) for i in range(n)]
    tiles = tuple(
        Tile(f"p{p}", f"{row}, n 5", column, 0.5, "50", "", False)
        for p in range(n_panels) for row in names for column in names
    )  # fmt: skip
    return plot(Frame("heat", tiles, "", scale=Scale(0, 1, "share")))


def test_long_names_of_many_classes_stand_once_and_numbers_below():
    picture = crowded(30, 5)
    assert len(picture.panels) == 3
    assert picture.said == "The first 3 of 5 panels; narrow the rows to see others."
    panel = picture.panels[0]
    x, y = panel.layout["xaxis"], panel.layout["yaxis"]
    assert x["ticktext"] == [str(i) for i in range(1, 31)]
    assert [text.partition(":")[0] for text in y["ticktext"]] == x["ticktext"]
    assert panel.height >= 30 * 14 * max(text.count("<br>") + 1 for text in y["ticktext"])
    assert 800 < panel.width < 1100


def test_few_classes_keep_their_names_on_both_sides():
    picture = crowded(4, 5, "class {}")
    assert len(picture.panels) == 5
    assert picture.panels[0].layout["xaxis"]["ticktext"][0].startswith("class")


def test_printed_numbers_are_hollow_and_all_stands_behind_the_last():
    ends = (math.nan, math.nan, "")
    marks = [Mark_("p", "a", "shots", x, "acc", of, 0.5, *ends, 0, False) for x in (1, 10, math.inf) for of in ("test", PUBLISHED)]  # fmt: skip
    picture = plot(Frame("curves", tuple(marks), "", x="shots", y="acc", is_log=True))
    printed, ours = picture.panels[0].traces
    assert printed["marker"]["symbol"] == "circle-open"
    assert ours["marker"]["symbol"] == "circle"
    axis = picture.panels[0].layout["xaxis"]
    assert (axis["tickvals"], axis["ticktext"]) == ([0, 1, 2], ["1", "10", "all"])


def test_a_lead_that_is_not_separated_is_red_and_a_printed_one_hollow():
    marks = (
        Mark("smallest", "a", 100, "sample", "acc", 0.05, "", "", "", ""),
        Mark("published", "a", 100, "sample", "acc", 0.01, UNTOLD, "x", "y", ""),
        Mark("ours", "a", 100, "sample", "acc", 0.02, "separated", "x", "y", ""),
        Mark("smallest", "b", 100, "sample", "acc", math.nan, "", "", "", ""),
    )
    picture = plot(Frame("deciding", marks, "", x="n", y="d"))
    _, printed, ours = picture.panels[0].traces
    red = SERIES[COLOURS.index("#D55E00")]
    assert printed["marker"] == {"color": [red], "symbol": ["diamond-open"], "size": 6, "line": {"width": 1}}  # fmt: skip
    assert ours["marker"]["symbol"] == ["circle"]
    shades = [shape for shape in picture.panels[0].layout["shapes"] if shape["type"] == "rect"]
    assert len(shades) == 2
    assert shades[0]["x1"] < shades[1]["x0"]  # of as many units, beside each other


def test_each_sample_is_a_point_below_those_of_rarer_classes():
    spots = [Spot("p", i, -i, "ab"[i > 3], f"id{i}", "d", "test", "e", 0, "cls", "pca", 0.5, 0.2) for i in range(6)]  # fmt: skip
    picture = plot(Frame("scatter", tuple(spots), "", x="1", y="2"))
    assert [trace["x"] for trace in picture.panels[0].traces] == [[0, 1, 2, 3], [4, 5]]
    assert [key.label for key in picture.keys] == ["a, n 4", "b, n 2"]


def test_a_picture_holds_so_many_panels_and_says_of_how_many():
    rows = [of for k in range(MOST_PANELS + 1) for of in kinds(("linear",), ("vit",), dataset=f"toys{k}", n=20)]  # fmt: skip
    picture = plot(make("confusion", asked_of(rows)))
    assert len(picture.panels) == MOST_PANELS
    assert picture.said.startswith(f"The first {MOST_PANELS} of {MOST_PANELS + 1} panels")


def test_28_series_look_different():
    found = looks(map(str, range(28)))
    assert len({(of.colour, of.marker, of.dash) for of in found.values()}) == 28


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("short", ["short"]),
        ("two words here", ["two words", "here"]),
        ("a" * 12, ["aaaaaaaaaa", "aa"]),
        ("vit_small_patch14", ["vit_small_", "patch14"]),
        ("<b>", ["&lt;b&gt;"]),
        ("$x$", ["&#36;x&#36;"]),
    ],
)
def test_text_beside_an_axis_is_broken_and_means_nothing_to_plotly(text, lines):
    assert wrapped(text, 10).split("<br>") == lines


def test_gaps_are_null():
    rows = layered(layers=range(3), pools=("cls",), models=("vit",))
    frame = make("layers", asked_of(rows))
    points = tuple(
        mark if mark.x else type(mark)(**{**vars(mark), "value": math.nan}) for mark in frame.points
    )
    picture = plot(Frame(frame.shape, points, "", x=frame.x, y=frame.y))
    assert picture.panels[0].traces[0]["y"][0] is None
    assert len(labels_of()) == frame.points[0].n
