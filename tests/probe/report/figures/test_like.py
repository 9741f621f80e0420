"""Papers' figures: what is printed, what of ours stands beside it, and the commands that fill gaps."""

import dataclasses
import math
import shlex
from collections import Counter

import pytest
from drawing import asked_of, check_texts
from looking import some
from papers import make_stored

import extract.cli
import finetune.cli
import probe.cli
from cache.errors import RequestError
from probe.report.figures.catalogue import draw
from probe.report.figures.papers import make, ranks_over
from probe.report.published.figures import FIGURES, find_figure
from probe.report.published.names import ENCODERS
from probe.report.published.numbers import published

READERS = {
    "extract": extract.cli.read_config,
    "probe": probe.cli.read_config,
    "finetune": finetune.cli.read_requests,
}
NAMES = [figure.called for figure in FIGURES]


def frame_of(name, *rows):
    return make(find_figure(name), asked_of(list(rows)))


def tuned(value, model="SAM", dataset="aptos2019", metric="kappa", chosen=None, **settings):
    """A row of huix2024's, with a linear head on a tuned encoder but for what is said."""
    asked = {"mode": "full", "head": "linear", **settings}
    changed = [f"{name.replace('_', ' ')} {v}" for name, v in settings.items() if name != "mode"]
    of = make_stored(
        "finetune", dataset, model=model.lower(), encoder=ENCODERS["huix2024"][model],
        protocol="huix2024", prepared="huix2024", changed=changed, source="various",
        values={metric: value}, **asked,
    )  # fmt: skip
    answered = dataclasses.replace(of.row.answered, chosen={"ddof": 1, **(chosen or {})})
    return dataclasses.replace(of, row=dataclasses.replace(of.row, answered=answered))


@pytest.mark.parametrize("name", NAMES)
def test_each_mark_has_a_place_of_its_own(name):
    places = list(find_figure(name).places())
    spots = Counter(
        (p.panel, p.line, p.x if p.x == p.x else p.name or p.number.dataset) for p in places
    )
    assert max(spots.values()) == 1
    assert all(place.number.encoder for place in places)


def test_a_stage_stands_where_as_much_of_twelve_blocks_does():
    for name, last in (("huix2024:fig4", (9.0, "3", "9")), ("huix2024:fig5", (11.0, "3", "11"))):
        x, stage, block = last
        modes = {p.line: p.number.mode for p in find_figure(name).places() if p.x == x}
        assert modes["SEEM"].endswith(f"/{stage}")
        assert modes["SAM"].endswith(f"/{block}")


def test_names_that_there_arent_are_refused_with_those_that_there_are():
    with pytest.raises(RequestError, match="huix2024:fig4"):
        find_figure("huix2024:fig40")


@pytest.mark.parametrize(
    ("name", "line", "panel", "x", "wanted"),
    [
        ("wu2025:sizes", "DINO ViT-B/16", "linear probing, scale", 224, {"table": "results1", "model": "DINO ViT-B/16", "dataset": "dermamnist", "mode": "linear", "metric": "ACC"}),
        ("wu2025:sizes", "VGG16", "end-to-end, pad", 28, {"table": "results_sizes_pad", "model": "VGG16", "size": 28, "mode": "finetune", "metric": "ACC"}),
        ("baharoon2023:fig5", "VGG19", "nih_chestxray, supervised", math.inf, {"model": "VGG19", "mode": "fewshot/linear/allpatients"}),
    ],
)  # fmt: skip
def test_printed_numbers_are_those_of_the_tables(name, line, panel, x, wanted):
    [number] = published(name.partition(":")[0], **wanted)
    [mark] = [m for m in frame_of(name).points if (m.panel, m.line, m.x) == (panel, line, x)]
    assert (mark.value, mark.of, mark.n) == (number.value, "published", 0)
    if number.std is not None:
        assert (mark.low, mark.high) == (number.value - number.std, number.value + number.std)


def test_gains_are_relative_to_the_tuned_baseline():
    ours = tuned(0.9), tuned(0.8, "ImNet-1k-Sup")
    dots = [
        d for d in frame_of("huix2024:fig1", *ours).points if d.name == "SAM" and "aptos" in d.panel
    ]
    values = {(d.of, d.is_published): d.value for d in dots}
    assert values["unfrozen, linear", False] == pytest.approx(12.5)
    assert values["frozen, linear", True] == pytest.approx(100 * (0.873 / 0.904 - 1))
    assert {d.perfect for d in dots} == {0.0}
    assert all(math.isnan(d.low) for d in dots)


def test_times_are_those_of_rows():
    chosen = {"iteration": 300, "seconds_per_test_image": 0.5}
    base = tuned(0.8, "ImNet-1k-Sup", chosen={"iteration": 200, "seconds_per_test_image": 0.2})
    frame = frame_of("huix2024:fig3", tuned(0.9, chosen=chosen), base)
    found = {(d.panel, d.name): d.value for d in frame.points}
    assert found["aptos2019: training", "SAM"] == pytest.approx(50)
    assert found["aptos2019: inference", "SAM"] == pytest.approx(150)
    assert not any(d.is_published for d in frame.points)


def test_ranks_are_means_of_ranks():
    values = {"a": {"x": 0.9, "y": 0.8, "z": 0.8}, "b": {"x": 0.5, "y": 0.9, "z": 0.1}}
    # ranks on a 1, 2.5, 2.5, on b 2, 1, 3: means 1.5, 1.75, 2.75
    assert ranks_over(values, ["x", "y", "z"]) == {"x": 1, "y": 2, "z": 3}
    equal = {"a": {"x": 0.1, "y": 0.2}, "b": {"x": 0.2, "y": 0.1}}
    assert ranks_over(equal, ["x", "y"]) == {"x": 1.5, "y": 1.5}


def test_ranks_in_two_tasks():
    frame = frame_of("baharoon2023:fig1")
    found = {spot.name: (spot.x, spot.value) for spot in frame.points}
    assert found["MAE ViT-L/16"] == (1, 6)
    assert {name for name in found if name.startswith("DINOv2")} == {
        name for name, (_, rank) in found.items() if rank < 3
    }
    assert {spot.name for spot in frame.points if spot.is_undominated} == {
        "MAE ViT-L/16",
        "DINOv2 ViT-L/14",
    }


def test_rows_fill_a_curve_and_missing_ones_are_gaps():
    rows = [
        tuned(v, mode="partial", freeze_until=block) for block, v in ((0, 0.9), (6, 0.7), (9, 0.6))
    ]
    cut = tuned(0.5, mode="partial", freeze_until=3, cut_after=5)
    frame = frame_of("huix2024:fig4", *rows, cut)
    assert {(m.panel, m.line) for m in frame.points} == {("aptos2019, quadratic_kappa", "SAM")}
    values = {m.x: m.value for m in frame.points}
    assert (values[0], values[6], values[9]) == (0.9, 0.7, 0.6)
    assert math.isnan(values[3])
    assert frame.notes[0] == "3 of 96 marks are ours"
    assert not any("asked otherwise" in note for note in frame.notes)
    again = [note for note in frame.notes if note.startswith("finetune") and " sam," in note]
    assert again == []
    [lacking] = [note for note in frame.notes if "openclip" in note]
    assert lacking.startswith(
        "finetune --protocol huix2024 --mode partial --each freeze-until=0,3,6,9 "
    )
    assert any("--each freeze-until=0,1,2,3 --model seem " in note for note in frame.notes)


def test_a_cut_encoder_fits_where_the_paper_cut_it():
    rows = [tuned(0.1 * n, head="deit", cut_after=n) for n in (5, 8)]
    values = {
        m.x: m.value for m in frame_of("huix2024:fig5", *rows).points if m.panel.endswith("tuned")
    }
    assert values[5] == pytest.approx(0.5)
    assert math.isnan(values[2])


def test_rates_fit_by_their_value():
    rows = [
        make_stored("finetune", mode="full", head="linear", encoder_lr=[rate], values={"acc": acc})
        for rate, acc in ((1e-4, 0.8), (1e-5, 0.9))
    ]
    several = make_stored(
        "finetune", mode="full", head="linear", encoder_lr=[1e-3, 1e-4], values={"acc": 0.1}
    )
    marks = frame_of("wu2025:lr", *rows, several).points
    assert {m.x: m.value for m in marks if m.value == m.value} == {1e-4: 0.8, 1e-5: 0.9}
    assert {(m.panel, m.line) for m in marks} == {("DINO ViT-B/16", "dermamnist")}


@pytest.mark.parametrize("name", ["huix2024:fig4", "wu2025:lr"])
def test_of_nothing_drawn_or_ours_the_commands_are_said(name):
    with pytest.raises(RequestError, match=r"no row fits. What is missing is made by: finetune"):
        frame_of(name)


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.called)
def test_commands_that_fill_gaps_are_understood(figure):
    try:
        notes = make(figure, asked_of([])).notes
    except RequestError as error:
        notes = str(error).replace("made by: ", "; ").split("; ")
    for name, *words in some(
        shlex.split(note) for note in notes if note.partition(" ")[0] in READERS
    ):
        READERS[name](words)  # what contradicts itself ends the process


@pytest.mark.parametrize(
    ("name", "width"),
    [
        *(("wu2025:sizes", "one"), ("wu2025:resize", "two"), ("huix2024:fig1", "one")),
        *(
            ("baharoon2023:fig5", "one"),
            ("baharoon2023:table9", "one"),
            ("baharoon2023:fig1", "one"),
        ),
    ],
)
def test_no_text_is_cut_or_over_another(name, width):
    pytest.importorskip("matplotlib")
    from probe.report.figures.drawn.style import WIDTHS, styled

    with styled():
        check_texts(draw(frame_of(name), WIDTHS[width]))
