"""Rows of segmentation beside their token file: patients, metadata, the data's card, what refuses."""

import numpy as np
import pytest
from reporting import answered
from shapes import make_masks_file, make_shapes, make_token_file

from cache.task import OVERLAP
from probe.cli import main
from probe.results import read_row

N = 72  # images, a third of them in test


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("there")
    shapes = make_shapes(n=N)
    groups = np.repeat([f"p{i:02d}" for i in range(N // 2)], 2)
    meta = {"scanner": np.where(np.arange(N) % 4 < 2, "old", "new")}
    make_token_file(root / "features", shapes, groups=groups, meta=meta)
    make_masks_file(root / "features", shapes, spacing=np.full((N, 3), 0.5))
    return root


def ask(capsys, folder, results, *words):
    flags = "--features", folder / "features", "--results", folder / results, "--kind", "segment"
    status = main([str(word) for word in (*flags, "--data", "shapes", *words)])
    said = capsys.readouterr()
    assert status == 0, said.err
    (path,) = (folder / results / "shapes").glob("*.json")
    return path, read_row(path)


def told(capsys, folder, *words):
    flags = "--features", folder / "features", "--results", folder / "results"
    return answered(capsys, *words, *flags)


@pytest.fixture
def row(capsys, folder):
    """The row of the token file, asked once."""
    there = list((folder / "results" / "shapes").glob("*.json"))
    return (there[0], read_row(there[0])) if there else ask(capsys, folder, "results")


def test_intervals_are_of_patients_and_sizes_of_patches(row):
    _, content = row
    assert content["score_type"] == "overlap"
    assert content["metrics"]["dice"]["low"] < content["metrics"]["dice"]["value"]
    assert content["metrics"]["hd95"]["value"] > 0
    assert set(content["per_size"]["class"]) <= {"disc", "square"}


def test_patients_are_measured_by_the_sums_of_their_images(capsys, folder, row):
    path, content = ask(capsys, folder, "patients", "--aggregate", "patient")
    images = np.load(next(row[0].parent.glob("*.npz")))
    patients = np.load(next(path.parent.glob("*.npz")))
    assert len(patients["test_ids"]) == len(images["test_ids"]) // 2
    pairs = images["test_labels"].reshape(-1, 2, 3).sum(1)
    assert np.array_equal(patients["test_labels"], pairs)
    n = OVERLAP.index("hd95") * 3
    counts = images["test_scores"][:, :n].reshape(-1, 2, n).sum(1)
    assert np.array_equal(patients["test_scores"][:, :n], counts)
    assert "per_size" not in content or not content["per_size"]


def test_small_subgroups_are_counted(capsys, folder, row):
    printed = told(capsys, folder, "table", "--by", "meta:scanner")
    assert "under 10 patients of a class" in printed  # 12 patients of two scanners
    assert "no rates" not in printed


def test_the_page_says_how_many_images_have_each_structure(capsys, folder, row):
    place = folder / "page.html"
    told(capsys, folder, "page", "-o", place)
    page = place.read_text()
    assert "Masks by class and by size" in page
    _, content = row
    labels = np.load(next(row[0].parent.glob("*.npz")))["test_labels"]
    assert content["per_class"]["n"] == (labels > 0).sum(0).tolist()


def test_what_a_test_set_can_decide_is_not_told_of_masks(capsys, folder, row):
    assert "masks have neither accuracy nor AUC" in told(capsys, folder, "decide")


def test_checklists_have_the_numbers_of_masks(capsys, folder, row):
    printed = told(capsys, folder, "checklist", "claim2024")
    assert "hd95" in printed
