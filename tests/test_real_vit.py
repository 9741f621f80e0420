"""A real ViT on real BreastMNIST, from pixels to numbers that an independent script also got.

That script, with this ViT at 224 px from the 28-px file, layer 11, `cls`: logistic regression
fitted on train AUC 0.85 and accuracy 0.82, cosine majority 11-NN accuracy 0.865; the larger class
is 0.731. Numbers far from these mean a wrong transform, token or norm.
"""

import json

import pytest

from extract.cli import main as extract
from probe.cli import main as probe

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.fixture(scope="module")
def features(tmp_path_factory, real_data, real_weights):
    root = tmp_path_factory.mktemp("features")
    words = ["--model", "vit_small_patch14_dinov2", "--size", "224", "--data", "breastmnist"]
    words += ["--source-size", "28", "--weights", str(real_weights)]
    words += ["--data-root", str(real_data), "--features", str(root), "--device", "cpu"]
    assert extract(words) == 0
    return root


def metrics(features, tmp_path, words):
    places = ["--features", str(features), "--results", str(tmp_path)]
    assert probe([*words.split(), *places]) == 0
    (path,) = tmp_path.glob("*/*.json")
    row = json.loads(path.read_text())
    assert any("weights from" in mark for mark in row["marks"])
    return {name: interval["value"] for name, interval in row["metrics"].items()}


def test_linear(features, tmp_path):
    found = metrics(features, tmp_path, "--kind linear --layer 11 --pool cls --choose val")
    assert found["auc"] == pytest.approx(0.85, abs=0.02)
    assert found["acc"] == pytest.approx(0.82, abs=0.03)


def test_folds_and_all_of_train_and_val_are_no_worse(features, tmp_path):
    """78 val images are few: by default folds decide, and the chosen one is fitted on all 624."""
    found = metrics(features, tmp_path, "--kind linear --layer 11 --pool cls")
    assert 0.85 < found["auc"] < 0.89
    assert 0.81 < found["acc"] < 0.86


def test_knn(features, tmp_path):
    found = metrics(features, tmp_path, "--kind knn --k 11 --vote majority --pool cls")
    assert found["acc"] == pytest.approx(0.865, abs=0.03)


def test_a_k_of_two_hundred_names_the_larger_class(features, tmp_path):
    found = metrics(features, tmp_path, "--kind knn --k 200")
    assert found["acc"] == pytest.approx(0.731, abs=0.001)
    assert found["balanced_accuracy"] == 0.5
