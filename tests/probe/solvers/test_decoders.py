"""Heads on maps against torch's own layers, losses against values by hand, training against a plain loop."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import unsettle
from torch import nn

from probe.solvers import decoder_training
from probe.solvers.decoder_training import (
    Checkpoint,
    Course,
    Ground,
    HeldMasks,
    Training,
    answer,
    values,
)
from probe.solvers.decoders import (
    HEADS,
    LOSSES,
    Form,
    MapHead,
    balanced_weights,
    loss_of,
    resize,
    value_of,
)

SIZE, N_CLASSES, WIDTHS = 12, 3, (8, 8, 8, 16, 16)


def some_maps(n=2, grid=3, widths=WIDTHS, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(n, grid, grid, width, generator=draw) for width in widths]


def some_ground(n=7, parts=None):
    """Images whose class follows from their tokens, some pixels of which count nowhere."""
    maps = [part.numpy() for part in some_maps(n, seed=1)]
    rng = np.random.default_rng(0)
    masks = np.abs(maps[-1][..., :N_CLASSES]).argmax(axis=-1).astype(np.uint8)
    masks = masks.repeat(4, axis=1).repeat(4, axis=2)
    masks[rng.random(masks.shape) < 0.1] = 255
    read = parts or (lambda rows: [part[rows] for part in maps])
    return Ground(read, lambda rows: masks[rows], WIDTHS, N_CLASSES, SIZE, background=0)


def course(**changed):
    usual = {"form": Form("linear"), "loss": "ce", "optimiser": "adamw", "weight_decay": 0.1}
    return Course(**{**usual, "batch_size": 3, "n_steps": 8, **changed})


# ------------------------------------------------------------------ resizing


@pytest.mark.parametrize(
    ("how", "aligned"), [("bilinear", False), ("bilinear", True), ("bicubic", False)]
)
@pytest.mark.parametrize("to", [(9, 7), (2, 3), (5, 4), (1, 1)])
def test_maps_are_resized_as_torch_does(how, aligned, to):
    maps = some_maps(2, 5)[0][:, :, :4].permute(0, 3, 1, 2)
    expected = F.interpolate(maps, to, mode=how, align_corners=aligned)
    torch.testing.assert_close(resize(maps, to, how, aligned=aligned), expected)


# ------------------------------------------------------------------ heads


def torch_linear(head, x):
    norm, last = head.modules["norm"], head.modules["last"]
    if isinstance(norm, nn.BatchNorm1d):
        x = F.batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        )
    return F.conv2d(x, last.weight[..., None, None], last.bias)


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("name", ["linear", "ms"])
def test_linear_heads_are_a_convolution_of_one_pixel(name, batch_norm):
    maps = some_maps()
    if name == "ms":  # as of stages
        maps[-1] = some_maps(grid=2)[-1]
    head = MapHead(Form(name, batch_norm), WIDTHS, N_CLASSES, seed=0)
    assert head.modules["last"].weight.std().item() == pytest.approx(0.01, rel=0.3)
    assert not head.modules["last"].bias.any()
    unsettle(head.modules, by=0.3).eval()
    first = [part.permute(0, 3, 1, 2) for part in maps]
    x = first[-1]
    if name == "ms":
        x = torch.cat([F.interpolate(part, (3, 3), mode="bilinear") for part in first], dim=1)
    logits = head(maps)
    torch.testing.assert_close(logits, torch_linear(head, x))
    expected = F.interpolate(logits, (SIZE, SIZE), mode="bilinear")
    torch.testing.assert_close(head.on_input(logits, SIZE), expected)


def test_dropout_leaves_out_whole_features_of_an_image_and_makes_up_for_it():
    head = MapHead(Form("linear", False, dropout=0.5), [64], N_CLASSES, seed=0)
    maps = [torch.ones(2, 3, 3, 64)]
    dropped = head(maps, torch.Generator().manual_seed(3))
    stays = torch.rand(2, 1, 1, 64, generator=torch.Generator().manual_seed(3)) >= 0.5
    torch.testing.assert_close(dropped, head([maps[0] * stays * 2]))
    assert not torch.equal(dropped[0], dropped[1])
    assert torch.equal(head(maps)[0], head(maps)[1])


@pytest.mark.parametrize("ends_in_relu", [False, True])
@pytest.mark.parametrize("n_layers", [5, 3, 1])
def test_a_unet_is_four_blocks_that_double_the_grid(n_layers, ends_in_relu):
    maps = some_maps()[-n_layers:]
    widths = WIDTHS[-n_layers:]
    head = MapHead(Form("unet", ends_in_relu=ends_in_relu), widths, N_CLASSES, seed=0)
    unsettle(head.modules).eval()
    own = head.modules
    assert [own[f"up{i}"].out_channels for i in range(4)] == [8, 4, 2, N_CLASSES]

    def conv(module, x):
        if isinstance(module, nn.Conv2d):
            return module(x)
        layer, norm, _ = module
        stored = norm.running_mean, norm.running_var, norm.weight, norm.bias
        return F.batch_norm(layer(x), *stored, eps=norm.eps).relu()

    first = [part.permute(0, 3, 1, 2) for part in maps]
    x, (*earlier, _) = first[-1], first
    earlier = [*([first[0]] * 4), *earlier][-4:]  # the first again where there are no more
    for number, beside in enumerate(reversed(earlier)):
        skip = conv(own[f"skip{number}"], beside)
        x = own[f"up{number}"](x)
        skip = F.interpolate(skip, x.shape[2:], mode="bilinear", align_corners=True)
        x = conv(own[f"join{number}"], torch.cat([x, skip], dim=1))
    logits = head(maps)
    assert logits.shape == (2, N_CLASSES, 48, 48)
    torch.testing.assert_close(logits, x)
    assert (logits >= 0).all() == ends_in_relu
    expected = F.interpolate(logits, (SIZE, SIZE), mode="bicubic")
    torch.testing.assert_close(head.on_input(logits, SIZE), expected)


@pytest.mark.parametrize("name", HEADS)
def test_first_weights_follow_from_the_seed_alone(name):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same, other = (MapHead(Form(name), WIDTHS, N_CLASSES, seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    states = [torch.cat([p.flatten() for p in d.modules.parameters()]) for d in (one, same, other)]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
    assert one.n_parameters == len(states[0])


# ------------------------------------------------------------------ losses


def test_dice_by_hand():
    """Two pixels, of which the first is class 1: p = .8 there and .4 in the other."""
    logits = torch.log(torch.tensor([[[[0.2, 0.6]], [[0.8, 0.4]]]]))  # (1, 2, 1, 2)
    wanted = torch.tensor([[[1, 0]]])
    of_classes = 1 - 2 * 0.6 / (1 + 0.8), 1 - 2 * 0.8 / (1 + 1.2)
    assert float(loss_of(logits, wanted, "dice")) == pytest.approx(sum(of_classes) / 2, abs=1e-5)
    ce = -(math.log(0.8) + math.log(0.6)) / 2
    assert float(loss_of(logits, wanted, "ce")) == pytest.approx(ce)
    both = float(loss_of(logits, wanted, "ce+dice"))
    assert both == pytest.approx(ce + sum(of_classes) / 2, abs=1e-5)
    # Where the second pixel counts nowhere, class 0 is neither there nor elsewhere but for .2.
    wanted = torch.tensor([[[1, 255]]])
    alone = (1 - 1e-5 / (0.2 + 1e-5) + 1 - 1.6 / 1.8) / 2
    assert float(loss_of(logits, wanted, "dice")) == pytest.approx(alone, abs=1e-5)
    assert float(loss_of(logits, wanted, "ce")) == pytest.approx(-math.log(0.8))


def slow_loss(logits, wanted, name, weights):
    n, n_classes = logits.shape[:2]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    ce = total = 0.0
    dices = np.zeros((n, n_classes))
    for i in range(n):
        for c in range(n_classes):
            own = wanted[i] == c
            known = wanted[i] != 255
            both, each = p[i, c][own].sum(), p[i, c][known].sum() + own.sum()
            dices[i, c] = 1 - (2 * both + 1e-5) / (each + 1e-5)
            ce -= weights[c] * np.log(p[i, c][own]).sum()
            total += weights[c] * own.sum()
    dice = (dices * weights).sum(axis=1).mean() / weights.sum()
    return {"ce": ce / total, "dice": dice, "ce+dice": ce / total + dice}[name]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("is_weighted", [False, True])
def test_losses_pixel_by_pixel_and_nothing_of_ignored_ones(name, is_weighted):
    logits = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    wanted = torch.randint(0, 3, (2, 4, 4))
    wanted[0, :2], wanted[1, 0, 0] = 255, 255
    weights = np.array([1.0, 2.0, 0.5] if is_weighted else [1.0, 1.0, 1.0])
    loss = loss_of(logits, wanted, name, torch.from_numpy(weights) if is_weighted else None)
    expected = slow_loss(logits.detach().numpy(), wanted.numpy(), name, weights)
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    is_known = (wanted != 255)[:, None].expand_as(logits)
    assert not logits.grad[~is_known].any()
    assert logits.grad[is_known].all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_a_known_pixel_teaches_nothing(name):
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = loss_of(logits, torch.full((1, 2, 2), 255), name, torch.ones(3))
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


def test_balanced_classes_weigh_alike():
    n_pixels = np.array([60, 30, 0, 10])
    weights = balanced_weights(n_pixels)
    np.testing.assert_allclose(weights * n_pixels, [100 / 3, 100 / 3, 0, 100 / 3])


# ------------------------------------------------------------------ what is compared on val


def test_values_by_hand():
    counts = np.array(
        [  # both, predicted, true; of background and two structures
            [[8, 1, 0], [8, 4, 0], [9, 2, 1]],  # Dice 16/17, 2/6, 0: the second is missed
            [[5, 0, 2], [6, 1, 3], [7, 0, 2]],  # 10/13, none, 4/5: the first isn't there
        ]
    )
    assert value_of(counts, "dice", 0) == pytest.approx((1 / 3 + (0 + 4 / 5) / 2) / 2)
    both = [(1 / 3 + 1 / 5) / 2, (0 + (4 / 5 + 2 / 3) / 2) / 2]  # Jaccard of 1/3, of 4/5
    assert value_of(counts, "dice_jaccard", 0) == pytest.approx(sum(both) / 2)
    ious = 13 / (14 + 16 - 13), 1 / (5 + 2 - 1), 2 / (3 + 3 - 2)
    assert value_of(counts, "miou", 0) == pytest.approx(sum(ious) / 3)
    assert math.isnan(value_of(counts[:, :, :1], "dice", 0))


# ------------------------------------------------------------------ training


def bare_loop(ground, how, lr, seed):
    """The same by torch's own layers, a batch after the other."""
    head = MapHead(how.form, ground.widths, ground.n_classes, seed)
    weights = head.modules.parameters()
    if how.optimiser == "sgd":
        step = torch.optim.SGD(weights, lr, momentum=0.9, weight_decay=how.weight_decay)
    else:
        step = torch.optim.AdamW(weights, lr, weight_decay=how.weight_decay)
    order = np.random.default_rng((seed, 1))
    stream = np.concatenate([order.permutation(7) for _ in range(how.n_steps)])
    head.modules.train()
    for number in range(how.n_steps):
        rows = stream[number * 3 : number * 3 + 3]
        maps, wanted = ground.parts(rows), torch.from_numpy(ground.masks(rows)).long()
        logits = head([torch.from_numpy(part) for part in maps])
        mode = "bicubic" if how.form.name == "unet" else "bilinear"
        logits = F.interpolate(logits, (SIZE, SIZE), mode=mode)
        loss = F.cross_entropy(logits, wanted, ignore_index=255)
        step.zero_grad()
        loss.backward()
        if how.clip:
            nn.utils.clip_grad_norm_(head.modules.parameters(), how.clip)
        step.param_groups[0]["lr"] = lr * how.factor(number)
        step.step()
    return head


@pytest.mark.parametrize(
    "changed",
    [
        {"warmup": 3},
        {"optimiser": "sgd"},
        {"form": Form("ms")},
        {"form": Form("unet"), "clip": 0.5, "optimiser": "sgd"},
    ],
)
def test_training_is_that_of_a_bare_loop_and_of_no_other_head(changed):
    ground, how = some_ground(), course(**changed)
    rows = np.arange(7)
    training = Training(ground, rows, how, [0.3, 0.01], seed=2)
    training.run()
    for head, lr in zip(training.heads, training.lrs, strict=True):
        expected = bare_loop(ground, how, lr, seed=2).modules.state_dict()
        torch.testing.assert_close(
            dict(head.modules.state_dict()), dict(expected), rtol=2e-3, atol=1e-5
        )
    alone = Training(ground, rows, how, [0.01], seed=2)
    alone.run()
    for name, found in alone.heads[0].modules.state_dict().items():
        assert torch.equal(found, training.heads[1].modules.state_dict()[name])


def test_a_look_between_steps_changes_none():
    ground, rows = some_ground(), np.arange(7)
    looked, plain = (Training(ground, rows, course(), [0.01], seed=2) for _ in range(2))
    looked.run(2)
    values(ground, looked.heads, rows, "dice")  # batch norm by its running statistics
    for training in (looked, plain):
        training.run()
    for name, found in plain.heads[0].modules.state_dict().items():
        assert torch.equal(found, looked.heads[0].modules.state_dict()[name])


def test_rates_rise_and_fall():
    plain, warm = course(n_steps=100), course(n_steps=100, warmup=10)
    assert [plain.factor(step) for step in (0, 50)] == pytest.approx([1, 0.5])
    assert warm.factor(0) == 1e-6
    assert warm.factor(5) == pytest.approx(0.5 * 0.95)
    assert warm.factor(50) == plain.factor(50)
    assert plain.factor(99) < 1e-3


def test_a_killed_training_that_goes_on_is_as_if_it_had_not_been(tmp_path, monkeypatch):
    monkeypatch.setattr(decoder_training, "SAVE_SECONDS", 0)
    whole = some_ground()
    calls = []

    def dying(rows):
        calls.append(rows)
        if len(calls) == 6:
            raise OSError("killed")
        return whole.parts(rows)

    how, rows = course(form=Form("linear", dropout=0.3)), np.arange(7)
    expected = Training(whole, rows, how, [0.1, 0.01], seed=1)
    expected.run()
    checkpoint = Checkpoint(tmp_path / "runs" / "last.pt")
    with pytest.raises(OSError, match="killed"):
        Training(some_ground(parts=dying), rows, how, [0.1, 0.01], seed=1).run(
            checkpoint=checkpoint
        )
    state = checkpoint.load()
    assert state
    assert 0 < state["n_done"] < how.n_steps
    calls.extend([None] * 10)
    before, left = len(calls), how.n_steps - state["n_done"]
    again = Training(some_ground(parts=dying), rows, how, [0.1, 0.01], seed=1)
    assert again.go_on(checkpoint)
    again.run(checkpoint=checkpoint)
    assert len(calls) == before + left
    for head, other in zip(again.heads, expected.heads, strict=True):
        for name, found in other.modules.state_dict().items():
            assert torch.equal(found, head.modules.state_dict()[name])
    done = Training(some_ground(parts=dying), rows, how, [0.1, 0.01], seed=1)
    assert done.go_on(checkpoint)
    done.run(checkpoint=checkpoint)  # it ended: nothing is read
    assert len(calls) == before + left
    assert torch.equal(
        done.heads[0].modules["last"].weight, expected.heads[0].modules["last"].weight
    )


def test_a_damaged_checkpoint_is_as_none(tmp_path):
    checkpoint = Checkpoint(tmp_path / "last.pt")
    assert checkpoint.load() is None
    checkpoint.save({"n_done": 3})
    assert checkpoint.load() == {"n_done": 3}
    content = bytearray(checkpoint.path.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.path.write_bytes(content)
    assert checkpoint.load() is None
    checkpoint.remove()
    assert not checkpoint.path.exists()


def test_a_head_learns_what_its_tokens_say():
    ground, rows = some_ground(16), np.arange(16)
    how = course(n_steps=150, batch_size=8, weight_decay=0.0)
    training = Training(ground, rows, how, [0.03], seed=0)
    before = values(ground, training.heads, rows, "dice")
    training.run()
    (after,) = values(ground, training.heads, rows, "dice")
    assert before[0] < 0.5 < after
    counts = np.zeros((16, 3, N_CLASSES), int)
    for part, (logits,) in answer(ground, training.heads, rows):
        assert len(part) == len(logits) == 16
        said = F.interpolate(logits, (SIZE, SIZE), mode="bilinear").argmax(dim=1).numpy()
        for row, (one, true) in enumerate(zip(said, ground.masks(part), strict=True)):
            for c in range(N_CLASSES):
                one_c, true_c = (one == c) & (true != 255), true == c
                counts[row, :, c] = (one_c & true_c).sum(), one_c.sum(), true_c.sum()
    assert value_of(counts, "dice", 0) == pytest.approx(after)


def test_a_head_that_overflows_has_no_value():
    ground, rows = some_ground(), np.arange(7)
    training = Training(ground, rows, course(optimiser="sgd"), [1e30, 0.01], seed=0)
    training.run()
    first, second = values(ground, training.heads, rows, "dice")
    assert math.isnan(first)
    assert not math.isnan(second)


def test_masks_are_made_once_as_long_as_they_take_little(monkeypatch):
    made = []

    def make(rows):
        made.extend(rows.tolist())
        return rows[:, None, None].astype(np.uint8) * np.ones((2, 2), np.uint8)

    held = HeldMasks(make, 5, 2)
    for rows in ([3, 1], [1, 4], [4, 4, 3]):
        assert held(np.array(rows))[:, 0, 0].tolist() == rows
    assert sorted(made) == [1, 3, 4]
    monkeypatch.setattr(decoder_training, "MASK_BYTES", 19)
    held = HeldMasks(make, 5, 2)
    assert held(np.array([3, 3]))[:, 0, 0].tolist() == [3, 3]
    assert held(np.array([3]))[:, 0, 0].tolist() == [3]
    assert len(made) == 6


def test_pixels_of_classes_are_counted_without_ignored_ones():
    ground = some_ground(20)
    masks = ground.masks(np.arange(20))
    expected = [(masks == c).sum() for c in range(N_CLASSES)]
    assert ground.n_pixels(np.arange(20)).tolist() == expected
    assert sum(expected) < masks.size
