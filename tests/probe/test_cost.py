"""What an answer takes, as its row says it: nothing that the feature file doesn't know."""

import dataclasses
import json

import numpy as np
import pytest
from answering import make_row, scores_file
from features import Looks, make_features
from looking import some

from cache import open_features
from cache.format.read import COST_BYTES
from probe.cli import main
from probe.cost import UNKNOWN, Cost, cost_of
from probe.places import Place, read_place
from probe.report.rows.fields import find_field
from probe.report.rows.stored import StoredRow
from probe.results import as_json, from_json, read_row, write_row

SAID = {
    **{"images": 200, "seconds": 4.0, "images_per_s": 50.0, "forward_seconds": 3.0},
    **{"parameters": 1000, "device": "cuda (a card)"},
}
TIMES = {"images_per_second": 50.0, "inference_seconds_per_image": 0.015}


def with_cost(root, said, **fields):
    """A feature file whose extraction took what is said: an object, or any text."""
    path = make_features(root, precision="bf16", **fields)
    text = said if isinstance(said, bytes) else json.dumps(said).encode()
    with path.open("r+b") as file:
        file.seek(open_features(path).header.cost.offset)
        file.write(text.ljust(COST_BYTES))
    return open_features(path)


@pytest.mark.parametrize(
    ("said", "known"),
    [
        (SAID, {**TIMES, "parameters": 1000, "device": "cuda (a card)"}),
        ({n: v for n, v in SAID.items() if n not in ("parameters", "forward_seconds")},
         {"images_per_second": 50.0, "device": "cuda (a card)"}),  # of an older medprobe
        ({**SAID, "images": 0}, {"parameters": 1000, "device": "cuda (a card)"}),
        ({"images": "many", "parameters": True, "images_per_s": -1, "device": "\x1b"}, {}),
        ({"images": 1, "images_per_s": float("inf"), "forward_seconds": [1]}, {}),
        ({"parameters": float("nan"), "device": 7, "images": None}, {}),
        ({}, {}),
        (b"damaged", {}),
    ],
)  # fmt: skip
def test_a_file_knows_what_it_says_and_no_more(tmp_path, said, known):
    features = with_cost(tmp_path, said)
    found = cost_of([features], [Place(1, "cls")], None)
    assert found == Cost(bytes_per_image=2 * 8, precision="bf16", **known)


def test_of_random_weights_nothing_is_said(tmp_path):
    features = with_cost(tmp_path, SAID, notes={"random_weights": True})
    assert cost_of([features], [Place(1, "cls")], None) == UNKNOWN


@pytest.mark.parametrize(
    "place", [Place(0, "mean"), Place(2, "concat"), Place(2, "concat", 2), Place(1, "cls", 2)]
)
def test_bytes_are_those_of_what_is_read(tmp_path, place):
    features = open_features(make_features(tmp_path, n_layers=3))
    seen = read_place(features, place)
    cost = cost_of([features], [place], None)
    assert cost.bytes_per_image == seen.nbytes / len(seen)
    # An array that two places share is stored once.
    assert cost_of([features], [place, place], None) == cost


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDPROBE_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("MEDPROBE_FEATURES", str(tmp_path / "features"))
    with_cost(tmp_path / "features", SAID, n_layers=4, looks=Looks())

    def ask(words):
        assert main(f"--data toys {words}".split()) == 0
        paths = (tmp_path / "results").glob("*/*.json")
        return {path: read_row(path) for path in paths}

    return ask


@pytest.mark.parametrize(
    ("words", "n_trained"),
    [
        ("--kind linear --layer 0 --strengths 1", 3 * 8 + 3),
        ("--kind heads --lr 0.1 --epochs 1 --iterations 2", None),  # as many as its weights
        ("--kind knn --k 3", None),
        ("--kind linear --strengths 1 --shots 2 --episodes 2 --keep-heads", 3 * 8 + 3),
        ("--kind linear --strengths 1 --shots 2 --episodes 2", None),
    ],
)
def test_a_probes_row_says_what_it_took(results, words, n_trained):
    for path, row in some(results(words).items()):
        cost = row["cost"]
        assert {name: cost[name] for name in TIMES} == TIMES
        assert (cost["parameters"], cost["device"]) == (1000, "cuda (a card)")
        assert (cost["precision"], cost["training_seconds"]) == ("bf16", None)
        with np.load(scores_file(path)) as arrays:
            kept = [arrays[n].size for n in ("head_weights", "head_intercept") if n in arrays]
        if kept and "--shots" not in words:
            n_trained = sum(kept)
        assert cost["trained_parameters"] == n_trained


def test_controls_without_an_encoder_take_nothing_known(results):
    rows = results("--kind linear --strengths 1 --controls").values()
    costs = {row["features"]["model"]: row["cost"] for row in rows}
    assert costs.pop("toy")["parameters"] == 1000
    assert all(cost == as_json(make_row())["cost"] for cost in some([*costs.values()]))
    assert {value for cost in costs.values() for value in cost.values()} == {None}


# ---------------------------------------------------------------------------- in rows

WHOLE = Cost(10, 5, 2.5, 0.125, 60.5, 16, "cpu (a chip)", "fp32")


def test_it_goes_through_a_file_and_makes_no_other_question(tmp_path):
    row = dataclasses.replace(make_row(), cost=WHOLE)
    assert from_json(read_row(write_row(tmp_path, row))).cost == WHOLE
    assert row.digest == make_row().digest
    fields = [
        ("parameters", 10), ("trained_parameters", 5), ("images_per_second", 2.5),
        ("inference_seconds", 0.125), ("training_seconds", 60.5), ("bytes", 16),
        ("device", "cpu (a chip)"), ("cost.precision", "fp32"),
    ]  # fmt: skip
    for name, value in fields:
        assert find_field(name).of(StoredRow(row)) == value


def test_rows_from_before_know_nothing_and_later_ones_may_say_more(tmp_path):
    content = as_json(make_row())
    assert from_json({**content, "cost": {}}).cost == UNKNOWN
    assert from_json({**content, "cost": {"parameters": 3, "watts": 9}}).cost == Cost(3)


def test_times_of_encoders_add_up_on_one_device(tmp_path):
    said = {"images": 10, "forward_seconds": 1.0, "images_per_s": 20.0, "parameters": 5}
    at = [Place(1, "cls"), Place(1, "cls", file=1)]
    for devices, times in ((("a", "a"), (12.0, 0.2)), (("a", "b"), (None, None))):
        each = [
            {**said, "device": device, "images_per_s": speed}
            for device, speed in zip(devices, (20.0, 30.0), strict=True)
        ]
        files = [
            with_cost(tmp_path / device, own, seed=n)
            for n, (device, own) in enumerate(zip("xy", each, strict=True))
        ]
        found = cost_of(files, at, None)
        assert (found.images_per_second, found.inference_seconds_per_image) == times
        assert (found.device, found.parameters) == (devices[0] if times[0] else None, 10)
