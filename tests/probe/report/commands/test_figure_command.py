"""``report figure``: files that it writes, and what it refuses."""

import csv
import dataclasses
import sys

import pytest
from drawing import kinds
from layering import layered_file
from reporting import answered, refused, run

from probe.metrics.intervals import Interval
from probe.report.commands.figure import width_of
from probe.report.figures.catalogue import FIGURES, LIKE
from probe.report.published.figures import BY_NAME
from probe.results import write_row

BEGINS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.fixture
def rows(places):
    for of in kinds():
        write_row(places[1], of.row)
    return places[1]


def test_list_says_which_figures_there_are(capsys):
    ours, papers = answered(capsys, "figure", "--list").split("\n\n")
    assert [line.split()[0] for line in ours.splitlines()] == list(FIGURES)
    assert [line.split()[0] for line in papers.splitlines()[1:]] == sorted([*BY_NAME, *LIKE])


def test_a_papers_figure_needs_no_row_of_ours(places, capsys, tmp_path):
    frame = tmp_path / "fig5.csv"
    said = answered(capsys, "figure", "--like", "baharoon2023:fig5", "--csv", frame).splitlines()
    assert said[:2] == [f"{frame}: 36 lines", "0 of 60 marks are ours"]
    assert said[-1].startswith("probe --protocol baharoon2023 ")


@pytest.mark.parametrize("form", BEGINS)
def test_a_picture_and_its_frame(rows, capsys, tmp_path, form):
    pytest.importorskip("matplotlib")
    picture, frame = tmp_path / f"ranks.{form}", tmp_path / "ranks.csv"
    said = answered(capsys, "figure", "ranks", "-o", picture, "--csv", frame, "--width", "120")
    assert picture.read_bytes().startswith(BEGINS[form])
    assert len(frame.read_text().splitlines()) == 1 + 9
    assert said.splitlines()[:2] == [f"{frame}: 9 lines", f"{picture}: ranks of 9 rows"]


REFUSED = {
    "": (2, "name a figure; --list says which there are"),
    "ranks --like huix2024:fig4": (2, "name ranks or --like huix2024:fig4, not both"),
    "--like huix2024:fig4 --metric acc -o x.png": (2, "--metric: a paper's figure has its own"),
    "--like huix2024:fig40 --csv x.csv": (1, "near names: huix2024:fig4"),
    "curves --csv x.csv --across encoder-lr": (1, "`finetune --each encoder-lr=A,B` makes them"),
    "ranks": (2, "name a file: -o FILE.png, or --csv FILE of its data frame"),
    "ranks -o ranks.jpg": (2, "-o takes a file that ends in .png, .svg, .pdf; not 'ranks.jpg'"),
    "ranks -o x.png --width three": (2, "--width is one, two, or 60 to 1000 mm"),
    "rank -o x.png": (1, "no figure 'rank'; near names: ranks"),
    "pie -o x.png": (1, "no figure 'pie'; figures are layers, shots"),
    "ranks --csv x.csv --metric auk": (1, "no metric 'auk'; near names: auc"),
    "shots --csv x.csv": (1, "`probe --kind linear --shots 1,5,10,25` makes them"),
}


@pytest.mark.parametrize("words", REFUSED)
def test_refusals_say_what_to_do(rows, capsys, words):
    status, expected = REFUSED[words]
    if status == 2:
        with pytest.raises(SystemExit) as end:
            run(capsys, "figure", *words.split())
        assert end.value.code == 2
        assert expected in capsys.readouterr().err
    else:
        assert expected in refused(capsys, "figure", *words.split())


def test_without_matplotlib_the_way_to_have_it_is_said(rows, capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = refused(capsys, "figure", "ranks", "-o", "x.png")
    assert "pictures need matplotlib: pip install 'medprobe[report]'" in said
    frame, picture = tmp_path / "x.csv", tmp_path / "x.png"
    assert answered(capsys, "figure", "ranks", "--csv", frame).startswith(str(tmp_path))
    frame.unlink()
    status, said, why = run(capsys, "figure", "ranks", "-o", picture, "--csv", frame)
    assert status == 1
    assert said == f"{frame}: 9 lines\n"
    assert "pictures need matplotlib" in why
    assert len(frame.read_text().splitlines()) == 1 + 9
    assert not picture.exists()


@pytest.fixture
def numbers(places):
    """Rows of the errors of predicted numbers, no AUC."""
    for of in kinds():
        errors = {"mae": Interval(9.5, 9.0, 10.0), "r2": Interval(0.1, 0.0, 0.2)}
        measured = dataclasses.replace(of.row.measured, test=errors, val={"mae": 9.0})
        encoded = dataclasses.replace(of.row.encoded, task="regression")
        write_row(places[1], dataclasses.replace(of.row, encoded=encoded, measured=measured))


READ = [name for name, figure in FIGURES.items() if "metric" in figure.reads]


@pytest.mark.parametrize(
    "words",
    [*(f"figure {name} --csv x.csv" for name in READ), "page -o x.html", "table", "sensitivity"],
)
def test_a_metric_that_no_row_has_is_refused_with_those_there_are(numbers, capsys, words):
    said = refused(capsys, *words.split(), "--metric", "auc")
    assert "no row has auc on test; they have mae, r2: --metric mae" in said


def test_where_no_metric_is_typed_it_is_one_that_rows_have(numbers, capsys, tmp_path):
    frame = tmp_path / "x.csv"
    answered(capsys, "figure", "matrix", "--csv", frame)
    assert {line["metric"] for line in csv.DictReader(frame.read_text().splitlines())} == {"mae"}
    assert "mae" in answered(capsys, "sensitivity")


def test_widths():
    assert width_of("one") == pytest.approx(89 / 25.4)
    assert width_of("two") == pytest.approx(183 / 25.4)
    assert width_of("120mm") == width_of("120") == pytest.approx(120 / 25.4)


# ---------------------------------------------------------------------- of feature files


@pytest.fixture
def files(places):
    return [
        layered_file(places[0], "vit"),
        layered_file(places[0], "cnn", 2, seed=1),
        layered_file(places[0], "vit", seed=2, tuned=True),
    ]


@pytest.mark.parametrize(
    ("words", "n", "n_lines"),
    [
        ("cka --model vit,cnn --data toys", 2, 8),
        ("cka --model vit", 1, 16),
        ("drift", 3, 8),
        ("--like huix2024:fig7", 3, 16),
        ("--like huix2024:fig8 --pool cls", 3, 9),
        ("neighbours --k 3 --split all", 3, 9),
        ("scatter --model vit --layer 0", 1, 40),
    ],
)
def test_pictures_of_feature_files(files, capsys, tmp_path, words, n, n_lines):
    frame = tmp_path / "frame.csv"
    said = answered(capsys, "figure", *words.split(), "--csv", frame).splitlines()
    assert said[0] == f"{frame}: {n_lines} lines"


@pytest.mark.parametrize(("split", "is_said"), [("val", True), ("all", False)])
def test_whose_split_it_is_stands_below_the_picture(
    files, capsys, tmp_path, monkeypatch, split, is_said
):
    captions = []

    def keep(frame, *_):
        captions.append(frame.caption)

    monkeypatch.setattr("probe.report.commands.figure.write_figure", keep)
    monkeypatch.setattr("probe.report.commands.figure.check_drawing", lambda: None)
    answered(capsys, "figure", "scatter", "--split", split, "-o", tmp_path / "x.png")
    told = f"Samples of {split}: by the split that the feature files store."
    assert captions[0].endswith(told) == is_said


def test_files_may_be_named_by_path(files, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "cka.png"
    paths = [files[0].path, files[1].path]
    said = answered(capsys, "figure", "cka", "-o", picture, "--files", *paths)
    assert said.splitlines()[0] == f"{picture}: cka of 2 feature files"


OF_FILES = {
    "cka --kind linear": (2, "--kind is of rows, and cka of feature files"),
    "cka --metric acc": (2, "--metric belongs to layers, shots"),
    "cka --k 5": (2, "--k belongs to neighbours, not to cka"),
    "ranks --size 32": (2, "--size is of feature files, and ranks of rows"),
    "ranks --split test": (2, "--split belongs to cka, drift, scatter, neighbours, not to ranks"),
    "--like huix2024:fig4 --layer 1": (2, "--layer: a paper's figure has its own"),
    "--like huix2024:fig7 --k 1": (2, "--k belongs to neighbours"),
    "cka --layer last": (2, "--layer takes a number"),
    "cka --files a.h5 --model vit": (2, "name feature files by --files, or by what they are of"),
    "cka --model eva02": (1, "no features of eva02"),
    "cka --model vit --layer 9": (1, "has no layer 9"),
}


@pytest.mark.parametrize("words", OF_FILES)
def test_what_feature_files_cant_be_asked_is_said(files, capsys, words):
    status, expected = OF_FILES[words]
    arguments = ["figure", *words.split(), "--csv", "x.csv"]
    if status == 2:
        with pytest.raises(SystemExit):
            run(capsys, *arguments)
        assert expected in capsys.readouterr().err
    else:
        assert expected in refused(capsys, *arguments)


def test_two_files_that_fit_are_told_apart(files, places, capsys):
    layered_file(places[0], "cnn", 2, seed=3, key={"precision": "bf16"})
    said = refused(capsys, "figure", "scatter", "--model", "cnn", "--csv", "x.csv")
    assert "several features of cnn at 32 px on toys; choose one of them:" in said
