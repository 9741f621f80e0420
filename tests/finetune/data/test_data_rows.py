"""What fine-tuning takes over from a probe's row: its episodes, its weights."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from answering import make_earlier, scores_file
from features import make_features, make_spec, write_rows
from safetensors.numpy import save_file

from cache import open_features
from cache.errors import RequestError
from cache.features import Features
from cache.splits.rules import SplitRule
from cache.task import BINARY, MULTI_CLASS
from finetune.start.episodes import episodes_like
from finetune.start.head import FirstHead, as_logits, first_head
from probe.cli import main
from probe.episodes.draw import digest_of
from probe.places import Place
from probe.questions.laying import lay_over
from probe.questions.overlay import OverlayConfig
from probe.questions.question import Question
from probe.results import load_head
from probe.row_names import find_row

MULTI_LABEL = "multi-label, binary-class"


@pytest.fixture
def places(tmp_path):
    """Where conftest.py points the commands."""
    return SimpleNamespace(features=tmp_path / "features", results=tmp_path / "results")


def ask(words: str) -> None:
    assert main(words.split()) == 0


def row_paths(places: SimpleNamespace) -> list[Path]:
    return sorted(places.results.glob("*/*.json"))


def question(path: Path, **overlay: Any) -> Question:
    return lay_over(OverlayConfig(**overlay), open_features(path))[0]


# ---------------------------------------------------------------------------- episodes


@pytest.mark.parametrize("draw", ["balanced", "natural", "first", "bigvision"])
def test_episodes_are_the_probes_own(places, draw):
    path = make_features(places.features)
    ask(f"--kind linear --shots 3 --draw {draw}")
    (row,) = row_paths(places)
    settings = json.loads(row.read_text())["probe"]["few_shot"]
    asked = question(path)
    for run in (str(row), row.stem, row.stem[-16:-8]):
        found = episodes_like(run, places.results, asked, 3)
    assert found.settings == settings
    assert len(found.samples) == settings["episodes"]
    assert digest_of(found.samples, asked.features.ids) == settings["digest"]
    assert all(asked.is_in("train")[rows].all() for rows in found.samples)
    assert str(settings["episodes"]) in found.mark


def test_scores_are_corrected_as_the_probes_are(places):
    """Bayes' rule by hand: an episode is even, train is not."""
    path = make_features(places.features, labels=lambda labels: np.where(labels == 2, 0, labels))
    ask("--kind linear --shots 3 --episodes 2")
    asked = question(path)
    found = episodes_like(row_paths(places)[0].stem, places.results, asked)
    assert found.settings["prior"] == "train"
    scores = np.array([[0.5, 0.25, 0.25]])
    weighted = scores * np.array([(2 / 3) / 0.5, (1 / 3) / 0.5, 1])  # class 2 was never learnt
    np.testing.assert_allclose(found.to_prior(scores, 1), weighted / weighted.sum(), rtol=1e-6)


def test_episodes_of_a_table_need_the_table(places, tmp_path):
    path = make_features(places.features)
    table = tmp_path / "episodes.csv"
    ask(f"--kind linear --shots 2 --episodes 4 --episodes-file {table}")
    run, asked = row_paths(places)[0].stem, question(path)
    with pytest.raises(RequestError, match="come from a table; name it with --episodes-file"):
        episodes_like(run, places.results, asked)
    assert len(episodes_like(run, places.results, asked, file=table).samples) == 4
    lines = table.read_text().splitlines()
    other = next(i for i in asked.features.ids[:9] if i not in lines[1])
    table.write_text("\n".join([lines[0], f"2,0,{other},{asked.dataset}", *lines[2:]]))
    with pytest.raises(RequestError, match=r"can't be drawn again: .*episodes\.csv isn't its file"):
        episodes_like(run, places.results, asked, file=table)


def test_rows_that_arent_the_same_question_are_refused(places, tmp_path):
    path = make_features(places.features)
    ask("--kind linear --shots 2 --episodes 4")
    ask("--kind linear --strengths 1")
    few, whole = sorted(row_paths(places), key=lambda p: "few_shot" not in p.read_text())
    asked, results = question(path), places.results

    def refused(match, run=few.stem, of=asked, **more):
        with pytest.raises(RequestError, match=match):
            episodes_like(run, results, of, **more)

    refused("learnt from all of train; name a row of `probe --shots N`", whole.stem)
    refused("has episodes of 2 shots, not 5; name the row of `probe --shots 5`", shots=5)
    refused("no result 'nothing' in .*; name a row's JSON file", "nothing")
    refused("drew its episodes .balanced.; leave the file out", file=tmp_path / "x.csv")
    other = make_features(places.features, "others")
    refused("is of toys, and others is asked for", of=question(other))
    relabelled = make_features(places.features, labels=lambda y: y[::-1].copy(), extra=1)
    refused("has another labels of toys; take the same", of=question(relabelled))
    divided = question(path, split=SplitRule.parse("70/15/15"))
    refused("has another split of toys", of=divided)
    row = make_earlier(few)  # without a checksum, that it can be changed
    row["probe"]["few_shot"]["episode_seed"] = 1
    few.write_text(json.dumps(row))
    refused("can't be drawn again: ids, patients or numpy's order changed")


def test_a_row_is_found_by_file_name_and_id_and_nothing_else_is_one(places, tmp_path):
    make_features(places.features)
    ask("--kind knn --k 1,2")
    a, b = row_paths(places)
    row = json.loads(a.read_text())
    for run in (str(a), a.stem, row["id"], row["id"][:20], row["id"][:6]):
        path, found = find_row(run, places.results, "--flag")
        assert path == a
        assert found["id"] == row["id"]
    twin = a.with_name(f"x_{row['id'][:16]}.json")
    twin.write_text(a.read_text())
    with pytest.raises(RequestError, match="--flag: .* may mean 2 results"):
        find_row(row["id"][:6], places.results, "--flag")
    for text in ("{", "[]", "{}", '{"id": "x", "features": []}'):
        b.write_text(text)
        with pytest.raises(RequestError, match="can't be read as a result|no result of probe"):
            find_row(b.stem, places.results, "--flag")


# ---------------------------------------------------------------------------- first heads


def head_of(
    places: SimpleNamespace, path: Path, run: Path, n_logits: int, pool: str = "head", **more: Any
) -> FirstHead:
    asked = more.pop("asked", None) or question(path)
    return first_head(
        run.stem,
        asked,
        more.pop("key", asked.features.key),
        pool,
        n_logits,
        results_dir=places.results,
        features_dir=places.features,
        **more,
    )


def probabilities(features: Features, run: Path, head: FirstHead, pool: str = "head") -> Any:
    """The head's own logits on test, and the probabilities that the probe stored."""
    x = features.array(-1, pool)[features.split == "test"].astype(np.float64)
    with np.load(scores_file(run)) as file:
        return x @ head.weights.T + head.intercept, file["test_scores"]


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize(
    "words",
    [
        "--kind linear --choose val",
        "--kind linear --choose cv",
        "--kind linear --choose val --refit train+val",
        "--kind adamw --iterations 40 --batch-size 30 --seeds 3",
    ],
)
@pytest.mark.parametrize("task", [MULTI_CLASS, MULTI_LABEL, BINARY])
def test_a_head_gives_the_probes_scores(places, words, task):
    path = make_features(places.features, task=task, n_classes=2 if task == BINARY else 3)
    ask(f"{words} --pool head")
    (run,) = row_paths(places)
    features = open_features(path)
    for n_logits in (1, 2) if task == BINARY else (3,):
        head = head_of(places, path, run, n_logits)
        logits, wanted = probabilities(features, run, head)
        if task == MULTI_LABEL:
            found = sigmoid(logits)
        elif n_logits == 1:
            found = np.hstack([1 - sigmoid(logits), sigmoid(logits)])
        else:
            found = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(found, wanted, atol=1e-5)
        assert head.source == {
            "row": json.loads(run.read_text())["id"],
            "kind": words.split()[1],
        }


@pytest.mark.parametrize("refit", ["train", "train+val"])
def test_of_a_grid_the_head_that_val_chose(places, refit):
    """Without class tokens the grid is of learning rates alone, on one pool."""
    spec = make_spec(n_rows=90, arrays={"layers/01/mean": 4, "head": 6}, dtype="float32")
    x = np.random.default_rng(0).normal(size=(90, 6)) + np.eye(3, 6)[spec.samples.labels]
    path = places.features / "toys" / "toy.h5"
    write_rows(path, spec, {"layers/01/mean": x[:, :4], "head": x})
    ask(f"--kind heads --epochs 1 --iterations 30 --lr 0.1,1 --refit {refit}")
    (run,) = row_paths(places)
    logits, wanted = probabilities(open_features(path), run, head_of(places, path, run, 3))
    powers = np.exp(logits)
    np.testing.assert_allclose(powers / powers.sum(axis=1, keepdims=True), wanted, atol=1e-5)


def test_of_a_grid_what_saw_several_inputs_is_refused(places, monkeypatch):
    path = make_features(places.features, n_layers=4)
    ask("--kind heads --epochs 1 --iterations 20 --lr 0.1")
    (run,) = row_paths(places)
    seen = tuple(Place(layer, "cls") for layer in range(4))
    found = dataclasses.replace(load_head(run), places=seen)
    monkeypatch.setattr("finetune.start.head.find_head", lambda *of_row: found)
    with pytest.raises(RequestError, match="saw several layers or pools side by side"):
        head_of(places, path, run, 3)


def test_weights_need_no_features_and_rows_of_before_are_fitted_again(places):
    path = make_features(places.features)
    ask("--kind linear --choose cv --pool head")
    ask("--kind adamw --iterations 20 --batch-size 30 --seeds 0 --pool head")
    of_adamw, of_linear = row_paths(places)
    asked = question(path)

    kept = head_of(places, path, of_linear, 3)
    for run in (of_adamw, of_linear):
        make_earlier(run)
    assert head_of(places, path, of_linear, 3).digest == kept.digest
    with pytest.raises(
        RequestError, match="of kind adamw and keeps no weights; ask the probe anew"
    ):
        head_of(places, path, of_adamw, 3)
    ask("--kind adamw --iterations 20 --batch-size 30 --seeds 0 --pool head")
    path.unlink()
    assert head_of(places, path, of_adamw, 3, asked=asked).weights.shape == (3, 8)


def test_a_head_may_see_another_pool_of_the_same_numbers(places):
    path = make_features(places.features)  # head, cls and mean of the last layer are equal
    ask("--kind linear --choose val --pool cls")
    (run,) = row_paths(places)
    logits, _ = probabilities(open_features(path), run, head_of(places, path, run, 3, "mean"))
    assert logits.shape == (60, 3)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("--kind knn --k 3", "is of kind knn, which has no weights of logits; name a row of kind"),
        ("--kind ridge", "is of kind ridge"),
        ("--kind linear --shots 2 --episodes 2", "learnt from episodes"),
        ("--kind linear --form ovr", r"sigmoid for each class .ovr.*--form multinomial"),
        (
            "--kind linear --layer 0",
            "saw layer 0, and the head sees layer 1; name a row of --layer",
        ),
        ("--kind linear --pool concat", "saw several layers or pools side by side"),
        ("--kind linear --layer last2", "saw several layers or pools side by side"),
    ],
)
def test_rows_without_such_weights_are_refused(places, words, match):
    path = make_features(places.features)
    ask(words)
    with pytest.raises(RequestError, match=match):
        head_of(places, path, row_paths(places)[0], 3)


def test_a_class_that_train_lacks_is_refused(places):
    labels = np.where(np.arange(220) < 160, np.arange(220) % 2, np.arange(220) % 3)
    path = make_features(places.features, labels=lambda _: labels)
    ask("--kind linear --choose val")
    with pytest.raises(RequestError, match="no weights of a class that all or none"):
        head_of(places, path, row_paths(places)[0], 3)


def test_another_encoder_pool_or_place_is_refused(places):
    spec = make_spec(n_rows=90, arrays={"layers/01/cls": 6, "layers/01/mean": 6}, dtype="float32")
    x = np.random.default_rng(0).normal(size=(90, 6)) + 2 * np.eye(3, 6)[spec.samples.labels]
    path = places.features / "toys" / "toy.h5"
    write_rows(path, spec, {"layers/01/cls": x, "layers/01/mean": x[:, ::-1]})
    ask("--kind linear --choose val --pool cls")
    (run,) = row_paths(places)
    key = open_features(path).key

    def refused(match, pool="cls", **more):
        with pytest.raises(RequestError, match=match):
            head_of(places, path, run, 3, pool, **more)

    head_of(places, path, run, 3, "cls", key={**key, "store": "float16", "precision": "bf16"})
    refused(
        "of other features than the head will see .weights: .absent. -> x",
        key={**key, "weights": "x"},
    )
    refused("saw the pool cls, and the head sees mean; .*give finetune --pool cls", "mean")
    refused("saw layer 1, and the head sees layer 0", layer=0)
    make_earlier(run)
    with np.load(scores_file(run)) as file:
        scores = {name: file[name] for name in file.files}
    np.savez(scores_file(run), **{**scores, "test_scores": scores["test_scores"] + 1e-4})
    refused(r"gives other scores on test, 0\.0001 apart; .*ask the probe anew")
    asked = question(path)
    path.unlink()
    refused("the features of .* aren't in .*--features DIR", asked=asked)
    scores_file(run).unlink()
    refused("scores of .* can't be read", asked=asked)


def test_one_logit_and_two_say_the_same():
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=(9, 5)), rng.normal(size=(2, 5)), rng.normal(size=2)
    one_w, one_b = as_logits(w, b, 1, BINARY)
    two_w, two_b = as_logits(one_w, one_b, 2, BINARY)
    wanted = np.exp(x @ w.T + b) / np.exp(x @ w.T + b).sum(axis=1, keepdims=True)
    again = np.exp(x @ two_w.T + two_b) / np.exp(x @ two_w.T + two_b).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(sigmoid(x @ one_w.T + one_b)[:, 0], wanted[:, 1], rtol=1e-12)
    np.testing.assert_allclose(again, wanted, rtol=1e-12)
    for task, found, n_logits in ((MULTI_CLASS, 3, 4), (MULTI_CLASS, 2, 1), (BINARY, 3, 1)):
        with pytest.raises(RequestError, match=f"has {found} outputs, and {n_logits} are needed"):
            as_logits(np.zeros((found, 5)), np.zeros(found), n_logits, task)


def test_a_heads_file_is_taken_as_it_is_or_refused(places, tmp_path):
    asked = question(make_features(places.features))
    path = tmp_path / "head.safetensors"

    def read(tensors):
        save_file(tensors, path)
        folders = {"results_dir": places.results, "features_dir": places.features}
        return first_head(str(path), asked, {}, "head", 3, **folders)

    weight, bias = np.arange(24, dtype=np.float32).reshape(3, 8), np.ones(3, np.float32)
    head = read({"weight": weight, "bias": bias})
    np.testing.assert_array_equal(head.weights, weight)
    np.testing.assert_array_equal(head.intercept, bias)
    assert head.source == {"file": "head.safetensors"}
    for tensors in (
        {"weight": weight},
        {"weight": weight, "bias": bias[:2]},
        {"weight": bias, "bias": bias},
    ):
        with pytest.raises(RequestError, match=r"should hold the weight .O, D. and the bias .O,."):
            read(tensors)
    path.write_bytes(b"no tensors")
    with pytest.raises(RequestError, match=r"head\.safetensors can't be read"):
        first_head(str(path), asked, {}, "head", 3, results_dir=tmp_path, features_dir=tmp_path)
