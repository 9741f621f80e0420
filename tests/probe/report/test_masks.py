"""Rows of segmentation in reports: tables, comparisons, classes and sizes, the page, what refuses."""

import csv
import math

import numpy as np
import pytest
from overlapping import segmented, true_masks
from reading import rows_printed
from reporting import answered, refused

from probe.report.findings.comparisons import Asking, compare
from probe.report.findings.wrong import why_not
from probe.report.rows.contenders import contenders_of
from probe.report.rows.frame import scores_of
from probe.report.rows.people import People
from probe.report.rows.sides import Pair
from probe.report.statistics.paired import Answers, Samples
from probe.report.statistics.subgroups import subgroups
from probe.results import read_row, write_row

NOBODY = People(None)  # no row of these names patients
SKILLS = {"sharp": 0.9, "fair": 0.7, "blunt": 0.5}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    for dataset, n in (("discs", 40), ("dots", 30)):
        for model, skill in SKILLS.items():
            write_row(root, segmented(model, skill, dataset=dataset, n=n).row)
    write_row(root, segmented("fair", 0.7, dataset="discs", episodes=3).row)
    return root


def test_a_row_keeps_what_it_was_written_with(results):
    path = segmented("fair", 0.7, dataset="dots", n=30).row.path(results)
    row = read_row(path)
    assert row["score_type"] == "overlap"
    assert row["per_size"]["class"]
    assert row["per_class"]["hd95"][0] is None
    assert row["metrics"]["hd95_median"]["low"] is None


def test_a_table_of_rows(capsys, results):
    printed = answered(capsys, "table", "--results", results, "--data", "discs")
    lines = rows_printed(printed)
    assert [line["model"] for line in lines] == ["blunt", "fair", "fair", "sharp"]
    columns = ("dice [95 %]", "jaccard", "hd95", "hd95 median", "nsd", "det. sens", "bound")
    for line in lines:
        assert all(line[name] for name in columns)
    assert "a missed one counts 0" in printed


def test_a_matrix_of_encoders_by_dice(capsys, results):
    printed = answered(
        *(capsys, "table", "--results", results, "--metric", "dice", "--where", "shots=")
    )
    assert "not separated from the best" in printed
    (sharp,) = (line for line in printed.splitlines() if line.startswith("sharp"))
    assert sharp.count("*") == 2


def test_tables_by_class_and_by_size(capsys, results):
    words = "table", "--results", results, "--by", "class", "--data", "dots"
    by_class = [line for line in rows_printed(answered(capsys, *words)) if "missed" in line]
    (lesion,) = (line for line in by_class if (line["model"], line["class"]) == ("blunt", "lesion"))
    stored = read_row(segmented("blunt", 0.5, dataset="dots", n=30).row.path(results))
    of = {name: values[2] for name, values in stored["per_class"].items()}
    assert (int(lesion["n"]), int(lesion["missed"])) == (of["n"], of["missed"])
    assert float(lesion["bound"]) == pytest.approx(of["bound"], abs=1e-3)
    of_dice = answered(capsys, *words, "--metric", "dice", "--format", "csv")
    assert "jaccard" not in of_dice.splitlines()[0]
    words = "table", "--results", results, "--by", "size", "--data", "dots", "--format", "csv"
    sizes = list(csv.DictReader(answered(capsys, *words).splitlines()))
    n = sum(
        int(line["n"]) for line in sizes if (line["model"], line["class"]) == ("blunt", "lesion")
    )
    assert n == (true_masks(30) == 2).any((1, 2)).sum()


def test_few_shot_rows_alone_have_no_table_by_class(capsys, results):
    words = "table", "--results", results, "--by", "class", "--where", "shots=5"
    assert "no numbers by class" in refused(capsys, *words)


def test_two_rows_are_compared_by_dice():
    a, b = (contenders_of([segmented(m, s)])[0] for m, s in (("a", 0.9), ("b", 0.5)))
    found = compare(Pair(a, b), NOBODY, Asking())
    (part,) = found.parts
    assert found.shifts == ()
    assert [*part.differences] == ["dice"]
    d = part.differences["dice"]
    assert 0 < d.low < d.value < d.high
    assert d.p < 0.01
    more = compare(Pair(a, b), NOBODY, Asking(("hd95", "nsd", "hd95_median"))).parts[0].differences
    assert more["hd95"].value < more["hd95"].high < 0
    assert more["nsd"].low > 0
    assert math.isnan(more["hd95_median"].p)
    assert more["hd95_median"].notes == ("no interval and no test holds for a median",)


def test_episodes_are_compared_too():
    each = [segmented(m, s, episodes=3) for m, s in (("a", 0.9), ("b", 0.5))]
    a, b = (contenders_of([row])[0] for row in each)
    d = compare(Pair(a, b), NOBODY, Asking()).parts[0].differences["dice"]
    assert 0 < d.low < d.value < d.high


def test_compare_says_what_it_compares(capsys, results):
    words = "compare", "sharp", "blunt", "--results", results, "--where", "shots="
    printed = answered(capsys, *words)
    assert "Over data sets" in printed
    assert "Who answers what" not in printed


@pytest.mark.parametrize("figure", ["confusion", "recall", "reliability", "calibration"])
def test_figures_of_single_answers_refuse_masks(capsys, results, tmp_path, figure):
    said = refused(
        *(capsys, "figure", figure, "--results", results, "-o", tmp_path / "a.png"),
        *("--where", "shots="),
    )
    assert "masks" in said
    assert said.count("\n") == 1


def test_wrong_answers_of_masks_are_maps():
    (contender,) = contenders_of([segmented("a")])
    assert "report maps" in why_not(contender)


def test_a_claim_says_which_metric_there_is(capsys, results):
    said = answered(capsys, "claim", "sharp > blunt by dice", "--results", results)
    assert "2 hold" in said
    assert 'say "by dice"' in refused(capsys, "claim", "sharp > blunt", "--results", results)


def test_scores_as_a_frame(results):
    frame = scores_of(segmented("fair", 0.7, dataset="dots", n=30).row.path(results))
    assert len(frame) == 30
    assert (frame["hd95_background"] == -2).all()
    true = true_masks(30)
    assert frame["label_lesion"].tolist() == (true == 2).sum((1, 2)).tolist()


def test_the_page_has_masks_by_class_and_size(capsys, results, tmp_path):
    place = tmp_path / "page.html"
    answered(capsys, "page", "--results", results, "--data", "dots", "-o", place)
    page = place.read_text()
    assert "Masks by class and by size" in page
    assert "size in patches" in page


def test_subgroups_of_masks_have_a_gap():
    row = segmented("a", 0.6, n=80).row
    scores, labels = row.scores["test_scores"], row.scores["test_labels"]
    samples = Samples(labels, row.encoded.task, None, ("background", "organ", "lesion"))
    names = np.where(np.arange(80) // 5 % 2 == 0, "left", "right")
    found = subgroups(
        *(Answers(scores, "overlap"), samples, names, ["left", "right"]),
        metrics=("dice",),
        n_permutations=50,
    )
    assert [group.by_class[2].n_units for group in found.groups] == [24, 24]
    assert set(found.gaps) == {"dice"}
    assert any("number of structures" in note for note in found.notes)
    few = np.where((np.arange(80) < 75) & (labels[:, 2] > 0), "left", "right")
    counted = subgroups(Answers(scores, "overlap"), samples, few, ["left", "right"])
    assert "class lesion has 3 samples" in counted.groups[1].why
