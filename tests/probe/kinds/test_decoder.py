"""The kind that trains heads on maps: what it chooses, says and goes on from."""

import dataclasses

import numpy as np
import pytest
from shapes import make_masks_file, make_shapes, make_token_file

from cache.errors import RequestError
from cache.features import open_features
from probe.config import ProbeConfig, RunConfig
from probe.episodes.draw import FewShotConfig
from probe.kinds.decoder import Decoder
from probe.places import PlacesConfig
from probe.protocols import Followed, find_preset, settings_of
from probe.run import run_probe
from probe.solvers import decoder_training
from probe.solvers.decoder_training import Training

QUICK = Decoder(iterations=30, batch_size=4, seeds=(0,), lrs=(0.01,))


def some_shapes(n=12):
    return make_shapes(n, grid=(4, 4), side=32)


@pytest.fixture
def there(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDPROBE_RUNS", str(tmp_path / "runs"))
    shapes = some_shapes(24)
    shapes = dataclasses.replace(shapes, tokens=10 * shapes.tokens)  # later layers are noisier
    make_token_file(tmp_path, shapes, layers=(7, 8, 9, 10, 11), size=32, dtype="float32")
    make_masks_file(tmp_path, shapes)
    return tmp_path


def ask(root, kind=QUICK, **more):
    run = RunConfig(results=root / "results")
    config, said = ProbeConfig(kind, run=run, **more), []
    (path,) = (root / "shapes").glob("toy*.h5")
    rows, failures = run_probe(config, [(open_features(path),)], said.append)
    return rows, failures, said


def with_layer(layer):
    return {"places": PlacesConfig(layer=layer)}


def dice(row):
    return row.measured.test["dice"].value


@pytest.mark.parametrize(
    ("head", "loss"),
    [("linear", "ce"), ("linear", "dice"), ("linear", "ce+dice"), ("ms", "ce"), ("unet", "dice")],
)
def test_every_head_learns_by_every_loss(there, head, loss):
    kind = dataclasses.replace(QUICK, head=head, loss=loss, iterations=60)
    (row,), failures, _ = ask(there, kind)
    assert not failures
    assert dice(row) > 0.3
    settings = row.answered.settings
    assert (settings["head"], settings["loss"], settings["training_seed"]) == (head, loss, 0)
    layers = [place["layer"] for place in settings.get("places", [settings])]
    assert layers == {"linear": [11], "ms": [8, 9, 10, 11], "unet": [7, 8, 9, 10, 11]}[head]


def test_val_chooses_the_rate_and_each_seed_is_a_row(there):
    kind = dataclasses.replace(QUICK, lrs=(1e-9, 1e-2, 1e-1), seeds=(1, 0))
    rows, failures, said = ask(there, kind)
    assert not failures
    assert [row.answered.settings["training_seed"] for row in rows] == [1, 0]
    for row in rows:
        assert row.answered.settings["chosen_by"] == "val dice"
        assert row.answered.settings["search_seed"] == 0
        tried = row.answered.chosen["val_dice"]
        assert [lr for lr, _ in tried] == [1e-9, 1e-2, 1e-1]
        best = max(tried, key=lambda one: one[1])
        assert row.answered.chosen["lr"] == best[0] > 1e-9
    # The head of the seed that chose isn't trained again, and is the same as one by itself.
    assert sum("training with seed" in line for line in said) == 1
    alone = dataclasses.replace(kind, lrs=(rows[1].answered.chosen["lr"],), seeds=(0,))
    (row,), _, _ = ask(there, alone)
    np.testing.assert_array_equal(row.scores["test_scores"], rows[1].scores["test_scores"])
    assert row.answered.settings["chosen_by"] == "fixed"
    assert dice(rows[0]) != dice(rows[1])


def test_the_value_of_val_is_that_of_its_head_on_the_encoders_input(there):
    kind = dataclasses.replace(QUICK, lrs=(1e-3, 1e-2))
    (row,), _, _ = ask(there, kind)
    tried = dict(map(tuple, row.answered.chosen["val_dice"]))
    # Here the input is as large as the images, so both see the same pixels.
    stored = row.measured.val["dice"]
    assert tried[row.answered.chosen["lr"]] == pytest.approx(stored, abs=1e-3)


def test_a_killed_run_goes_on_and_gives_the_same_rows(there, monkeypatch):
    kind = dataclasses.replace(QUICK, lrs=(1e-3, 1e-2), seeds=(0, 1), dropout=0.2)
    expected, _, _ = ask(there, kind)
    runs = there / "runs"
    assert not runs.exists()  # it took less than a minute
    monkeypatch.setattr(decoder_training, "SAVE_SECONDS", 0)
    step, steps = Training._step, []

    def dying(training, maps, wanted):
        steps.append(training.n_done)
        if len(steps) == 45:  # the second training's fifteenth
            raise KeyboardInterrupt
        step(training, maps, wanted)

    monkeypatch.setattr(Training, "_step", dying)
    with pytest.raises(KeyboardInterrupt):
        ask(there, kind)
    assert len(list(runs.glob("shapes/toy_decoder_*.pt"))) == 2
    rows, _, said = ask(there, kind)
    assert len(steps) == 45 + 30 - 14
    assert sum("going on after 14 of 30 iterations" in line for line in said) == 1
    for row, other in zip(rows, expected, strict=True):
        np.testing.assert_array_equal(row.scores["test_scores"], other.scores["test_scores"])
        assert row.answered.chosen == other.answered.chosen
    assert not list(runs.glob("*/*.pt"))


def test_an_episode_takes_the_middle_rate_and_says_so(there):
    kind = dataclasses.replace(QUICK, lrs=(1e-1, 1e-4, 1e-2))
    (row,), failures, said = ask(there, kind, few_shot=FewShotConfig(shots=(4,), n_episodes=2))
    assert not failures
    assert row.answered.chosen["lr"] == 0.01
    assert "an episode has no val: learning rate 0.01, the middle of the grid" in row.marks
    assert not any("training" in line for line in said)
    assert row.scores["test_scores"].shape[0] == 2


def test_all_shots_are_the_full_training(there):
    (whole,), _, _ = ask(there)
    few = FewShotConfig(shots=(8,), n_episodes=1)
    (row,), failures, _ = ask(there, few_shot=few)
    assert not failures
    assert row.measured.test["dice"].value == pytest.approx(dice(whole), abs=0.05)


def test_a_unet_of_few_layers_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDPROBE_RUNS", str(tmp_path / "runs"))
    shapes = some_shapes()
    make_token_file(tmp_path, shapes, layers=(3, 11), size=32)
    make_masks_file(tmp_path, shapes)
    (row,), failures, _ = ask(tmp_path, dataclasses.replace(QUICK, head="unet"))
    assert not failures
    assert any("U-Net on 2 of 5 layers" in mark for mark in row.marks)


def test_what_counts_nowhere_teaches_nothing(tmp_path, monkeypatch):
    """Pixels that are ignored might say anything of what a head learns from the others."""
    found = []
    for value in (1, 2):
        shapes = some_shapes()
        root = tmp_path / str(value)
        make_token_file(root, shapes, size=32)
        for mask in shapes.masks:
            mask[:4] = 7
        make_masks_file(root, shapes, ignore=7)
        (row,), failures, _ = ask(root)
        assert not failures
        found.append(row.scores["test_scores"])
    np.testing.assert_array_equal(*found)
    assert found[0][:, 0].max() <= 28 * 32


def test_classes_weigh_alike_when_asked_for(there):
    rows = [
        ask(there, dataclasses.replace(QUICK, class_weights=w, loss="ce", iterations=20))[0][0]
        for w in ("none", "balanced")
    ]
    predicted = [row.scores["test_scores"].reshape(8, 6, 3)[:, 1].sum(axis=0) for row in rows]
    assert (predicted[1][1:] > predicted[0][1:]).all()  # more of the small structures


# ------------------------------------------------------------------ protocols


def test_the_protocol_trains_on_val_too_and_answers_it_by_what_had_not_seen_it(there):
    name = "baharoon2023"
    _, preset = find_preset(name, "decoder", as_published=False)
    kind = Decoder(**{**settings_of(preset, False), "lrs": (0.05, 0.005), "batch_size": 4})
    assert (kind.head, kind.course(10).n_steps) == ("unet", 30)
    (row,), failures, said = ask(there, kind)
    assert not failures
    assert sum("train and val" in line for line in said) == 1
    before = dataclasses.replace(kind, refit=False)
    (alone,), _, _ = ask(there, before)
    np.testing.assert_array_equal(row.scores["val_scores"], alone.scores["val_scores"])
    assert not np.array_equal(row.scores["test_scores"], alone.scores["test_scores"])
    assert row.answered.chosen["val_dice_jaccard"] == alone.answered.chosen["val_dice_jaccard"]
    published = Decoder(**{**settings_of(preset, True), "lrs": (0.05,), "batch_size": 4})
    assert published.ends_in_relu
    (row,), failures, _ = ask(there, published, protocol=Followed(name))
    assert not failures
    looks = row.answered.chosen["test_dice_jaccard"]
    assert len(looks) == 2
    # The better of both looks is the row's.
    assert max(looks) == pytest.approx(row.measured.test["dice_jaccard"].value, abs=0.01)


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"lrs": (1e-3, 1e-3)}, "one or more, each once"),
        ({"iterations": None}, "for iterations or for epochs"),
        ({"epochs": 3}, "for iterations or for epochs"),
        ({"choose_by": "luck"}, "choose_by is"),
        ({"head": "deep"}, "--head takes linear, ms, unet"),
        ({"dropout": 1.0}, "--dropout takes"),
    ],
)
def test_settings_that_cannot_be(changed, why):
    with pytest.raises(RequestError, match=why):
        dataclasses.replace(QUICK, **changed)


def test_train_of_one_class_is_refused(tmp_path):
    shapes = some_shapes()
    for mask in shapes.masks[:4]:
        mask[:] = 0
    make_token_file(tmp_path, shapes, size=32)
    make_masks_file(tmp_path, shapes)
    rows, (failure,), _ = ask(tmp_path)
    assert not rows
    assert "one class alone in the masks of train" in failure.why


def test_a_class_that_train_lacks_is_named(tmp_path):
    shapes = some_shapes()
    for mask in shapes.masks[:4]:
        mask[mask == 2] = 0
    make_token_file(tmp_path, shapes, size=32)
    make_masks_file(tmp_path, shapes)
    (row,), _, _ = ask(tmp_path)
    assert "no pixel of train is square" in row.marks


def test_rates_that_diverge_are_out_of_the_race(there):
    kind = dataclasses.replace(QUICK, lrs=(1e30, 1e-2), optimiser="sgd")
    (row,), failures, _ = ask(there, kind)
    assert not failures
    assert row.answered.chosen["val_dice"][0] == [1e30, None]
    rows, (failure,), _ = ask(there, dataclasses.replace(kind, lrs=(1e30, 1e29)))
    assert not rows
    assert "(every learning rate); try --lr 1e+28" in failure.why
    rows, (failure,), _ = ask(there, dataclasses.replace(kind, lrs=(1e30,), seeds=(0, 1)))
    assert not rows
    assert "seed 0, seed 1" in failure.why


def test_a_linear_head_sees_one_layer(there):
    rows, (failure,), _ = ask(there, **with_layer("10+11"))
    assert not rows
    assert "--head ms" in failure.why
    rows, failures, _ = ask(there, dataclasses.replace(QUICK, head="ms"), **with_layer("10+11"))
    assert not failures
    assert [place["layer"] for place in rows[0].answered.settings["places"]] == [10, 11]


def test_without_val_a_rate_must_be_named(tmp_path, monkeypatch):
    shapes = some_shapes()
    split = np.repeat(np.array([0, 2], np.uint8), 6)
    make_token_file(tmp_path, shapes, split=split, size=32)
    make_masks_file(tmp_path, shapes)
    rows, (failure,), _ = ask(tmp_path, dataclasses.replace(QUICK, lrs=(1e-3, 1e-2)))
    assert not rows
    assert "no val images to choose a learning rate on" in failure.why
    rows, failures, _ = ask(tmp_path)
    assert len(rows) == 1
    assert not failures
