"""A real ViT on real BreastMNIST, from pixels to numbers that an independent script also got.

That script, with this ViT at 224 px from the 28-px file, layer 11, `cls`: logistic regression
fitted on train AUC 0.85 and accuracy 0.82, cosine majority 11-NN accuracy 0.865; the larger class
is 0.731. Numbers far from these mean a wrong transform, token or norm.
"""

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from extract.cli import main as extract
from probe.cli import main as probe
from probe.report.cli import main as report

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


def test_two_probes_are_compared_as_a_slow_script_compares_them(features, tmp_path, capsys):
    """McNemar by binomial coefficients, DeLong by every pair of a positive and a negative."""
    found = {}
    for kind in ("knn", "linear"):
        asked = "--kind knn --k 10" if kind == "knn" else "--kind linear --choose val"
        metrics(features, tmp_path / kind, f"{asked} --layer 11 --pool cls")
        (path,) = (tmp_path / kind).glob("*/*.npz")
        with np.load(path) as file:
            found[kind] = file["test_scores"][:, 1], file["test_labels"]
    (a, labels), (b, _) = found["knn"], found["linear"]
    right_a, right_b = (a > 0.5) == labels, (b > 0.5) == labels
    alone = sorted([int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())])
    chances = [math.comb(sum(alone), i) / 2 ** sum(alone) for i in range(alone[0] + 1)]
    mid_p = min(1.0, 2 * sum(chances) - chances[-1])
    wins = [np.sign(s[labels == 1][:, None] - s[labels == 0][None]) / 2 + 0.5 for s in (a, b)]
    moved = wins[0] - wins[1]
    of_positives, of_negatives = moved.mean(axis=1), moved.mean(axis=0)
    variance = of_positives.var(ddof=1) / len(of_positives)
    variance += of_negatives.var(ddof=1) / len(of_negatives)
    z = moved.mean() / math.sqrt(variance)
    delong_p = math.erfc(abs(z) / math.sqrt(2))
    rows = [str(path) for path in tmp_path.glob("*/*/*.json")]
    for path in rows:
        shutil.copytree(Path(path).parent, tmp_path / "all" / "breastmnist", dirs_exist_ok=True)
    capsys.readouterr()
    words = ["compare", "kind=knn", "kind=linear", "--results", str(tmp_path / "all")]
    assert report([*words, "--features", str(features), "--format", "json"]) == 0
    text = capsys.readouterr().out
    shown = [float(x) for x in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", text)]
    for number in (moved.mean(), delong_p, right_a.mean() - right_b.mean(), mid_p):
        assert np.isclose(shown, number, rtol=1e-6, atol=0).any()
