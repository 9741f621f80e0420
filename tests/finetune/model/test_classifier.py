"""The network that is fine-tuned: what it computes, what of it trains, and what is exported."""

import dataclasses
import sys
from typing import Any

import numpy as np
import pytest
import timm
import torch
from looking import some
from networks import unsettle
from safetensors.torch import save_file
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

from cache import RequestError
from extract.encoders.encoder import (
    Description,
    Weights,
    describe,
    find_weights,
    load_encoder,
    load_network,
)
from extract.encoders.libraries import open_clip as from_open_clip
from extract.encoders.libraries import timm as from_timm
from extract.encoders.libraries import transformers as from_transformers
from extract.encoders.table.entry import Entry
from finetune.config import LoraConfig, ModelConfig, TrainConfig
from finetune.model import heads
from finetune.model.adapters import SplitAttention
from finetune.model.classifier import (
    Classifier,
    build_classifier,
    check_gradients,
    check_model,
    export_encoder,
    parameter_groups,
    updates_batchnorm,
    what_trains,
)
from probe.solvers.epochs import first_weights

CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 64, "layers": 3, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 7, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1},
}
TRUNK = {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 160}
BIOMED = {**CLIP, "vision_cfg": {**TRUNK, "timm_model_pretrained": False}}
DINO = {
    "model_type": "dinov2",
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


def describe_toy(module: Any, size: int | None = None, **entry: Any) -> Description:
    made = Entry("toy", entry.pop("encoder", "toy"), **entry)
    outline = module.outline(made, size)
    return Description("toy", made, outline, tuple(range(outline.anatomy.n_layers)), "final")


def open_clip(config: dict[str, Any]) -> Description:
    return describe_toy(from_open_clip, library="open_clip", config=config)


def small_timm(name: str, size: int, **arguments: Any) -> Description:
    return describe_toy(from_timm, size, encoder=name, arguments=arguments)


SWIN = {"embed_dim": 32, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8)}
TOYS = {
    "vit": lambda: describe("test_vit", 64),
    "fc_norm and register": lambda: describe("test_vit2", 64),
    "attention pool": lambda: describe("test_vit3", 64),
    "eva02": lambda: small_timm("eva02_tiny_patch14_224", 56, depth=3),
    "resnet": lambda: describe("test_resnet", 64),
    "convnext": lambda: describe("test_convnext", 64),
    "swin": lambda: small_timm("swin_tiny_patch4_window7_224", 64, **SWIN),
    "clip": lambda: open_clip(CLIP),
    "biomedclip": lambda: open_clip(BIOMED),
    "transformers": lambda: describe_toy(from_transformers, library="transformers", config=DINO),
}
TRANSFORMERS = ("vit", "eva02", "swin", "clip", "biomedclip", "transformers")


def build(toy: str, config: ModelConfig | None = None, seed: int = 0, n: int = 3) -> Classifier:
    weights = Weights(None, seed=5)
    classifier, _ = build_classifier(
        TOYS[toy](), weights, config or ModelConfig(), n, seed, say=lambda line: None
    )
    return classifier


def some_images(toy: str, n: int = 2) -> Tensor:
    size = TOYS[toy]().size
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def lora(**changes: Any) -> ModelConfig:
    of_lora = {"rank": 4, **{k: changes.pop(k) for k in ("targets", "train_bias") if k in changes}}
    return ModelConfig(mode="lora", lora=LoraConfig(**of_lora), **changes)


def state(classifier: Classifier) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in classifier.state_dict().items()}


def changed_by_a_step(classifier: Classifier, images: Tensor) -> set[str]:
    """Names of the tensors that two steps of plain SGD change (LoRA's A moves at the second)."""
    before = state(classifier)
    optimiser = torch.optim.SGD((p for p in classifier.parameters() if p.requires_grad), lr=0.5)
    classifier.set_training()
    for _ in range(2):
        optimiser.zero_grad()
        nn.functional.cross_entropy(classifier(images), torch.arange(len(images))).backward()
        optimiser.step()
    after = classifier.state_dict()
    return {name for name in after if not torch.equal(before[name], after[name])}


def close(found: Tensor, expected: Tensor) -> None:
    """Equal but for the order of float32 sums."""
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)


# ---------------------------------------------------------------------------- what a head sees


@pytest.mark.parametrize(
    ("toy", "pools"),
    [
        ("vit", "head cls mean"),
        ("fc_norm and register", "head mean"),
        ("attention pool", "head mean"),
        ("eva02", "head cls mean"),
        ("resnet", "head mean"),
        ("convnext", "head mean"),
        ("swin", "head mean"),
        ("clip", "head cls mean proj"),
        ("biomedclip", "head cls mean proj"),
        ("transformers", "head cls mean"),
    ],
)
def test_a_head_sees_what_extract_stores(toy, pools):
    description, images = TOYS[toy](), some_images(toy)
    encoder, _ = load_encoder(description, Weights(None, seed=5))
    stored = encoder(images)
    for pool in some(pools.split()):
        classifier = build(toy, ModelConfig(mode="head", pool=pool)).eval()
        last = f"layers/{description.anatomy.n_layers - 1:02d}/{pool}"
        expected = stored[pool] if pool in ("head", "proj") else stored[last]
        with torch.no_grad():
            close(classifier.reader(images), expected)
            weight, bias = classifier.head.weight, classifier.head.bias
            close(classifier(images), expected @ weight.T + bias)


def test_the_linear_head_starts_as_the_probes():
    classifier = build("vit", ModelConfig(mode="head"), seed=7, n=2)
    first = first_weights(64, 2, 7)
    np.testing.assert_array_equal(classifier.head.weight.detach(), first[:, :-1])
    np.testing.assert_array_equal(classifier.head.bias.detach(), first[:, -1])


def test_a_frozen_encoder_keeps_no_graph():
    classifier = build("vit", ModelConfig(mode="head"))
    seen = []
    classifier.head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    assert classifier(some_images("vit")).requires_grad
    assert not seen[0].requires_grad


def test_images_of_a_sample_are_averaged_before_the_head():
    classifier, images = build("vit").eval(), some_images("vit", 5)
    sample = torch.tensor([1, 0, 1, 1, 0])
    vectors = classifier.reader(images)
    expected = torch.stack([vectors[sample == i].mean(dim=0) for i in range(2)])
    close(classifier(images, sample), classifier.head(expected))


def test_one_seed_is_one_network():
    one, same, other = (build("vit", lora(), seed=seed) for seed in (3, 3, 4))
    assert all(torch.equal(tensor, state(same)[name]) for name, tensor in state(one).items())
    different = {n for n, t in state(one).items() if not torch.equal(t, state(other)[n])}
    assert any("lora_A" in name for name in different)
    assert {n for n in different if "lora" not in n} == {"head.weight", "head.bias"}


USERS_CODE = """
import torch
from torch import nn
from extract import UserEncoder

def make_encoder(size=16):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 4, 4, 4, bias=False), nn.Conv2d(4, 6, 1, bias=False),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )
    return UserEncoder(
        model, size=size, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), layers=["0", "1"],
        layout="BDHW",
    )
"""


@pytest.fixture
def users(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(USERS_CODE)
    return describe(f"{path}:make_encoder", None)


def test_a_users_own_network_is_never_trained_itself(users):
    original = users.outline.build().module
    before = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    classifier, _ = build_classifier(users, Weights(None), ModelConfig(), 2, 0, say=print)
    assert changed_by_a_step(classifier, torch.randn(2, 3, 16, 16))
    assert all(torch.equal(tensor, before[n]) for n, tensor in original.state_dict().items())


# ---------------------------------------------------------------------------- modes


def expected_changes(classifier: Classifier, mode: str) -> set[str]:
    """By name, as a person would say it of the toy "vit"."""
    names = {n for n, _ in classifier.named_parameters()}
    of_encoder = {n for n in names if n.startswith("encoder.")}
    if mode == "partial":
        of_encoder = {
            n for n in of_encoder if n.startswith(("encoder.blocks.4", "encoder.blocks.5"))
        }
        of_encoder |= {"encoder.norm.weight", "encoder.norm.bias"}
    if mode == "lora":
        of_encoder = {n for n in of_encoder if "lora_" in n}
    if mode == "bitfit":
        of_encoder = {n for n in of_encoder if n.endswith(".bias")}
    if mode == "head":
        of_encoder = set()
    return of_encoder | {"head.weight", "head.bias"}


MODES = {
    "full": ModelConfig(),
    "head": ModelConfig(mode="head"),
    "partial": ModelConfig(mode="partial", freeze_until=4),
    "lora": lora(),
    "bitfit": ModelConfig(mode="bitfit"),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_changes_exactly_its_parameters(mode):
    classifier = build("vit", MODES[mode])
    expected = expected_changes(classifier, mode)
    assert changed_by_a_step(classifier, some_images("vit")) == expected
    found = what_trains(classifier)
    counts = sum(part.n_training for part in (found.encoder, found.adapters, found.head))
    assert counts == sum(p.numel() for n, p in classifier.named_parameters() if n in expected)


@pytest.mark.parametrize("toy", TOYS)
def test_every_trained_parameter_gets_a_gradient(toy):
    """DDP waits for each of them; what the pool doesn't depend on is left out."""
    for config in [ModelConfig(pool="mean"), ModelConfig(mode="partial", freeze_until=1)]:
        classifier = unsettle(build(toy, config))
        classifier.set_training()
        classifier(some_images(toy, 4)).square().sum().backward()
        for name, parameter in classifier.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name


@pytest.mark.parametrize(
    ("toy", "config", "expected"),
    [
        # What the head doesn't see doesn't train.
        ("attention pool", ModelConfig(pool="mean"), {"attn_pool"}),
        ("clip", ModelConfig(pool="head"), {"projection"}),
        # Layer 0 of a ResNet is its stem; layer 1 the first stage.
        ("resnet", ModelConfig(mode="partial", freeze_until=1), {"conv1", "bn1"}),
        (
            "vit",
            ModelConfig(mode="partial", freeze_until=0),
            {"cls_token", "pos_embed", "patch_embed"},
        ),
    ],
)
def test_what_stays_frozen(toy, config, expected):
    parameters = build(toy, config).encoder.named_parameters()
    assert {n.split(".")[0] for n, p in parameters if not p.requires_grad} == expected


@pytest.mark.parametrize("toy", ["vit", "eva02", "clip", "transformers"])
def test_the_final_norm_can_stay(toy):
    config = ModelConfig(mode="partial", freeze_until=1, freeze_norm=True, pool="cls")
    classifier = build(toy, config)
    training = {n for n, p in classifier.encoder.named_parameters() if p.requires_grad}
    assert training
    prefixes = tuple(f"{tap.module}." for tap in TOYS[toy]().anatomy.taps[1:])
    assert all(name.startswith(prefixes) for name in training)


def test_trained_biases_of_adapted_layers():
    classifier = build("vit", lora(train_bias=True))
    biases = {n for n, p in classifier.named_parameters() if p.requires_grad and "lora" not in n}
    ends = {name.removeprefix("encoder.blocks.")[2:] for name in biases if "blocks" in name}
    assert ends == {f"{n}.base_layer.bias" for n in ("attn.qkv", "mlp.fc1", "mlp.fc2")}


@pytest.mark.parametrize(
    ("toy", "config", "message"),
    [
        (
            "vit",
            ModelConfig(mode="partial", freeze_until=99),
            "--freeze-until 99: test_vit has blocks 0 to 5",
        ),
        (
            "vit",
            ModelConfig(mode="partial", freeze_until=3, cut_after=2),
            "blocks 0 to 2 before --cut-after 2",
        ),
        ("resnet", ModelConfig(freeze_norm=True), "test_resnet has no norm behind its last layer"),
        (
            "resnet",
            lora(),
            "no linear layer of test_resnet .* its linear layers: none; take --mode",
        ),
        ("vit", lora(targets=("w12",)), "has no layer w12; its linear layers: qkv .6., proj .6."),
        ("clip", lora(targets=("c_fc", "out_proj", "x")), "has no layer x; its linear layers"),
        ("vit", ModelConfig(cut_after=6), "--cut-after 6: test_vit has blocks 0 to 5"),
        (
            "resnet",
            ModelConfig(cut_after=1),
            "test_resnet .ResNet. takes --mode full, head, partial",
        ),
        ("convnext", ModelConfig(cut_after=1), "blocks stand in one row"),
        ("clip", ModelConfig(drop_path=0.1), "toy has no stochastic depth"),
        (
            "resnet",
            ModelConfig(grad_checkpointing=True, pool="mean"),
            "doesn't give its last layer .layer4 isn't called as one module.; take --pool head",
        ),
        ("swin", ModelConfig(mode="partial", freeze_until=4), "blocks 0 to 3"),
        ("resnet", ModelConfig(pool="cls"), "--pool cls: test_resnet has none; it has head, mean"),
        (
            "attention pool",
            lora(targets=("kv",), pool="mean"),
            "an adapter there gets no gradient",
        ),
        (
            "vit",
            ModelConfig(head="deit", head_weights="/nowhere.safetensors"),
            "no weight file at /nowhere.safetensors",
        ),
    ],
)
def test_what_cannot_be_is_one_line(toy, config, message):
    with pytest.raises(RequestError, match=message) as caught:
        check_model(TOYS[toy](), config)
    assert "\n" not in str(caught.value)


def test_encoders_that_lack_what_a_mode_needs(users, monkeypatch):
    with pytest.raises(RequestError, match=r"--mode bitfit: no parameter of .* is a bias"):
        check_model(users, ModelConfig(mode="bitfit"))
    description = describe("hiera_tiny_224", 224)
    with pytest.raises(RequestError, match="no module of hiera_tiny_224 has a layer"):
        check_model(description, ModelConfig(mode="partial", freeze_until=1))
    check_model(description, lora())
    classifier, _ = build_classifier(
        description, Weights(None, seed=0), ModelConfig(), 2, 0, say=print
    )
    with pytest.raises(RequestError, match="--layer-decay: .* can't be told apart"):
        parameter_groups(classifier, TrainConfig(layer_decay=0.5), 1e-4)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(RequestError, match=r"pip install 'medprobe\[finetune\]'"):
        check_model(TOYS["vit"](), lora())


def test_an_encoder_that_gets_nothing_back_is_an_error():
    classifier = build("vit")
    classifier(some_images("vit")).sum().backward()
    check_gradients(classifier)
    classifier.zero_grad()
    with torch.no_grad():
        classifier.head.weight.zero_()
    classifier(some_images("vit")).sum().backward()
    with pytest.raises(RequestError, match="--mode full: .* gradients of all 78 .* are zero"):
        check_gradients(classifier)
    classifier.encoder.requires_grad_(False)
    with pytest.raises(RequestError, match=r"none of its 300_864 parameters has a gradient"):
        what_trains(classifier)


def test_what_trains_in_words():
    found = what_trains(build("vit", MODES["partial"]))
    assert str(found.encoder) == "99_584 of 300_864 (33.10%): blocks.4..5, norm".replace(
        "99_584", f"{found.encoder.n_training:_}"
    ).replace("33.10%", f"{found.encoder.n_training / 300_864:.2%}")
    assert str(found.adapters) == "none"
    assert str(found.head) == "195 of 195 (100.00%): weight, bias"


# ---------------------------------------------------------------------------- training mode


def test_batchnorm_follows_what_trains():
    def updating(config):
        classifier = build("resnet", config)
        changed = changed_by_a_step(classifier, some_images("resnet", 3))
        names = {n.split(".")[1] for n in changed if n.endswith("running_mean")} - {"conv1"}
        assert updates_batchnorm(classifier) == bool(names)
        return names

    stages = {"layer1", "layer2", "layer3", "layer4"}
    assert updating(ModelConfig()) == stages | {"bn1"}
    assert updating(ModelConfig(mode="head")) == set()
    assert updating(ModelConfig(mode="head", batchnorm="train")) == stages | {"bn1"}
    assert updating(ModelConfig(batchnorm="eval")) == set()
    assert updating(ModelConfig(mode="partial", freeze_until=3)) == {"layer3", "layer4"}


def test_frozen_parts_do_not_drop_anything():
    config = ModelConfig(mode="partial", freeze_until=3, drop_path=0.5)
    classifier = build("vit", config)
    classifier.set_training()
    training = {n for n, m in classifier.encoder.named_modules() if m.training}
    dropping = {n for n, m in classifier.encoder.named_modules() if "DropPath" in type(m).__name__}
    assert dropping - training == {f"blocks.{i}.drop_path{k}" for i in (1, 2) for k in (1, 2)}
    assert "pos_drop" not in training
    assert {"blocks.3", "blocks.5.attn", "norm"} <= training
    assert not {"patch_embed", "blocks.2", "blocks.2.attn"} & training
    classifier.eval()
    assert not any(module.training for module in classifier.modules())


def test_drop_path_rates_are_timms():
    def rates(model):
        found = [(n, m.drop_prob) for n, m in model.named_modules() if hasattr(m, "drop_prob")]
        return [(n, round(p, 6)) for n, p in found if p]

    for toy, name in [("vit", "test_vit"), ("swin", "swin_tiny_patch4_window7_224")]:
        arguments = {"img_size": 64, **(SWIN if toy == "swin" else {})}
        own = timm.create_model(name, drop_path_rate=0.3, num_classes=0, **arguments)
        assert rates(build(toy, ModelConfig(drop_path=0.3)).encoder) == rates(own) != []
        assert rates(build(toy).encoder) == []  # though timm's Swin has 0.1 by default


@pytest.mark.parametrize("toy", ["vit", "swin", "clip", "transformers"])
def test_gradient_checkpointing_changes_no_gradient(toy):
    def gradients(checkpointing):
        config = ModelConfig(pool="mean", grad_checkpointing=checkpointing)
        classifier = unsettle(build(toy, config))
        classifier.set_training()
        classifier(some_images(toy)).square().sum().backward()
        return {n: p.grad for n, p in classifier.named_parameters() if p.grad is not None}

    plain, again = gradients(False), gradients(True)
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-4, atol=1e-6)


# ---------------------------------------------------------------------------- cutting


@pytest.mark.parametrize("norm", [True, False])
def test_a_cut_vit_is_its_block_and_the_final_norm(norm):
    classifier, images = (
        build("vit", ModelConfig(cut_after=2, pool="mean")).eval(),
        some_images("vit"),
    )
    network, _, _ = load_network(TOYS["vit"](), Weights(None, seed=5))
    (layer,) = network.module.forward_intermediates(
        images, indices=[2], norm=norm, intermediates_only=True
    )
    pooled = layer.mean(dim=(2, 3))
    assert torch.allclose(classifier.reader(images), pooled, rtol=1e-4, atol=2e-5) == norm
    assert len(classifier.encoder.blocks) == 3


@pytest.mark.parametrize("toy", TRANSFORMERS)
def test_a_cut_encoder_computes_nothing_behind(toy):
    description = TOYS[toy]()
    whole = build(toy, ModelConfig(pool="head"))
    cut = build(toy, ModelConfig(pool="head", cut_after=1))
    last = tuple(f"encoder.{tap.module}." for tap in description.anatomy.taps[2:])
    left = {n for n in state(whole) if not n.startswith(last) and not n.startswith("head.")}
    gone = left - state(cut).keys()
    assert gone == ({"encoder.norm.weight", "encoder.norm.bias"} if toy == "swin" else set())
    assert cut.head.in_features == (64 if toy == "swin" else whole.head.in_features)
    assert cut(some_images(toy)).shape == (2, 3)
    assert not any(n.startswith(last) for n in state(cut))


def test_each_stage_of_seem_keeps_its_own_norm():
    classifier = build_classifier(
        describe("seem", 64), Weights(None, seed=0), ModelConfig(cut_after=1), 2, 0, say=print
    )[0].eval()
    images = torch.randn(1, 3, 64, 64)
    network, _, _ = load_network(describe("seem", 64), Weights(None, seed=0))
    maps = network.module.eval().forward_intermediates(images, norm=True, intermediates_only=True)
    close(classifier.reader(images), maps[1].mean(dim=(2, 3)))


# ---------------------------------------------------------------------------- adapters


@pytest.mark.parametrize("toy", TRANSFORMERS)
def test_adapters_change_nothing_at_first(toy):
    plain, adapted = build(toy).eval(), build(toy, lora()).eval()
    close(adapted(some_images(toy)), plain(some_images(toy)))


@pytest.mark.parametrize("toy", TRANSFORMERS)
def test_every_adapter_learns_and_nothing_else_moves(toy):
    classifier = unsettle(build(toy, lora()))
    before = state(classifier)
    changed = changed_by_a_step(classifier, some_images(toy))
    adapters = {name for name in before if ".lora_" in name}
    assert changed == adapters | {"head.weight", "head.bias"}


def test_attention_in_parts_is_torchs():
    attention = nn.MultiheadAttention(16, 4, batch_first=True)
    tokens = torch.randn(2, 5, 16)
    expected, _ = attention(tokens, tokens, tokens, need_weights=False)
    found, _ = SplitAttention(attention)(tokens, tokens, tokens)
    close(found, expected)


def test_by_default_attention_and_mlp_are_adapted():
    classifier = build("vit", lora())
    adapted = {n for n, m in classifier.encoder.named_modules() if hasattr(m, "base_layer")}
    ends = ("attn.qkv", "mlp.fc1", "mlp.fc2")
    assert adapted == {f"blocks.{i}.{end}" for i in range(6) for end in ends}


# ---------------------------------------------------------------------------- DeiT


@pytest.fixture
def small_deit(monkeypatch):
    monkeypatch.setattr(heads, "DEIT", "deit_tiny_patch16_224")


DEIT = ModelConfig(head="deit", head_weights="random")


def test_deit_behind_its_own_patches_is_deit():
    model = timm.create_model("deit_tiny_patch16_224", num_classes=0).eval()
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        tokens, expected = model.patch_embed(images), model(images)
        head = heads.DeitHead(model, 192, 196, nn.Linear(192, 2)).eval()
        head.project.weight.copy_(torch.eye(192))
        head.project.bias.zero_()
        head.norm = nn.Identity()
        close(head.embed(tokens), expected)


@pytest.mark.usefixtures("small_deit")
def test_deit_reads_raw_patch_tokens():
    images = some_images("vit")
    classifier = build("vit", DEIT).eval()
    network, _, _ = load_network(TOYS["vit"](), Weights(None, seed=5))
    (layer,) = network.module.forward_intermediates(
        images, indices=[5], output_fmt="NLC", intermediates_only=True
    )
    close(classifier.reader(images), layer)
    assert classifier.head.deit.pos_embed.shape == (1, 1 + 4 * 4, 192)
    assert classifier(images).shape == (2, 3)
    assert classifier(images, torch.tensor([0, 0])).shape == (1, 3)
    assert len(classifier.head_digest or "") == 64


@pytest.mark.usefixtures("small_deit")
@pytest.mark.parametrize("toy", ["resnet", "swin", "clip", "transformers"])
def test_deit_reads_maps_and_tokens_of_every_kind(toy):
    classifier = unsettle(build(toy, dataclasses.replace(DEIT, mode="head")))
    changed = changed_by_a_step(classifier, some_images(toy))
    assert changed == {n for n in state(classifier) if n.startswith("head.")}


# ---------------------------------------------------------------------------- the optimiser's groups


def test_layer_decay_is_timms():
    train = TrainConfig(layer_decay=0.7, decay_1d=False, weight_decay=0.05)
    classifier = build("vit")
    names = {id(p): name for name, p in classifier.encoder.named_parameters()}
    found = {
        names[id(p)]: (group["scale"], group["weight_decay"])
        for group in parameter_groups(classifier, train, 1e-4)
        for p in group["params"]
        if group["part"] == "encoder"
    }
    model = timm.create_model("test_vit", num_classes=3, img_size=64)
    names = {id(p): name for name, p in model.named_parameters()}
    expected = {
        names[id(p)]: (group["lr_scale"], group["weight_decay"])
        for group in param_groups_layer_decay(model, weight_decay=0.05, layer_decay=0.7)
        for p in group["params"]
        if not names[id(p)].startswith("head.")
    }
    assert found.keys() == expected.keys()
    for name, pair in found.items():
        assert pair == pytest.approx(expected[name]), name


def test_groups_hold_every_trained_parameter_once():
    train = TrainConfig(head_lr=1e-2)
    for mode, config in some(MODES.items()):
        classifier = build("vit", config)
        groups = parameter_groups(classifier, train, 1e-4)
        held = [id(p) for group in groups for p in group["params"]]
        wanted = [id(p) for p in classifier.parameters() if p.requires_grad]
        assert sorted(held) == sorted(wanted)
        rates = {group["part"]: (group["lr"], group["weight_decay"]) for group in groups}
        expected = {"encoder": (1e-4, 1e-2), "head": (1e-2, 1e-2)}
        assert rates == ({"head": expected["head"]} if mode == "head" else expected)
        torch.optim.AdamW(groups)


# ---------------------------------------------------------------------------- export


@pytest.mark.parametrize("mode", ["full", "lora"])
@pytest.mark.parametrize("toy", TOYS)
def test_extract_takes_what_was_trained(toy, mode, tmp_path):
    if mode == "lora" and toy in ("resnet", "convnext"):
        pytest.skip("no linear layers")
    pool = "mean"
    classifier = build(
        toy, lora(pool=pool, train_bias=True) if mode == "lora" else ModelConfig(pool=pool)
    )
    unsettle(classifier)
    changed_by_a_step(classifier, some_images(toy))
    before = state(classifier)
    save_file(export_encoder(classifier), tmp_path / "tuned.safetensors")
    assert all(torch.equal(tensor, before[n]) for n, tensor in state(classifier).items())
    description = TOYS[toy]()
    weights = find_weights(description, str(tmp_path / "tuned.safetensors"), 0, download=False)
    encoder, _ = load_encoder(description, weights)
    stored = encoder(some_images(toy))[f"layers/{description.anatomy.n_layers - 1:02d}/mean"]
    with torch.no_grad():
        live = classifier.eval().reader(some_images(toy))
    close(stored, live)


def test_an_exported_file_names_nothing_of_pefts():
    for toy in TRANSFORMERS:
        plain, adapted = export_encoder(build(toy)), export_encoder(build(toy, lora()))
        assert {n: t.shape for n, t in plain.items()} == {n: t.shape for n, t in adapted.items()}
        assert all(t.is_contiguous() and t.dtype == torch.float32 for t in plain.values())


def test_extract_refuses_a_cut_encoder(tmp_path):
    path = tmp_path / "cut.safetensors"
    save_file(export_encoder(build("vit", ModelConfig(cut_after=2))), path)
    weights = find_weights(TOYS["vit"](), str(path), 0, download=False)
    with pytest.raises(RequestError, match=r"tensors are missing .blocks.3"):
        load_encoder(TOYS["vit"](), weights)
