"""Papers' tables: that their shapes are whole, and which of our rows stands in which cell."""

import shlex
from dataclasses import replace

import numpy as np
import pytest
from features import make_features
from looking import some
from papers import DINO, make_stored

import extract.cli
import finetune.cli
import probe.cli
from cache.errors import RequestError
from extract.encoders.table.entries import ENTRIES
from finetune.protocols import PROTOCOLS as TUNINGS
from probe.protocols import PROTOCOLS
from probe.report.cli import main
from probe.report.findings.fits import Fits, say_otherwise, say_several
from probe.report.formats.write import FORMATS, write
from probe.report.pages.papers import Grid, page_like, page_of_published
from probe.report.published.figures import FIGURES
from probe.report.published.modes import MODES
from probe.report.published.names import ENCODERS, SHORT_NAMES
from probe.report.published.numbers import PAPERS, published
from probe.report.published.tables import TABLES, find_table
from probe.report.rows.contenders import contenders_of
from probe.results import Posed

LINEAR = {"table": "results1", "model": "DINO ViT-B/16", "dataset": "dermamnist", "mode": "linear"}


def one(paper="wu2025", **which):
    [number] = published(paper, **{**LINEAR, "metric": "ACC", **which})
    return number


def seeds(values, **asked):
    return [
        make_stored(training_seed=seed, values={"acc": value, "auc": 0.9}, **asked)
        for seed, value in enumerate(values)
    ]


def cells(table):
    """(row's names, column's heading) -> cell."""
    n = sum(not column.is_right for column in table.columns)
    return {
        (tuple(cell.text for cell in row[:n]), column.whole): cell
        for row in table.rows
        for column, cell in zip(table.columns[n:], row[n:], strict=True)
    }


# ------------------------------------------------------------------ the papers' shapes


@pytest.mark.parametrize("printed", TABLES, ids=lambda printed: printed.called)
def test_a_table_has_each_number_once(printed):
    grid = Grid.of(printed)
    table = page_like([], printed.called, True).tables[1]
    shown = [cell for cell in table.cells() if cell.is_number]
    assert sorted(cell.text for cell in shown) == sorted(n.printed for n in grid.numbers)
    for cell in shown:
        assert float(cell.text) == pytest.approx(cell.value)
    assert len(table.rows) == len(grid.rows)
    used = {*printed.rows, printed.over, printed.column}
    assert used <= {"model", "mode", "dataset", "metric", "size", ""}


def test_every_number_is_in_a_table_and_every_mode_has_a_name():
    tables = {(table.paper, table.name) for table in TABLES}
    assert {(n.paper.name, n.table) for n in published()} == tables
    drawn = [place.number for figure in FIGURES for place in figure.places()]
    modes = {(n.quoting or n.paper.name, n.mode) for n in (*published(), *drawn)}
    assert modes == {(paper, mode) for paper, of in MODES.items() for mode in of}


def test_shape_of_a_table_with_blocks():
    table = page_like([], "wu2025:results1", True).tables[1]
    assert [c.whole for c in table.columns] == [
        *("mode", "model"),
        *("dermamnist ACC", "dermamnist AUC", "pneumoniamnist ACC", "pneumoniamnist AUC"),
        *("breastmnist ACC", "breastmnist AUC"),
    ]
    names = [(row[0].text, row[1].text) for row in table.rows]
    assert names[0] == ("end-to-end", "VGG16")
    assert names[12] == ("linear probing", "VGG16")
    assert names[23:25] == [("linear probing", "DINOv2 ViT-B/14"), ("end-to-end", "BiomedGPT")]
    dino = table.rows[22]
    assert (dino[2].text, dino[2].sd) == ("84.87", pytest.approx(0.36))
    assert table.rows[24][3].text == "-"
    assert ("in", "percent") in table.above


def test_shape_of_a_picture():
    table = page_like([], "doerrich2024:dermamnist", True).tables[1]
    assert [c.whole for c in table.columns[2:6]] == [f"ACC {n} px" for n in (28, 64, 128, 224)]
    assert [table.rows[i][0].text for i in (0, 10, 20)] == [
        *("end-to-end", "linear probing", "k-NN (k = 11)"),
    ]
    assert table.below == ("ACC 28 px, ACC 64 px, ACC 128 px, AUC 28 px, AUC 64 px, AUC 128 px: padded to 224 "
                           "with 0 after normalising",)  # fmt: skip


def test_tables_of_a_paper_in_fractions():
    table = page_like([], "baharoon2023:table4", True).tables[1]
    assert [c.whole for c in table.columns][1:4] == [
        f"nih_chestxray {mode}" for mode in ("kNN", "linear probing", "fine-tuning")
    ]
    assert table.rows[-1][1].text == "0.659"
    assert ("metric", "AUROC") in table.above
    assert ("in", "fraction") in table.above


@pytest.mark.parametrize("name", ["wu2025:results9", "wu2025", "nobody:table1", "", ":results1"])
def test_unknown_tables_are_refused_with_those_that_there_are(name):
    with pytest.raises(RequestError, match="wu2025:results1"):
        find_table(name)


def test_long_names_of_tables_are_names_too():
    assert (
        find_table("doerrich2024:benchmark_results_octmnist.png").called == "doerrich2024:octmnist"
    )


def test_short_names_are_those_of_commands():
    ours = {entry.encoder: entry.name for entry in ENTRIES}
    named = {name for of in ENCODERS.values() for name in of.values()}
    assert {name: ours[name] for name in named} == SHORT_NAMES


def test_commands_of_modes_name_protocols_that_there_are():
    for paper, modes in MODES.items():
        for mode in modes.values():
            words = mode.command.split()
            assert bool(words) == bool(mode.ways)
            if "--protocol" not in words:
                continue
            assert words[words.index("--protocol") + 1] == paper
            known = TUNINGS[paper] if words[0] == "finetune" else PROTOCOLS[paper].presets
            flag = "--mode" if words[0] == "finetune" else "--kind"
            if flag in words:
                assert words[words.index(flag) + 1] in known
            elif words[0] == "finetune":
                assert next(iter(known)) == mode.ways[0].settings["mode"]
            else:
                assert next(iter(known)) in {way.kind for way in mode.ways}


# ------------------------------------------------------------------ which row is a number


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"kind": "linear", "protocol": "", "prepared": ""},
        {"kind": "heads", "protocol": "baharoon2023"},
        {"kind": "finetune", "mode": "head", "head": "linear"},
        {"size": 518},
        {"n_layers": 0},  # nobody knows how many there are
    ],
)
def test_rows_that_fit(asked):
    assert Fits(contenders_of([make_stored(**asked)])).all(one())


@pytest.mark.parametrize(
    "asked",
    [
        {"kind": "knn"},
        {"kind": "ridge"},
        {"kind": "finetune", "mode": "full", "head": "linear"},
        {"kind": "finetune", "mode": "head", "head": "deit"},
        {"kind": "finetune", "mode": "head", "head": "linear", "cut_after": 5},
        {"dataset": "breastmnist"},
        {"encoder": "vit_base_patch16_224.augreg2_in21k_ft_in1k"},
        {"label": "dino (random)"},
        {"source": 28},
        {"layer": 5},
        {"place_chosen": {"by": "val log-loss", "among": [[5, "cls"], [11, "cls"]]}},
        {"few_shot": {"shots": 5, "episodes": 100}},
        {"scores_of": "patients"},
        {"values": {"auc": 0.9}},
        {"posed": Posed(split={"rule": "kfold:5", "seed": 0, "name": "fold 1/5"})},
        {"posed": Posed(target={"target": "meta:sex"})},
    ],
)
def test_rows_that_dont_fit(asked):
    assert not Fits(contenders_of([make_stored(**asked)])).all(one())


@pytest.mark.parametrize(
    ("resize", "padded", "scaled"),
    [("pad-after-norm", 1, 0), ("pad (PIL)", 1, 0), ("longest (PIL)", 0, 1), ("scale", 0, 1)],
)
def test_padded_images_are_other_images(resize, padded, scaled):
    fits = Fits(contenders_of([make_stored(source=28, resize=resize)]))
    for how, n in (("pad", padded), ("scale", scaled)):
        assert len(fits.all(one(table=f"results_sizes_{how}", size=28))) == n


def test_sizes_of_papers_that_name_the_input():
    asked = {"dataset": "aptos2019", "values": {"kappa": 0.88}, "prepared": "huix2024"}
    row = make_stored("finetune", mode="head", head="linear", source="various", **asked)
    number = one("huix2024", table="table1", model="DINOv1", dataset="aptos2019", mode="frozen/linear", metric="quadratic_kappa")  # fmt: skip
    assert Fits(contenders_of([row])).all(number)
    larger = replace(row, row=replace(row.row, encoded=replace(row.row.encoded, size=1024)))
    assert not Fits(contenders_of([larger])).all(number)


def test_of_few_shot_numbers_the_shots_are_those():
    number = one("baharoon2023", table="figure5(generate_vis.ipynb)", model="DINOv2 ViT-L/14", dataset="nih_chestxray", mode="fewshot/linear/4patients", metric="AUROC")  # fmt: skip
    asked = {
        "encoder": number.encoder,
        "model": "dinov2-l",
        "dataset": number.our_dataset,
        "protocol": "",
    }
    rows = [make_stored("linear", few_shot={"shots": n, "episodes": 100}, **asked) for n in (1, 4)]
    [found] = Fits(contenders_of(rows)).all(number)
    assert found.first.row.answered.shots == 4
    assert "the mean of 100 draws" in say_otherwise(number, found)


def test_the_papers_protocol_comes_first_whatever_the_numbers():
    own, better = make_stored(values={"acc": 0.6}), {"protocol": "", "values": {"acc": 0.9}}
    changed = make_stored(changed=["lr 0.01"], iterations=7)
    others = [make_stored("linear", **better), make_stored("heads", **better)]
    contenders = contenders_of([*others, changed, own])
    fits = Fits(contenders)
    assert [c.first for c in fits.all(one())] == [own, changed, *others]
    assert [c.first for c in fits.nearest(one())] == [own]
    assert [c.first for c in Fits(contenders[:3]).nearest(one())] == [changed]
    assert [c.first for c in Fits(contenders[:2]).nearest(one())] == others


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, ""),
        (
            {"kind": "linear", "protocol": "", "prepared": "", "size": 518},
            "asked otherwise than in wu2025: kind linear, no protocol; images prepared the encoder's own "
            "way, at 518 pixels",
        ),
        (
            {"changed": ["lr 0.01"], "prepared": "wu2025, but size 128"},
            "asked otherwise than in wu2025: kind adamw, protocol wu2025, but lr 0.01; images prepared as "
            "wu2025, but size 128, at 224 pixels",
        ),
    ],
)
def test_what_was_asked_otherwise(asked, said):
    [contender] = contenders_of([make_stored(**asked)])
    assert say_otherwise(one(), contender) == said


def test_of_several_rows_none_is_taken():
    rows = [make_stored("linear", pool=pool, protocol="", values={"acc": v, "auc": v})
            for pool, v in (("cls", 0.5), ("head", 0.9))]  # fmt: skip
    page = page_like(contenders_of(rows), "wu2025:results1")
    cell = cells(page.tables[0])[("linear probing", "DINO ViT-B/16"), "dermamnist ACC"]
    assert (cell.text, cell.value) == ("2 rows", None)
    assert "--where 'pool=cls'" in cell.notes[0]
    assert page.lead[0] == "0 of 150 cells are ours; of 2 more, several rows fit"
    changed = [make_stored(changed=[rate], lr=rate) for rate in ("lr 0.01", "lr 0.1")]
    assert "name the files" in say_several(contenders_of(changed))  # no --where names a comma
    alike = contenders_of([rows[0], replace(rows[0])])
    assert "name the files" in say_several(alike)


# ------------------------------------------------------------------ our numbers there


def test_trainings_have_the_papers_deviation():
    values = [0.83, 0.84, 0.88]
    for paper, ddof in (("wu2025", 0), ("doerrich2024", 1)):
        rows = seeds(values, protocol=paper, prepared=paper)
        name = "wu2025:results1" if paper == "wu2025" else "doerrich2024:dermamnist"
        column = "dermamnist ACC" if paper == "wu2025" else "ACC 224 px"
        table = page_like(contenders_of(rows), name).tables[0]
        cell = cells(table)[("linear probing", "DINO ViT-B/16"), column]
        assert cell.value == pytest.approx(85.0)
        assert cell.sd == pytest.approx(100 * np.std(values, ddof=ddof))
        assert cell.notes == ()


def test_one_run_has_no_deviation_and_what_all_were_asked_otherwise_is_said_once():
    rows = [
        make_stored("linear", dataset, protocol="") for dataset in ("dermamnist", "breastmnist")
    ]
    page = page_like(contenders_of(rows), "wu2025:results1")
    cell = cells(page.tables[0])[("linear probing", "DINO ViT-B/16"), "breastmnist AUC"]
    assert (cell.value, cell.sd, cell.notes) == (pytest.approx(97.0), None, ())
    assert page.tables[0].below == ("asked otherwise than in wu2025: kind linear, no protocol",)
    assert page.lead[0] == "4 of 150 cells are ours"


def test_gaps_name_the_commands_that_fill_them():
    rows = [make_stored(dataset=name) for name in ("dermamnist", "pneumoniamnist")]
    notes = page_like(contenders_of(rows), "wu2025:results1").notes
    assert notes[0] == "Missing cells are made by:"
    data = "--data dermamnist,pneumoniamnist,breastmnist"
    assert notes[1].startswith("extract --protocol wu2025 --model vgg16,")
    assert notes[2].startswith("finetune --protocol wu2025 --model vgg16,")
    assert notes[3].startswith("probe --protocol wu2025 --where source_size=224 --model vgg16,")
    assert all(note.endswith(data) for note in notes[1:4])
    small = page_like([], "wu2025:results_sizes_pad").notes
    assert small[1].startswith(
        "extract --protocol wu2025 --source-size 28 --resize pad-after-norm "
    )
    assert any(note.startswith("probe --protocol wu2025 --where source_size=28 ") for note in small)
    never = page_like([], "baharoon2023:table8").notes
    assert never == ("No command makes those of nih_chestxray_subset (no such data set); "
                     "chexpert_subset (no such data set).",)  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_pages_are_written(name):
    contenders = contenders_of(seeds([0.83, 0.85]))
    assert "85.49" in write(page_like(contenders, "wu2025:results1", True), name)
    assert "84.87" in write(page_of_published(contenders), name)


def test_published_numbers_stand_beside_ours():
    rows = [*seeds([0.84, 0.85]), make_stored("knn", protocol="doerrich2024", prepared="doerrich2024"),
            make_stored("ridge"), make_stored("linear", protocol="", values={"acc": 0.9})]  # fmt: skip
    page = page_of_published(contenders_of(rows), ["acc"])
    wu, doerrich = page.tables
    assert page.lead == ("3 of our 4 answers are in a paper's table",)
    assert [column.name for column in wu.columns] == [
        *("model", "kind", "protocol", "ours", "published", "gap"),
    ]
    trained, logistic = wu.rows
    ours, printed, gap = trained[-3:]
    assert (ours.value, ours.sd) == (pytest.approx(84.5), pytest.approx(0.5))
    assert (printed.text, printed.sd, gap.value) == (
        "84.87",
        pytest.approx(0.36),
        pytest.approx(-0.37),
    )
    assert (logistic[-3].low, logistic[-3].high) == (pytest.approx(88), pytest.approx(91))
    assert "no protocol" in logistic[-3].notes[0]
    nearest = next(row for row in doerrich.rows if row[1].text == "knn")
    assert nearest[-2].text == "78.35"
    assert "11 nearest by Euclidean distance" in nearest[-2].notes[0]
    assert [row[-2].text for row in doerrich.rows].count("84.42") == 2


def test_nothing_of_ours_is_published():
    page = page_of_published(contenders_of([make_stored("ridge")]))
    assert page.tables == ()
    assert page.lead == ("0 of our 1 answers are in a paper's table",)


# ------------------------------------------------------------------ the commands that fill gaps

READERS = {
    "extract": extract.cli.read_config,
    "probe": probe.cli.read_config,
    "finetune": finetune.cli.read_requests,
}


@pytest.mark.parametrize("paper", PAPERS)
def test_commands_that_fill_gaps_are_understood(paper):
    tables = [table for table in TABLES if table.paper == paper]
    notes = {note for table in tables for note in page_like([], table.called).notes}
    commands = [shlex.split(note) for note in notes if note.partition(" ")[0] in READERS]
    for name, *words in some(commands):
        READERS[name](words)  # what contradicts itself ends the process


def test_a_command_that_fills_a_gap_fills_it(places, capsys):
    about = {"model": "dino", "encoder": DINO, "size": 224, "notes": {"protocol": "doerrich2024"}}
    transform = {"transform": {"resize": "pad-after-norm"}}
    for size, n in ((28, 119), (224, 120)):
        make_features(
            places[0], "dermamnist", n=(n, 40, 60), **about, source_size=size, **transform
        )
    name = "doerrich2024:dermamnist"
    for note in page_like([], name).notes:
        command, _, words = note.partition(" ")
        if command == "probe" and "--kind knn" in words:
            status = probe.cli.main([*words.split()[:-4], "--data", "dermamnist"])
            assert status == ("=64" in words or "=128" in words)  # of no such features
    capsys.readouterr()
    assert main(["table", "--like", name]) == 0
    said = capsys.readouterr().out
    assert "2 of 200 cells are ours" in said
    assert "several rows" not in said
    [line] = [line for line in said.splitlines() if line.startswith("k-NN (k = 11)   DINO")]
    assert len(line.split()) == 12  # two numbers, four that the paper hasn't
