"""The figure of attention: where fused probes look, and what can't be drawn is said."""

import csv
import dataclasses

import numpy as np
import pytest
from drawing import asked_of, check_texts, kinds
from fusing import attention_of, fused, places_of
from reporting import answered, refused
from studying import study_of

from cache.errors import RequestError
from probe.places import Place
from probe.report.figures.catalogue import draw, make, plot
from probe.report.figures.heat import groups_of, short_names
from probe.report.study.parts import Figure
from probe.results import write_row

TWO = (*places_of(3), *places_of(2, ("mean",), file=1))


def frame_of(rows, by_class=False):
    return make("attention", dataclasses.replace(asked_of(rows), by_class=by_class))


def values_of(frame, row):
    return {(t.encoder, t.layer, t.pool): t.value for t in frame.points if t.row.startswith(row)}


def test_trainings_of_a_question_are_a_line_of_means_in_the_order_of_places():
    places = [places_of(4)[i] for i in np.random.default_rng(0).permutation(8)]
    rows = [fused(places=places, seed=seed, dataset=d) for d in ("a", "b") for seed in range(3)]
    frame = frame_of(rows)
    stored = np.stack([of.row.scores["attention"] for of in rows[:3]])
    means = {("vit", p.layer, p.pool): stored[:, t].mean() for t, p in enumerate(places)}
    assert values_of(frame, "a") == pytest.approx(means)
    sd = {(p.layer, p.pool): stored[:, t].std(ddof=1) for t, p in enumerate(places)}
    for tile in frame.points:
        assert tile.sd == pytest.approx(sd[tile.layer, tile.pool])
        assert (tile.n_averaged, tile.uniform, tile.n) == (3, 1 / 8, 120)
    assert short_names(frame.points) == [*"01230123"]
    assert [(g.name, g.first, g.last) for g in groups_of(frame.points)] == [
        *(("cls", 0, 3), ("mean", 4, 7)),
    ]
    assert [*dict.fromkeys((t.panel, t.row) for t in frame.points)] == [
        *(("vit, 8 places", f"{name}, n\N{NO-BREAK SPACE}120") for name in "ab"),
    ]
    assert f"{100 * max(t.sd for t in frame.points):.1f} points at most" in frame.caption
    assert "gives each 1/8 (12.5 %)" in frame.caption
    assert frame.scale.marks == (1 / 8,)
    assert (
        max(t.value for t in frame.points)
        <= frame.scale.high
        < 0.02 + max(t.value for t in frame.points)
    )
    assert not frame.notes


def test_lines_of_one_training_and_of_several_say_so():
    rows = [fused(seed=seed, places=places_of(3), dataset="a") for seed in range(3)]
    frame = frame_of([*rows, fused(places=places_of(2), dataset="b"), *kinds()])
    ends = {t.row.rpartition(", ")[2] for t in frame.points}
    assert ends == {"3 trainings", "1 training"}
    assert "points at most; of one nobody knows it" in frame.caption
    assert frame.counted == "4 rows"
    assert frame.scale.label == "attention; lines, from the left, at 1/6, 1/4: no preference"


def test_encoders_side_by_side_are_blocks_with_their_names():
    rows = [fused("vit+cnn", TWO[::-1], encoders=("vit", "cnn"))]
    frame = frame_of(rows)
    assert [g.name for g in groups_of(frame.points)] == ["vit, cls", "vit, mean", "cnn, mean"]
    stored = dict(zip(TWO[::-1], rows[0].row.scores["attention"], strict=True))
    expected = {(("vit", "cnn")[p.file], p.layer, p.pool): value for p, value in stored.items()}
    assert values_of(frame, "toys") == pytest.approx(expected)
    assert "Of one training: another may look elsewhere." in frame.caption


def test_encoders_of_one_name_are_told_by_their_size():
    (of,) = [fused("vit+vit", TWO, encoders=("vit", "vit"))]
    small, large = of.row.encoded.joined
    joined = (small, dataclasses.replace(large, size=448))
    encoded = dataclasses.replace(of.row.encoded, joined=joined)
    of = dataclasses.replace(of, row=dataclasses.replace(of.row, encoded=encoded))
    points = frame_of([of]).points
    assert {t.encoder for t in points} == {"vit 224 px", "vit 448 px"}
    assert {t.panel for t in points} == {"vit 224 px+vit 448 px, 8 places"}


@pytest.mark.parametrize(
    ("rows", "panels"),
    [
        ([("vit", 3, "a"), ("dino", 3, "a")], {"a, 6 places": ["vit", "dino"]}),
        ([("vit", 3, "a"), ("dino", 3, "b")], {"6 places": ["a, vit", "b, dino"]}),
        ([("vit", 3, "a"), ("big", 5, "a")], {"vit, 6 places": ["a"], "big, 10 places": ["a"]}),
    ],
)
def test_only_encoders_of_one_depth_share_columns(rows, panels):
    frame = frame_of([fused(m, places_of(n), dataset=d) for m, n, d in rows])
    found = {}
    for tile in frame.points:
        found.setdefault(tile.panel, {})[tile.row.rpartition(", n")[0]] = None
    assert {panel: list(names) for panel, names in found.items()} == panels
    depths = {n for _, n, _ in rows}
    assert ("to be compared within a matrix" in frame.caption) == (len(depths) > 1)


def test_other_layers_of_as_many_are_another_matrix():
    halves = [[Place(n, "cls") for n in (first, first + 6)] for first in (0, 3)]
    frame = frame_of([fused(places=half) for half in halves])
    assert [*dict.fromkeys(t.panel for t in frame.points)] == ["vit, 2 places", "vit, 2 places (2)"]


def test_classes_are_lines_and_one_without_images_is_grey():
    attention = attention_of(6, n_classes=3)
    rows = [fused(places=places_of(3), n_classes=3, seed=s, attention=attention) for s in (0, 1)]
    frame = frame_of(rows, by_class=True)
    for c in range(3):
        found = [t.value for t in frame.points if t.row == f"class {c}, n\N{NO-BREAK SPACE}40"]
        assert found == pytest.approx([*attention[c, ::2], *attention[c, 1::2]])
    attention[1] = np.nan
    frame = frame_of([fused(places=places_of(3), n_classes=3, attention=attention)], True)
    unknown = [t for t in frame.points if t.n_averaged == 0]
    assert {t.row for t in unknown} == {"class 1, n\N{NO-BREAK SPACE}40"}
    assert all(np.isnan(t.value) and t.text == "" for t in unknown)
    assert "Grey: no test sample is of this class." in frame.caption


def test_folds_are_averaged_and_their_images_counted_together():
    rule = {"rule": "kfold", "seed": 0, "of": 2}
    rows = [fused(split={**rule, "name": f"fold {i}/2"}, places=places_of(2)) for i in (1, 2)]
    frame = frame_of(rows)
    assert {(t.n, t.n_averaged) for t in frame.points} == {(240, 2)}
    assert "Means of 2 folds and trainings" in frame.caption


def changed(**arrays):
    of = fused(places=places_of(2), seed=1)
    scores = {n: v for n, v in {**of.row.scores, **arrays}.items() if v is not None}
    return dataclasses.replace(of, row=dataclasses.replace(of.row, scores=scores))


LACKING, FOREIGN = "it holds no attention", "isn't one of the layers and pools"


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"attention": None}, LACKING),
        ({"attention": np.full(5, 0.2)}, FOREIGN),
        ({"attention": np.full(4, 0.5)}, FOREIGN),
        ({"attention": np.array([1.5, -0.5, 0, 0])}, FOREIGN),
        ({"attention": np.full(4, np.nan)}, FOREIGN),
        ({"attention": np.array(["a"] * 4)}, FOREIGN),
    ],
)
def test_rows_without_attention_are_named(arrays, why):
    frame = frame_of([changed(**arrays), fused(places=places_of(2), seed=2)])
    assert len(frame.notes) == 1
    assert frame.notes[0].startswith("Left out: 1 row: ")
    assert why in frame.notes[0]
    assert {t.n_averaged for t in frame.points} == {1}
    with pytest.raises(RequestError, match=f"probe --kind fusion.*Left out: 1 row: .*{why}"):
        frame_of([changed(**arrays)])


def test_rows_that_have_not_read_test_are_not_missed():
    of = fused()
    measured = dataclasses.replace(of.row.measured, test={})
    unread = dataclasses.replace(of, row=dataclasses.replace(of.row, measured=measured))
    assert frame_of([fused(dataset="other"), unread]).notes == ()


def test_other_kinds_have_none_and_another_column_is_refused():
    with pytest.raises(RequestError, match="it needs rows of fusion"):
        frame_of(kinds())
    frame = frame_of([*kinds(), fused()])
    assert not frame.notes
    assert {t.dataset for t in frame.points} == {"toys"}


DRAWN = {
    "data sets": [fused("vit", seed=s, dataset=d) for d in ("toys", "breastmnist") for s in (0, 1)],
    "depths": [fused("vit"), fused("a_long_name_of_an_encoder", places_of(5, ("mean",)))],
    "encoders": [fused("vit_small+efficientnet_b0", (*places_of(12), *places_of(5, ("mean", "head"), file=1)), encoders=("vit_small", "efficientnet_b0"))],
}  # fmt: skip


@pytest.mark.parametrize("width", ["one", "two"])
@pytest.mark.parametrize("name", DRAWN)
def test_no_text_is_cut_or_over_another(name, width):
    pytest.importorskip("matplotlib")
    from probe.report.figures.drawn.style import WIDTHS, styled

    with styled():
        figure = draw(frame_of(DRAWN[name]), WIDTHS[width])
        check_texts(figure)
    *matrices, bar = figure.axes
    assert len({axis.get_xlim() for axis in matrices}) == 1
    assert len(bar.lines) == (2 if name == "depths" else 1)


@pytest.mark.parametrize("name", DRAWN)
def test_the_page_has_a_bar_with_its_lines_and_groups_with_names(name):
    frame = frame_of(DRAWN[name])
    strip, *panels = plot(frame).panels
    assert [line["x0"] for line in strip.layout["shapes"]] == list(frame.scale.marks)
    assert strip.title == frame.scale.label
    for panel in panels:
        graph_objects = pytest.importorskip("plotly.graph_objects")
        graph_objects.Figure(data=list(panel.traces), layout=dict(panel.layout))
        tiles = [t for t in frame.points if t.panel == panel.title]
        groups = groups_of(tiles)
        assert [a["x"] for a in panel.layout["annotations"]] == [g.middle for g in groups]
        assert len(panel.layout["shapes"]) == len(groups) - 1
        assert panel.least == panel.width
        said = panel.traces[0]["hovertext"][0][0]
        assert f"{100 * tiles[0].value:.3g} %" in said


def test_the_command_and_the_page_have_it(places, capsys, tmp_path):
    rows = [fused(seed=seed, places=places_of(3)) for seed in (0, 1)]
    for of in rows:
        write_row(places[1], of.row)
    file = tmp_path / "attention.csv"
    answered(capsys, "figure", "attention", "--by", "class", "--csv", file)
    lines = list(csv.DictReader(file.read_text().splitlines()))
    assert [line["row"].partition(",")[0] for line in lines] == ["class 0"] * 6 + ["class 1"] * 6
    said = refused(capsys, "figure", "attention", "--by", "meta:sex", "--csv", file)
    assert "attention is kept of each class, --by class" in said
    study = study_of([*kinds(), *rows], tmp_path)
    drawn = [b for s in study.sections for b in s.blocks if isinstance(b, Figure)]
    assert [f.title for f in drawn if f.name == "attention"] == ["Where fused probes look"]
