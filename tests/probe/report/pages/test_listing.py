"""Tables of rows: what differs gets a column, what is the same stands once above."""

import dataclasses
import math
import re

import pytest
from answering import make_row
from reading import means_printed, printed, rows_printed
from reporting import answered, refused

from cache.errors import RequestError
from probe.cli import main as probe
from probe.metrics.intervals import Interval
from probe.report.formats.write import write
from probe.report.pages.listing import LEAKS, MOST_SETTINGS, WITHOUT, format_rows, page_of_rows
from probe.report.rows.comparable import NOT_TO_COMPARE
from probe.report.rows.stored import StoredRow
from probe.results import Answered, TrainedOn, write_row

NO_LEAKS = {"n": 5, "exact": 0, "near": 0, "groups": 0}
OTHER = TrainedOn("others", "e" * 64, {"labels": 1, "split": 2}, {}, {}, {})


def make(
    model="toy", kind="linear", *, dataset="toys", auc=0.8, marks=(), chosen=(), measured=(), **facts
):  # fmt: skip
    """A row; facts of the encoder and of what was posed by their names, all others are settings."""
    encoded = {n: facts.pop(n) for n in ("size", "key", "protocol", "samples") if n in facts}
    posed = {n: facts.pop(n) for n in ("target", "split", "trained_on", "leaks") if n in facts}
    row = make_row(kind, dataset, auc=auc, **facts)
    return dataclasses.replace(
        row,
        encoded=dataclasses.replace(row.encoded, model=model, encoder=f"{model}.full", **encoded),
        posed=dataclasses.replace(row.posed, **{"leaks": NO_LEAKS, **posed}),
        answered=Answered(row.answered.settings, {**row.answered.chosen, **dict(chosen)}),
        measured=dataclasses.replace(row.measured, **dict(measured)),
        marks=tuple(marks),
    )


def tables(rows, *columns, **named):
    return page_of_rows([StoredRow(row) for row in rows], columns, **named).tables


def table(rows, *columns, **named):
    (found,) = tables(rows, *columns, **named)
    return found


def headings(rows, *columns, **named):
    return [column.name for column in table(rows, *columns, **named).columns]


def texts(found, heading):
    """A column's cells, as they are shown."""
    place = [column.name for column in found.columns].index(heading)
    return [row[place].shown for row in found.rows]


FEW = {"shots": 5, "episodes": 3, "digest": "a", "images": 9}
DIFFERING = {  # heading -> two rows' facts, and what is shown of them
    "data": [{"dataset": "toys"}, {"dataset": "others"}, "toys", "others"],
    "size": [{"size": 32}, {"size": 224}, "32", "224"],
    "prepared": [{"protocol": "wu2025"}, {"protocol": "huix2024"}, "wu2025", "huix2024"],
    "kind": [{"kind": "knn"}, {"kind": "ridge"}, "knn", "ridge"],
    "mode": [{"mode": "full"}, {"mode": "head"}, "full", "head"],
    "layer": [{"layer": 3}, {"layer": 11}, "3", "11"],
    "pool": [{"pool": "cls"}, {"pool": "mean"}, "cls", "mean"],
    "layers": [{"n_last": 1}, {"n_last": 4}, "1", "4"],
    "aggregate": [{"aggregate": "mean"}, {"aggregate": "max"}, "mean", "max"],
    "measured": [{"scores_of": "patients"}, {"scores_of": "sites"}, "patients", "sites"],
    "shots": [{"few_shot": FEW}, {"few_shot": {**FEW, "shots": 10}}, "5", "10"],
    "k": [{"k": 5}, {"k": 20}, "5", "20"],
    "prompts": [{"text": {"n_prompts": 1}}, {"text": {"n_prompts": 7}}, "1", "7"],
    "target": [{"target": {"target": "sex"}}, {"target": {"target": "age"}}, "sex", "age"],
    "split": [{"split": {"rule": "test"}}, {"split": {"rule": "80/20"}}, "test", "80/20"],
    "trained on": [
        {"trained_on": OTHER}, {"trained_on": dataclasses.replace(OTHER, dataset="more")},
        "others", "more",
    ],
    "control": [{"control": "pixels"}, {"control": "noise"}, "pixels", "noise"],
    "leaks": [
        {"leaks": {**NO_LEAKS, "exact": 2}}, {"leaks": {**NO_LEAKS, "groups": 3}}, "2+0", "0 3p",
    ],
}  # fmt: skip


@pytest.mark.parametrize("heading", DIFFERING)
def test_what_differs_gets_a_column_and_what_is_the_same_stands_above(heading):
    first, other, shown, also_shown = DIFFERING[heading]
    same = table([make("a", **first), make("b", **first)])
    assert (heading, shown) in same.above
    assert heading not in {column.name for column in same.columns}
    differing = table([make("a", **first), make("b", **other)])
    assert texts(differing, heading) == [shown, also_shown]
    assert heading not in dict(differing.above)
    if heading not in ("data", "size", "kind", "layer", "pool", "leaks"):  # that each row has
        without = table([make("a"), make("b", **other)])
        assert texts(without, heading) == ["", also_shown]
        nothing = table([make("a"), make("b")])
        assert heading not in {*dict(nothing.above), *(c.name for c in nothing.columns)}


def test_the_model_is_always_a_column_of_one_row_too():
    (line,) = printed(format_rows([make()]))
    assert (line["model"], line["data"], line["auc [95 %]"]) == ("toy", "toys", "0.800 [- 0.900]")
    assert headings([make()])[0] == headings([make("a"), make("b")])[0] == "model"


def test_on_a_screen_numbers_stand_behind_who_answered():
    rows = [make(layer=layer, kind=kind, size=32) for layer in (3, 4) for kind in ("linear", "knn")]
    usual, wide = headings(rows), headings(rows, is_wide=True)
    assert usual[:3] == ["model", "kind", "layer"]
    assert wide[:4] == ["model", "kind", "acc [95 %]", "auc [95 %]"]
    assert wide.index("layer") > wide.index("auc [95 %]")
    assert sorted(wide) == sorted(usual)
    (one,) = page_of_rows([StoredRow(row) for row in rows], is_wide=True).tables
    assert [row[wide.index("layer")].text for row in one.rows] == ["3", "3", "4", "4"]


def weighing(model, digest, **facts):
    return make(model, key={"weights": f"sha256:{digest:0<64}"}, **facts)


def test_what_follows_from_the_model_is_no_column():
    assert "weights" not in headings([weighing("a", 1), weighing("b", 2)])
    twice = table([weighing("a", 1), weighing("a", 2), weighing("b", 3)])
    assert [word[:8] for word in texts(twice, "weights")] == ["sha256:1", "sha256:2", "sha256:3"]
    assert "size" in headings([make("a", size=32), make("b", size=224)])


@pytest.mark.parametrize("facts", [{"leaks": {**NO_LEAKS, "groups": None}}, {"leaks": NO_LEAKS}])
def test_nothing_is_said_of_no_leaks(facts):
    found = table([make("a", **facts), make("b")])
    assert "leaks" not in {*dict(found.above), *(column.name for column in found.columns)}
    assert LEAKS not in found.below


def test_leaks_are_explained_where_they_are_shown_and_w_o_where_it_is():
    leaking = [make(leaks={**NO_LEAKS, "exact": 1})]
    assert table(leaking).below == (LEAKS,)
    assert table(leaking, is_full=True).below == (LEAKS, WITHOUT)
    assert table(leaking, "model", "rest:acc").below == (WITHOUT,)


# ---------------------------------------------------------------------------- notes


def notes(found):
    place = [column.name for column in found.columns].index("note")
    return [row[place].notes for row in found.rows]


def test_notes_that_all_rows_share_stand_once_below_and_the_others_are_numbered():
    rows = [make("a", marks=["all", "first"]), make("b", marks=["all"]), make("c", marks=["all"])]
    found = table(rows)
    assert found.below == ("all",)
    assert notes(found) == [("first",), (), ()]
    text = format_rows(rows)
    assert [line.get("note") for line in printed(text)] == ["[1]", None, None]
    assert "\n\n[1] first" in text
    assert "note" not in headings(rows[1:])


def test_notes_that_differ_in_numbers_alone_are_one():
    marks = [f"k is {k} % of the {n} training images" for k, n in ((16, 624), (37, 546))]
    rows = [make("a", marks=[marks[0]]), make("b", marks=[marks[1]]), make("c")]
    wanted = "k is 16 to 37 % of the 546 to 624 training images"
    assert notes(table(rows)) == [(wanted,), (wanted,), ()]
    assert table(rows[:2]).below == (wanted,)  # which all rows share


def test_the_notes_of_one_row_are_numbered():
    assert notes(table([make(marks=["a", "b"])])) == [("a", "b")]


# ---------------------------------------------------------------------------- settings


def test_settings_tell_rows_apart_that_all_else_says_the_same_of():
    rows = [make(form="softmax"), make(form="ovr"), make(layer=5, solver="own")]
    assert texts(table(rows), "form") == ["softmax", "ovr", ""]
    assert "solver" not in headings(rows)  # its layer tells it from the others
    assert "form" not in headings([make("a", form="softmax"), make("b", form="ovr")])


def test_a_few_settings_are_shown_and_long_ones_are_cut():
    rows = [make(**{f"setting_{i}": f"{word}{'-' * 40}{i}" for i in range(9)}) for word in "xy"]
    shown = [name for name in headings(rows) if name.startswith("setting")]
    assert shown == [f"setting_{i}" for i in range(MOST_SETTINGS)]
    assert all(len(word) <= 24 for name in shown for word in texts(table(rows), name))


# ---------------------------------------------------------------------------- which columns


@pytest.mark.parametrize(
    ("columns", "wanted"),
    [
        (["auc", "model", "kind"], ["auc [95 %]", "model", "kind"]),
        (["data", "val:acc", "rest:acc", "sd:acc"], ["data", "val acc", "acc w/o", "acc sd"]),
        (["model", "probe.layer", "model"], ["model", "probe.layer"]),
        (["bal. acc", "n_test", "brier"], ["bal. acc [95 %]", "n_test", "brier"]),
    ],
)  # fmt: skip
def test_the_columns_that_are_named_in_their_order(columns, wanted):
    found = table([make()], *columns)
    assert [column.name.partition(" [")[0] for column in found.columns] == [
        name.partition(" [")[0] for name in wanted
    ]
    assert found.above == ()


def test_a_plus_adds_to_the_usual_ones():
    rows = [make("a"), make("b")]
    usual = headings(rows)
    assert headings(rows, "+rest:acc", "+n_train") == [*usual, "acc w/o"]
    assert ("n_train", "10") in table(rows, "+n_train").above
    assert "id" in headings([make(layer=1), make(layer=2)], "+id")


@pytest.mark.parametrize(
    ("name", "near"), [("aucc", "auc"), ("modle", "model"), ("+shot", "shots"), ("val:acx", "acc")]
)
def test_a_field_that_there_is_not_has_near_ones(name, near):
    with pytest.raises(RequestError, match=rf"no field '{name.lstrip('+')}' of a row; .*{near}"):
        page_of_rows([StoredRow(make())], [name])


def test_what_was_just_asked_shows_what_was_chosen_and_a_table_of_stored_rows_less():
    rows = [make(c, chosen={"strength": s}) for c, s in (("a", 0.1), ("b", 10.0))]
    assert texts(table(rows, is_full=True), "C") == ["0.1", "10"]
    assert "acc w/o" in headings(rows, is_full=True)
    few = headings(rows)
    assert "C" not in few
    assert "acc w/o" not in few
    assert texts(table(rows, "+C"), "C") == ["0.1", "10"]


# ---------------------------------------------------------------------------- numbers


def test_intervals_undefined_numbers_and_units():
    test = {
        "mae": Interval(12345.678, 12000.0, 13000.0),
        "r2": Interval(math.nan, math.nan, math.nan),
    }
    (line,) = printed(format_rows([make(measured={"test": test, "val": {}})]))
    assert line["mae [95 %]"] == "1.235e+04 [1.2e+04 1.3e+04]"
    assert [line[name] for name in line if name.startswith("r2")] == ["-"]


def test_numbers_of_val_stand_where_test_was_not_read():
    unread = make("a", measured={"test": {}, "val": {"acc": 0.75, "auc": 0.5}})
    assert {"val acc", "val auc"} <= {*headings([unread])}
    both = table([unread, make("b")])
    assert texts(both, "val auc") == ["0.500", ""]
    assert texts(both, "auc [95 %]") == ["", "0.800"]
    assert "val auc" not in headings([make("b")])


@pytest.mark.parametrize(("aucs", "said"), [((0.8, 0.9), "0.850 ± 0.071"), ((0.8,), "")])
def test_the_mean_of_trainings_stands_below_them_without_an_interval(aucs, said):
    rows = [make(kind="finetune", mode="full", training_seed=i, auc=a) for i, a in enumerate(aucs)]
    text = format_rows([*rows, make()])
    means = means_printed(text)
    assert [(line["auc [95 %]"], line["seed"]) for line in means] == [(said, "mean of 2")] * (
        len(aucs) > 1
    )
    assert len(rows_printed(text)) == len(aucs) + 1
    assert [line["kind"] for line in printed(text)][-1] == "linear"
    assert ("no 95 % interval" in text) == (len(aucs) > 1)


# ---------------------------------------------------------------------------- blocks


def test_rows_of_other_samples_are_a_table_each_with_its_own_facts():
    rows = [make("a"), make("b"), make("c", layer=7, samples={"labels": 5, "split": 2})]
    first, second = found = tables(rows)
    assert [t.title for t in found] == [
        "block 1 of 2",
        "block 2 of 2: other labels of toys than in block 1",
    ]
    assert (dict(first.above)["layer"], dict(second.above)["layer"]) == ("3", "7")
    page = page_of_rows([StoredRow(row) for row in rows])
    assert page.notes == (NOT_TO_COMPARE,)
    assert write(page).count("Blocks are of different samples") == 1
    assert page_of_rows([StoredRow(row) for row in rows[:2]]).notes == ()


def test_numbers_are_flush_right_and_words_are_not():
    rows = [
        make("a", layer=3, k=5, marks=["x"]),
        make("b", "knn", layer=11, k=20, target={"target": "sex"}),
    ]
    found = {column.name: column.is_right for column in table(rows).columns}
    right = {"layer", "k", "acc [95 %]", "auc [95 %]"}
    assert found == {name: name in right for name in found}
    assert right < set(found)


# ---------------------------------------------------------------------------- the command


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("--where auc>0.75 --sort=-auc --columns model,auc", [("c", "0.900"), ("b", "0.800")]),
        ("--where kind=ridge --columns auc,model", [("c", "0.900")]),
        ("--where auc<=0.8 --where model!=a --columns model,auc", [("b", "0.800")]),
        ("--sort kind,-auc --columns model,auc", [("b", "0.800"), ("a", "0.700"), ("c", "0.900")]),
    ],
)
def test_the_command_chooses_orders_and_shows(tmp_path, capsys, words, wanted):
    for row in (make("a", auc=0.7), make("b", auc=0.8), make("c", "ridge", auc=0.9)):
        named = dataclasses.replace(row.encoded, digest=f"{row.encoded.model:0<64}")
        write_row(tmp_path, dataclasses.replace(row, encoded=named))
    out = answered(capsys, "table", "--results", tmp_path, *words.split())
    lines = [(line["model"], line["auc [95 %]"].split()[0]) for line in printed(out)]
    assert lines == wanted
    assert probe(["table", "--results", str(tmp_path), *words.split()]) == 0  # the same command
    assert capsys.readouterr().out == out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--columns modle", "no field 'modle' of a row; .*model"),
        ("--columns +aucc", "no field 'aucc' of a row; .*auc"),
        ("--sort=-aucc", "no field 'aucc' of a row; .*auc"),
        ("--where kidn=knn", "no field 'kidn' of a row; .*kind"),
        ("--where k", "--where takes FIELD=VALUE"),
    ],
)
def test_what_the_command_refuses(tmp_path, capsys, words, message):
    write_row(tmp_path, make())
    err = refused(capsys, "table", "--results", tmp_path, *words.split())
    assert re.fullmatch(f"report table: {message}.*\n", err)


def test_the_usual_table_fits_a_terminal():
    rows = [StoredRow(make(f"encoder-{i}", layer=i)) for i in range(12)]
    assert max(map(len, write(page_of_rows(rows)).splitlines())) <= 80


def test_averaged_scores_have_a_column_of_their_weights():
    rows = [make(kind="stack", weights=words) for words in ("equal", "stacked")]
    assert texts(table(rows), "averaging") == ["equal", "stacked"]
    assert "probe.weights" not in headings(rows)
