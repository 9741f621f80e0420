"""Frames: their numbers are those of rows, of the tables and of the metrics; what can't be drawn is said."""

import csv
import dataclasses
import io
import math

import numpy as np
import pytest
from contending import answer, labels_of, scores_of
from drawing import NAMES, asked_of, few_shot, kinds, layered, priced, tempered, tuned
from golden import make_toy
from probing import answered

from cache.errors import RequestError
from probe.report.figures import catalogue, palette
from probe.report.figures.dots import Dot, room_of
from probe.report.figures.frame import Frame
from probe.report.figures.names import names_of
from probe.report.findings.deciding import Asked, choose, from_rows
from probe.report.findings.standing import stand
from probe.report.formats.write import write
from probe.report.pages.sensitivity import page_of_sensitivity
from probe.report.pages.subgroups import page_of_subgroups
from probe.report.rows.answers import test_sets
from probe.report.rows.contenders import contenders_of
from probe.report.rows.people import People
from probe.report.rows.stored import read_stored, stored_files
from probe.report.statistics.bands import parse_by


def value_of(row, metric="auc"):
    found = row.row.measured.test[metric]
    return pytest.approx((found.value, found.low, found.high), nan_ok=True)


def test_a_layer_curve_is_the_rows_numbers_and_rings_what_was_chosen():
    rows = layered(range(4))
    chosen = layered((2,), ("mean",), ("vit",), place_chosen={"among": [[1, "mean"], [2, "mean"]]})
    frame = catalogue.make("layers", asked_of(rows + chosen))
    by_place = {
        (r.row.encoded.model, r.row.answered.settings["pool"], r.row.answered.settings["layer"]): r
        for r in rows
    }
    assert len(frame.points) == len(rows)
    for mark in frame.points:
        model = "vit" if "vit" in mark.panel else "lite"
        row = by_place[model, mark.line, int(mark.x)]
        assert (mark.value, mark.low, mark.high) == value_of(row)
        assert (mark.of, mark.n, mark.bar) == ("test", 120, "95 % interval")
        assert mark.chosen == (model == "vit" and mark.line == "mean" and mark.x == 2)
    assert "No row chose a layer" not in frame.caption


def test_layers_whose_test_wasnt_read_have_vals_numbers(places, capsys):
    make_toy(places[0], "toys", "binary-class", seed=1, n=(120, 60, 60), patients=True)
    answered(capsys, "--kind linear --data toys --layer all --pool mean")
    rows, _ = read_stored(places[1], stored_files(places[1]))
    asked = asked_of(rows, people=People(places[0]))
    marks = catalogue.make("layers", asked).points
    stored = {of.row.answered.settings["layer"]: of.row.measured.val["auc"] for of in rows}
    assert {mark.x: mark.value for mark in marks} == stored
    folds = "train and val, out of fold"  # val is small, so that folds decide
    assert all(mark.of == folds and mark.panel.endswith(f"({folds})") for mark in marks)
    assert {(mark.n, mark.n_patients) for mark in marks} == {(180, 90)}
    assert all(mark.low < mark.value < mark.high for mark in marks)


def test_a_cnns_last_layer_with_its_own_pool_is_a_point_and_can_be_ringed():
    head = layered((4,), ("head",), ("lite",))
    chosen = layered((4,), ("head",), ("lite",), place_chosen={"among": [[3, "mean"], [4, "head"]]})
    frame = catalogue.make("layers", asked_of(layered(range(4), ("mean",)) + head + chosen))
    assert [(m.x, m.chosen) for m in frame.points if m.line == "head"] == [(4, True)]
    assert not frame.notes
    alone = layered((3,), ("cls",), ("small",))
    frame = catalogue.make("layers", asked_of(layered() + alone))
    assert frame.notes == ("Left out: small, with fewer than 3 numbers on this axis",)


@pytest.mark.parametrize(
    ("which", "label", "panels"),
    [
        ((0, 0), "labelled images of each class", {"toys, linear"}),
        ((1, 1), "labelled patients of each class, with all their images", {"toys, linear"}),
        (
            (0, 1),
            "labelled images, or patients, of each class",
            {"toys, linear (shots are images)", "toys, linear (shots are patients)"},
        ),
    ],
)
def test_shots_are_patients_where_rows_say_so(which, label, panels):
    rows = []
    for model, is_patients in zip(NAMES, which, strict=False):
        marks = ("shots are patients, with all their images",) * is_patients
        for of in few_shot(models=(model,)):
            rows.append(dataclasses.replace(of, row=dataclasses.replace(of.row, marks=marks)))
    frame = catalogue.make("shots", asked_of(rows))
    assert (frame.x, {mark.panel for mark in frame.points}) == (label, panels)


def test_few_shot_curves_are_the_rows_numbers():
    rows = few_shot()
    frame = catalogue.make("shots", asked_of(rows))
    expected = {(r.row.encoded.model, r.row.answered.shots): r for r in rows}
    for mark in frame.points:
        row = expected.pop((mark.line.partition(",")[0], int(mark.x)))
        assert (mark.value, mark.low, mark.high) == value_of(row)
    assert not expected
    assert frame.caption.startswith("Means over 3 episodes.")


def test_sizes_are_of_one_encoder_asked_alike():
    rows = [of for size in (112, 224) for of in layered((3,), ("cls",), size=size)]
    frame = catalogue.make("sizes", asked_of(rows))
    assert [(mark.line, mark.x) for mark in frame.points] == [
        *(("lite", 112.0), ("lite", 224.0), ("vit", 112.0), ("vit", 224.0)),
    ]


@pytest.mark.parametrize("protocol", ["", "wu2025"])
@pytest.mark.parametrize(
    ("name", "across", "values", "is_log"),
    [
        ("encoder_lr", "encoder-lr", (1e-5, 1e-4, 1e-3), True),
        ("freeze_until", "freeze-until", (0, 3, 9), False),
        ("cut_after", "probe.cut_after", (2, 5, 11), False),
    ],
)
def test_curves_go_along_any_number(name, across, values, is_log, protocol):
    rows = tuned(name, values, protocol=protocol)
    frame = catalogue.make("curves", asked_of(rows, across=across))
    expected = {
        (r.row.encoded.model, value): r
        for r, value in zip(rows, (v for v in values for _ in range(2)), strict=True)
    }
    assert len({mark.panel for mark in frame.points}) == 1
    assert frame.is_log == is_log
    for mark in frame.points:
        row = expected.pop((mark.line.partition(",")[0], mark.x))
        assert (mark.value, mark.low, mark.high) == value_of(row)
    assert not expected


def test_curves_of_a_figure_are_that_figure():
    asked = asked_of(few_shot(), across="shots")
    assert catalogue.make("curves", asked) == catalogue.make("shots", asked)


def test_calibration_is_that_of_the_answers():
    rows = kinds(("linear",), n_classes=3, n=300) + kinds(("ridge",), models=("other",))
    margins = rows[-1].row
    rows[-1] = dataclasses.replace(
        rows[-1],
        row=dataclasses.replace(
            margins,
            answered=dataclasses.replace(margins.answered, score_type="margin"),
        ),
    )
    frame = catalogue.make("calibration", asked_of(rows))
    assert frame.notes == ("Left out: 1 answer: its scores are no probabilities",)
    for row in rows[:-1]:
        own = [dot for dot in frame.points if dot.of.startswith(f"{row.row.encoded.model},")]
        assert len(own) == 6
        for dot in own:
            c = int(dot.name.removeprefix("class "))
            p = row.row.scores["test_scores"][:, c]
            truth = row.row.scores["test_labels"] == c
            logit = np.log(p / (1 - p))
            assert dot.low < dot.value < dot.high
            assert dot.perfect == (dot.metric == "slope")
            if dot.metric == "intercept":  # the mean answer is then the share of the class
                moved = 1 / (1 + np.exp(-(logit + dot.value)))
                assert moved.mean() == pytest.approx(truth.mean())
            else:
                assert dot.value == pytest.approx(_slope(logit, truth), abs=2e-3)


def _slope(logit, truth):
    """The likeliest slope of a grid; the intercept of each by halving."""
    slopes = np.linspace(0.2, 3, 1401)[:, None]
    low, high = np.full_like(slopes, -9.0), np.full_like(slopes, 9.0)
    for _ in range(40):
        middle = (low + high) / 2
        means = (1 / (1 + np.exp(-(middle + slopes * logit)))).mean(axis=1, keepdims=True)
        low, high = np.where(means < truth.mean(), [middle, high], [low, middle])
    z = low + slopes * logit
    return float(slopes[np.logaddexp(0, np.where(truth, -z, z)).sum(axis=1).argmin()][0])


def test_a_confusion_matrix_holds_accuracy_and_recalls():
    rows = kinds(("linear",), n_classes=3)
    cells = catalogue.make("confusion", asked_of(rows)).points
    dots = catalogue.make("recall", asked_of(rows)).points
    for row in rows:
        model, scores = row.row.encoded.model, row.row.scores
        own = [cell for cell in cells if f" {model}," in cell.panel]
        right = [cell for cell in own if cell.true == cell.answered]
        assert sum(cell.n for cell in own) == 120
        assert sum(cell.n for cell in right) / 120 == row.row.measured.test["acc"].value
        recalls = row.row.measured.per_class["recall"]
        assert [cell.value for cell in right] == pytest.approx(recalls)
        of = [dot for dot in dots if dot.of.startswith(f"{model},")]
        assert [dot.value for dot in of] == pytest.approx(recalls)
        assert [dot.n for dot in of] == np.bincount(scores["test_labels"]).tolist()
        assert all(dot.low < dot.value < dot.high for dot in of)


def dot(value, low, high, perfect=1.0):
    return Dot(
        "toys: slope", "class 1", f"{value}", "slope", value, low, high, 9, 9, "sample", perfect
    )


@pytest.mark.parametrize(
    ("dots", "room"),
    [
        ([dot(0.9, 0.5, 1.2), dot(1.2, 0.2, 2.0)], None),
        ([dot(36, -100, 200)], None),  # alone it has the room
        ([dot(0.9, 0.0, 2.0), dot(0.8, 0.5, 2.0), dot(36, -100, 200)], (-1.0, 3.0)),
        ([dot(0.9, 0.5, 1.5), dot(0.8, 0.5, 1.5), dot(-90, math.nan, math.nan)], (0.0, 1.55)),
        ([dot(0.9, 0.5, 1.5, math.nan), dot(36, -100, 200, math.nan)], None),
    ],
)
def test_few_leave_others_room(dots, room):
    found = room_of(dots)
    assert found == (room and pytest.approx(room))


def test_reliability_is_that_of_the_calibration_error():
    rows = tempered(kinds(("linear",), n_classes=3))
    frame = catalogue.make("reliability", asked_of(rows))
    for row in rows:
        for of, metric in (("as answered", "ece"), ("after temperature", "ece_tempered")):
            bins = [
                b for b in frame.points if f" {row.row.encoded.model}," in b.panel and b.of == of
            ]
            assert sum(b.n for b in bins) == 120
            by_bins = sum(b.n * abs(b.right - b.confidence) for b in bins) / 120
            expected = row.row.measured.test[metric].value
            assert by_bins == pytest.approx(expected)
            assert bins[0].error == pytest.approx(expected)
            assert all(b.above < b.confidence <= b.to + 1e-9 for b in bins)


def test_bars_that_arent_drawn_are_not_said(places, capsys):
    assert "Bars: 95 %" in catalogue.make("reliability", asked_of(kinds())).caption
    make_toy(places[0], "toys", "binary-class", seed=1, n=(120, 60, 60), patients=True)
    answered(capsys, "--kind linear --data toys --pool mean")
    rows, _ = read_stored(places[1], stored_files(places[1]))
    frame = catalogue.make("reliability", asked_of(rows, people=People(places[0])))
    assert "No bars: patients have several samples" in frame.caption
    assert all(math.isnan(found.low) for found in frame.points)


def test_subgroups_are_those_of_the_table(places, capsys):
    make_toy(places[0], "toys", "binary-class", seed=1, n=(120, 60, 240), patients=True)
    answered(capsys, "--kind linear --data toys")
    rows, _ = read_stored(places[1], stored_files(places[1]))
    people, by = People(places[0]), parse_by("meta:site")
    frame = catalogue.make("subgroups", asked_of(rows, by=by, people=people))
    table = page_of_subgroups(rows, by, people, ["auc"]).tables[1]
    cells = [(row[-2].text, row[-1].value, row[-1].low, row[-1].high) for row in table.rows]
    assert [(dot.name, dot.value, dot.low, dot.high) for dot in frame.points] == cells
    assert {(dot.n, dot.n_units, dot.unit) for dot in frame.points} == {(80, 40, "patient")}


def test_ranks_are_those_of_the_page():
    asked = asked_of(kinds())
    found = catalogue.make("ranks", asked).points
    table = page_of_sensitivity(asked.contenders, ["auc"], asked.people).tables[0]
    for row in table.rows:
        own = [(r.value, r.rank, r.low, r.high) for r in found if r.model == row[0].text]
        pairs = zip(row[1::2], row[2::2], strict=True)
        assert own == [(v.value, rank.value, rank.low, rank.high) for v, rank in pairs]


@pytest.mark.parametrize("metric", ["auc", "brier"])
def test_cost_is_that_of_rows_and_joins_what_none_beats(metric):
    rows = priced(kinds(("linear",), models=[f"m{i}" for i in range(8)]))
    spots = catalogue.make("cost", asked_of(rows, metric)).points
    assert len({spot.panel for spot in spots}) == 4
    by_model = {r.row.encoded.model: r.row for r in rows}
    sign = -1 if metric == "brier" else 1
    for what, name, less in (
        ("images_per_second", "images_per_second", -1),
        ("inference_seconds", "inference_seconds_per_image", 1),
        ("parameters", "parameters", 1),
        ("bytes", "bytes_per_image", 1),
    ):
        points = {
            m: (sign * row.measured.test[metric].value, less * getattr(row.cost, name))
            for m, row in by_model.items()
        }
        own = [spot for spot in spots if spot.what == what]
        assert len(own) == 8
        for spot in own:
            value, x = points[spot.name]
            assert (sign * spot.value, less * spot.x) == (value, x)
            better = [
                m
                for m, (v, takes) in points.items()
                if v >= value and takes <= x and (v, takes) != (value, x)
            ]
            assert spot.is_undominated == (not better)
        assert 0 < sum(spot.is_undominated for spot in own) < 8


def test_times_of_two_devices_stand_apart_and_old_rows_are_named():
    rows = kinds(("linear",), [f"encoder {i}" for i in range(5)])
    known = [*priced(rows[:2], "cpu"), *priced(rows[2:4])]
    frame = catalogue.make("cost", asked_of([*known, rows[4]]))
    panels = {spot.panel for spot in frame.points if spot.what == "images_per_second"}
    assert panels == {
        "toys, linear: images/s of extraction, cpu",
        "toys, linear: images/s of extraction, cuda (one)",
    }
    assert frame.notes == ("Left out: 1 answer that doesn't know what it takes",)


def over_sets(n_sets, models=NAMES, n=120):
    """Rows of several data sets, the first encoder far better on the last of them."""
    rows = []
    for k in range(n_sets):
        labels = labels_of(n)
        for i, model in enumerate(models):
            skill = 4.0 if (i, k) == (0, n_sets - 1) else 1 + 0.1 * i
            rows.append(
                answer(model, scores_of(labels, skill, 9 * k + i), labels, dataset=f"set{k}")
            )
    return rows


@pytest.mark.parametrize("metric", ["auc", "brier"])
def test_a_matrix_holds_differences_and_the_tests_of_each_set(metric):
    rows = over_sets(3)
    asked = asked_of(rows, metric)
    frame = catalogue.make("matrix", asked)
    sign = -1 if metric == "brier" else 1
    value = {
        (r.row.encoded.model, r.row.encoded.dataset): sign * r.row.measured.test[metric].value
        for r in rows
    }
    above = {}
    for k in range(3):
        of_set = [c for c in asked.contenders if c.dataset == f"set{k}"]
        family = stand(test_sets(of_set, asked.people), metric)
        above |= {
            (f"set{k}", a.model, b.model): bool(family.above[i, j])
            for i, a in enumerate(of_set)
            for j, b in enumerate(of_set)
        }
    assert any(above.values())
    assert len(frame.points) == 9
    for pair in frame.points:
        a, b = pair.row.partition("\n")[0], pair.column
        sets = [f"set{k}" for k in range(3)]
        if a == b:
            assert math.isnan(pair.value)
            continue
        assert pair.value == pytest.approx(np.mean([value[a, s] - value[b, s] for s in sets]))
        assert pair.above == sum(above[s, a, b] for s in sets)
        assert pair.below == sum(above[s, b, a] for s in sets)
        assert pair.open == 3 - pair.above - pair.below
        assert pair.more == f"{pair.above}/{pair.open}/{pair.below}"
    means = {m: sign * np.mean([value[m, f"set{k}"] for k in range(3)]) for m in NAMES}
    order = sorted(NAMES, key=lambda m: -sign * means[m])
    names = list(dict.fromkeys(pair.row for pair in frame.points))
    assert names == [f"{m}\n{means[m]:.3f}" for m in order]


def test_a_matrix_takes_sets_that_both_have():
    rows = [
        r for r in over_sets(3) if (r.row.encoded.model, r.row.encoded.dataset) != ("vit", "set1")
    ]
    pairs = catalogue.make("matrix", asked_of(rows)).points
    n = {(p.row.partition("\n")[0], p.column): p.n_sets for p in pairs}
    assert n["vit", "lite"] == n["lite", "vit"] == 2
    assert n["lite", NAMES[2]] == 3


@pytest.mark.parametrize("metric", ["acc", "auc"])
def test_what_a_set_decides_is_that_of_decide_and_leads_are_differences(metric):
    asked = asked_of(kinds(("linear", "knn"), n=200), metric)
    frame = catalogue.make("deciding", asked)
    chosen = choose("toys", asked.contenders)
    shown = from_rows("toys", chosen, asked.people, Asked())
    [smallest] = [mark for mark in frame.points if mark.what == "smallest"]
    [expected] = [of.decision.smallest for of in shown if of.decision.metric == metric]
    assert smallest.value == expected
    leads = [mark for mark in frame.points if mark.what == "ours"]
    for kind in ("linear", "knn"):
        values = sorted(
            of.row.measured.test[metric].value for of in asked.rows if of.row.answered.kind == kind
        )
        [lead] = [mark for mark in leads if mark.how.startswith(kind)]
        assert lead.value == pytest.approx(values[-1] - values[-2])
    below = sum(mark.value < smallest.value for mark in leads)
    assert f"{below} of 2 lie in the shade" in frame.caption
    assert any(mark.what == "published" for mark in frame.points) == (metric == "acc")


def test_costs_of_most_encoders_come_first_and_of_one_alone_or_another_k_are_not_drawn():
    rows = priced(kinds(("ridge",), NAMES[:1]) + kinds(("linear",), NAMES[:2]))
    for k in (20, 100):
        rows += priced(kinds(("knn",), k=k))
    frame = catalogue.make("cost", asked_of(rows))
    panels = list(dict.fromkeys(spot.panel.partition(":")[0] for spot in frame.points))
    assert panels == ["toys, knn, k 20", "toys, linear"]
    assert frame.notes == (
        "Left out: the same encoders asked by another k; `--where k=N` shows one",
    )
    with pytest.raises(RequestError, match="two encoders that were asked alike"):
        catalogue.make("cost", asked_of(rows[:1]))


def test_panels_of_cost_say_what_differs_within_a_data_set_alone():
    rows = [*kinds(("linear",)), *kinds(("linear",), dataset="volumes", aggregate="mean")]
    frame = catalogue.make("cost", asked_of(priced(rows)))
    assert {s.panel.partition(":")[0] for s in frame.points} == {"toys, linear", "volumes, linear"}


@pytest.mark.parametrize("name", ["matrix", "cost", "recall", "calibration", "ranks"])
def test_rows_that_measure_patients_have_panels_of_their_own(name):
    """Also where both differ from the first in their kind, which is said of others alone."""
    tuned_ones = kinds(("finetune",), mode="full") if name != "ranks" else []
    images = priced(tuned_ones + kinds(("linear", "knn")))
    patients = priced(kinds(("linear", "knn"), scores_of="patients"))
    frame = catalogue.make(name, asked_of(images + patients))
    alone = catalogue.make(name, asked_of(images))
    mine = {p.panel for p in frame.points if "patients" in p.panel}
    assert mine
    assert {p.panel for p in alone.points} == {p.panel for p in frame.points} - mine
    assert {getattr(p, "unit", "patient") for p in frame.points if p.panel in mine} == {"patient"}


def test_ranks_of_other_labels_have_panels_of_their_own():
    rows = [of for n in (1, 8, 9) for of in kinds(samples={"labels": n, "split": 2})]
    panels = {rank.panel for rank in catalogue.make("ranks", asked_of(rows)).points}
    other = "toys, other labels of toys"
    assert panels == {"toys", other, f"{other}; no. 2"}


def test_two_points_in_one_place_are_refused():
    frame = catalogue.make("layers", asked_of(layered()))
    with pytest.raises(RequestError, match="2 numbers of one name"):
        dataclasses.replace(frame, points=(*frame.points, frame.points[0]))


def test_rows_of_one_question_are_numbered():
    rows = kinds(("linear",), models=("lite",))
    assert names_of(contenders_of([*rows, *rows])) == [
        "toys, lite, linear",
        "toys, lite, linear (2)",
    ]


def test_equal_encoders_are_not_separated():
    labels_alike = kinds(("linear",), models=("a",), n=200)
    twin = dataclasses.replace(
        labels_alike[0],
        row=dataclasses.replace(
            labels_alike[0].row,
            encoded=dataclasses.replace(labels_alike[0].row.encoded, model="b", digest="b" * 64),
        ),
    )
    frame = catalogue.make("deciding", asked_of([*labels_alike, twin]))
    [lead] = [mark for mark in frame.points if mark.what == "ours"]
    assert (lead.value, lead.verdict) == (0, "not separated")


def test_a_frame_is_written_as_csv_with_what_is_known():
    frame = catalogue.make("layers", asked_of(layered()))
    lines = list(csv.DictReader(io.StringIO(write(frame.page(), "csv"))))
    assert len(lines) == len(frame.points)
    for line, mark in zip(lines, frame.points, strict=True):
        assert float(line["value"]) == mark.value
        assert (line["panel"], line["chosen"]) == (mark.panel, "no")
    assert lines[0]["about"].startswith(frame.caption)


def test_what_isnt_known_is_empty():
    frame = catalogue.make("layers", asked_of(layered()))
    bare = dataclasses.replace(frame.points[0], low=math.nan)
    lines = csv.DictReader(
        io.StringIO(write(Frame("curves", (bare, frame.points[1]), "").page(), "csv"))
    )
    assert [line["low"] == "" for line in lines] == [True, False]


NEEDS = {
    "layers": ("three layers of one encoder", "probe --kind linear --layer all"),
    "shots": ("two numbers of shots", "probe --kind linear --shots 1,5,10,25"),
    "sizes": ("one encoder at two sizes", "extract --size 112,224"),
    "cost": ("rows that know what encoders take", "extract --overwrite"),
    "matrix": ("two encoders", "probe --kind linear --model A,B"),
    "curves": ("along what?", "--across FIELD"),
    "ranks": ("two probes", "probe --kind linear --layer auto"),
    "subgroups": ("of what?", "--by meta:COLUMN"),
}


@pytest.mark.parametrize("name", NEEDS)
def test_what_is_needed_and_makes_it_is_said(name):
    rows = kinds(("linear",), models=("lite",))
    with pytest.raises(RequestError) as found:
        catalogue.make(name, asked_of(rows))
    assert all(words in str(found.value) for words in NEEDS[name])


@pytest.mark.parametrize("name", ["confusion", "recall", "reliability"])
def test_few_shot_rows_are_no_single_answers(name):
    with pytest.raises(RequestError, match="few-shot episodes are no single answers"):
        catalogue.make(name, asked_of(few_shot()))


def test_commands_that_fill_gaps_stand_by_themselves():
    rows = [
        of
        for of in kinds()
        if not (of.row.encoded.model == "vit" and of.row.answered.kind == "knn")
    ]
    frame = catalogue.make("ranks", asked_of(rows))
    assert frame.commands
    assert all(line.startswith("probe --kind") for line in frame.commands)
    assert not any("probe --kind" in text for text in (frame.caption, *frame.notes))
    assert frame.missing.startswith(f"{len(frame.commands)} command")
    assert frame.page().notes[-1] == frame.commands[-1]
    complete = dataclasses.replace(frame, commands=())
    assert complete.missing == ""


def test_what_is_left_out_is_named():
    frame = catalogue.make("confusion", asked_of(kinds(("linear",)) + few_shot()))
    assert frame.notes == (
        "Left out: 9 answers: means over few-shot episodes are no single answers",
    )
    assert len(contenders_of(kinds(("linear",)))) == 3


@pytest.mark.parametrize("ramp", [palette.SEQUENTIAL, palette.DIVERGING])
def test_equal_steps_of_a_ramp_look_equal(ramp):
    colours = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in ramp])
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    # To Oklab, by the two matrices of its author.
    cones = linear @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    lab = np.cbrt(cones) @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )
    steps = np.linalg.norm(np.diff(lab, axis=0), axis=1)
    assert steps == pytest.approx(steps.mean(), rel=0.05)
    falls = np.diff(lab[:, 0])
    middle = len(falls) // 2
    assert (falls < 0).all() or ((falls[:middle] > 0).all() and (falls[middle:] < 0).all())


@pytest.mark.parametrize("figure", ["confusion", "recall"])
def test_classes_of_one_name_are_refused_in_words(figure):
    rows = [
        dataclasses.replace(of, row=dataclasses.replace(of.row, scores={**of.row.scores, "class_names": np.array(["one", "one", "c"])}))
        for of in kinds(n_classes=3)
    ]  # fmt: skip
    with pytest.raises(RequestError, match="one.*can't be told apart"):
        catalogue.make(figure, asked_of(rows))
