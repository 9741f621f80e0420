"""timm's filters: every one loads timm's own file, and the original release that it was written for.

An original file is made from timm's model by the reverse of what its filter does; where the
original's code is at hand (torchvision's), its names are compared.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import timm
import timm.models
import torch
import torchvision
from publishing import Tensors, shelf, small_arguments, small_networks, whole_timm
from torch import Tensor

from extract.encoders import resolve
from extract.encoders.encoder import Weights, describe, find_weights, load_encoder
from extract.encoders.libraries.timm import _classifier
from extract.encoders.table.entry import Entry
from extract.encoders.weights.published import Hub

__all__ = ["shelf", "small_networks"]


@dataclass(frozen=True)
class Network:
    """A small one of a module of timm's."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    size: int | None = None  # of the images; None: its own


DEPTH = {"depth": 2}
DEPTHS = {"depths": [1, 1, 1, 1]}
FAST = {  # those whose filter takes the tensors alone, and some more
    "vgg": Network("vgg11", {"mlp_ratio": 1 / 64}, 64),
    "densenet": Network("densenet121", {}, 64),
    "regnet": Network("regnetx_002", {}, 64),
    "crossvit": Network("crossvit_tiny_240", {"depth": [[1, 1, 0]] * 3}),
    "beit": Network("beit_base_patch16_224", small_arguments("beit")),
    "byobnet": Network("test_byobnet"),
    "convnext": Network("test_convnext"),
    "deit": Network("deit_tiny_distilled_patch16_224", small_arguments("deit")),
    "eva": Network("eva02_tiny_patch14_224", small_arguments("eva02_")),
    "swin_transformer": Network("swin_tiny_patch4_window7_224", small_arguments("swin")),
    "vision_transformer": Network("test_vit"),
    "vision_transformer_sam": Network("samvit_base_patch16", small_arguments("samvit"), 128),
}
SLOW = {
    "efficientvit_msra": Network("efficientvit_m0"),
    "cait": Network("cait_xxs24_224", DEPTH),
    "coat": Network("coat_lite_tiny"),
    "cpubone": Network("cpubone_nano", {}, 64),
    "csatv2": Network("csatv2"),
    "cspnext": Network("cspnext_tiny", {}, 64),
    "davit": Network("davit_tiny", DEPTHS, 64),
    "deepseek_vit": Network("deepseek_vit_412m", {"depth": 1}),
    "edgenext": Network("edgenext_xx_small", {}, 64),
    "efficientformer": Network("efficientformer_l1"),
    "efficientvim": Network("efficientvim_m1"),
    "fasternet": Network("fasternet_t0", {}, 64),
    "fastvit": Network("fastvit_t8", {}, 64),
    "focalnet": Network("focalnet_tiny_srf", {}, 64),
    "ghostnet": Network("ghostnet_100", {}, 64),
    "hiera": Network("hiera_tiny_224"),
    "hieradet_sam2": Network("sam2_hiera_tiny", {}, 128),
    "iformer": Network("iformer_t", {}, 64),
    "levit": Network("levit_128s"),
    "lowformer": Network("lowformer_b0"),
    "mambaout": Network("mambaout_femto", {}, 64),
    "maxxvit": Network("maxvit_rmlp_pico_rw_256", DEPTHS),
    "metaformer": Network("poolformer_s12", {}, 64),
    "mlp_mixer": Network("resmlp_12_224"),
    "mobilenetv5": Network("mobilenetv5_300m", {"channel_multiplier": 0.25}, 256),
    "mvitv2": Network("mvitv2_tiny"),
    "naflexvit": Network("naflexvit_base_patch16_gap", {**DEPTH, "embed_dim": 96, "num_heads": 2}),
    "nest": Network("nest_tiny_jx"),
    "nextvit": Network("nextvit_small", {}, 64),
    "pit": Network("pit_ti_224"),
    "pvt_v2": Network("pvt_v2_b0", {}, 56),
    "qwen3_vit": Network("qwen3_vit_88m", DEPTH),
    "rdnet": Network("rdnet_tiny", {}, 64),
    "sequencer": Network("sequencer2d_s", {"layers": [1, 1, 1, 1]}, 64),
    "shvit": Network("shvit_s1", {}, 64),
    "starnet": Network("starnet_s1", {}, 64),
    "swiftformer": Network("swiftformer_xs"),
    "swin_transformer_v2": Network("swinv2_tiny_window8_256", DEPTHS),
    "swin_transformer_v2_cr": Network("swinv2_cr_tiny_ns_224", DEPTHS),
    "tiny_vit": Network("tiny_vit_5m_224"),
    "tnt": Network("tnt_s_patch16_224", DEPTH),
    "tresnet": Network("tresnet_m", {}, 64),
    "vision_transformer_hybrid": Network("vit_tiny_r_s16_p8_224", DEPTH),
    "vision_transformer_relpos": Network("vit_relpos_small_patch16_224", DEPTH),
    "vitamin": Network("vitamin_small_224"),
    "xcit": Network("xcit_nano_12_p16_224", DEPTH),
}
NETWORKS = FAST | SLOW
REFUSED = {"gemma4_vit"}  # at any size: test_table.py


def test_every_module_of_timm_s_that_has_a_filter_is_here():
    folder = Path(str(timm.models.__file__)).parent
    found = {
        path.stem
        for path in folder.glob("*.py")
        if "pretrained_filter_fn=" in path.read_text(encoding="utf-8") and path.stem[0] != "_"
    }
    assert len(found) > 40
    assert found == set(NETWORKS) | REFUSED


def test_a_norm_beside_the_classifier_belongs_to_it():
    with torch.device("meta"):
        model = timm.create_model("levit_128s", num_classes=0)
    config = timm.get_pretrained_cfg("levit_128s")
    assert config is not None
    assert set(_classifier(model, "levit_128s", config, {})) == {
        *("head.linear", "head.bn", "head_dist.linear", "head_dist.bn")
    }


def full_name(network: Network) -> str:
    config: Any = timm.get_pretrained_cfg(network.name)
    return f"{config.architecture}.{config.tag}" if config.tag else config.architecture


def of_timm(network: Network, size: int, described: Mapping[str, Any], **options: Any) -> Any:
    """The model, headless, by timm's own loading."""
    options |= {"img_size": size} if "img_size" in described else {}
    options |= {"pretrained": True, "num_classes": 0}
    return timm.create_model(full_name(network), **network.arguments, **options).eval()


def head(model: Any, images: Tensor) -> Tensor:
    return model.forward_head(model.forward_features(images), pre_logits=True).flatten(1)


def listed() -> list[Any]:
    return [
        pytest.param(module, marks=() if module in FAST else pytest.mark.slow)
        for module in sorted(NETWORKS)
    ]


@pytest.mark.parametrize("module", listed())
def test_timm_s_own_file_loads_as_by_timm(module, shelf, small_networks, monkeypatch):
    network = NETWORKS[module]
    config = timm.get_pretrained_cfg(network.name)
    entry = Entry("small", full_name(network), arguments=network.arguments)
    monkeypatch.setitem(resolve.SHORT_NAMES, "small", entry)
    description = describe("small", network.size)
    place = Hub(config.hf_hub_id, (config.hf_hub_filename or "model.safetensors",))
    state = dict(whole_timm(full_name(network), network.arguments).state_dict())
    path = shelf.keep(place, state)
    weights = find_weights(description, "pretrained", 0, download=False)
    assert weights.path == path
    encoder, _ = load_encoder(description, weights)
    expected = of_timm(network, description.size, description.arguments)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(encoder.model.state_dict()[name], tensor), name
    images = torch.randn(1, 3, description.size, description.size)
    with torch.inference_mode():
        torch.testing.assert_close(encoder(images)["head"], head(expected, images))


# ---------------------------------------------------------------------------- original releases


Write = Callable[[Tensors], Any]


def renamed(*rules: tuple[str, str], inside: str = "", beside: tuple[str, ...] = ()) -> Write:
    """timm's names by an original's rules, in a container, with what else the original has."""

    def write(own: Tensors) -> Any:
        file: Tensors = {}
        for name, tensor in own.items():
            for pattern, replacement in rules:
                name = re.sub(pattern, replacement, name)
            assert name not in file
            file[name] = tensor
        file |= {name: torch.ones(3) for name in beside}
        return {inside: file, "epoch": 3} if inside else file

    return write


def down(pattern: str, replacement: str) -> Callable[[Tensors], Tensors]:
    """Numbers that are one higher in timm."""
    return lambda own: {
        re.sub(pattern, lambda m: replacement.format(int(m[1]) - 1), name): tensor
        for name, tensor in own.items()
    }


def then(*steps: Write) -> Write:
    def write(own: Tensors) -> Any:
        for step in steps:
            own = step(own)
        return own

    return write


def flat_vgg(own: Tensors) -> Tensors:
    """torchvision's classifier is linear where timm's is a convolution."""
    return {
        n: t.flatten(1) if n.startswith("classifier.") and t.ndim > 1 else t for n, t in own.items()
    }


def uncounted(own: Tensors) -> Tensors:
    """BatchNorm had no counter yet."""
    return {name: t for name, t in own.items() if not name.endswith("num_batches_tracked")}


def regnet(own: Tensors) -> Tensors:
    file: Tensors = {}
    rules = (
        (r"^stem\.conv", "stem.0"), (r"^stem\.bn", "stem.1"), (r"^head\.fc", "fc"),
        (r"downsample\.conv", "proj.0"), (r"downsample\.bn", "proj.1"), (r"\.se\.", ".f.se."),
        (r"conv1\.conv", "f.a.0"), (r"conv1\.bn", "f.a.1"), (r"conv2\.conv", "f.b.0"),
        (r"conv2\.bn", "f.b.1"), (r"conv3\.conv", "f.c.0"), (r"conv3\.bn", "f.c.1"),
    )  # fmt: skip
    for name, tensor in renamed(*rules)(own).items():
        block = re.sub(
            r"^s(\d)\.b(\d+)",
            lambda m: f"trunk_output.block{m[1]}.block{m[1]}-{int(m[2]) - 1}",
            name,
        )
        file[block] = tensor
    return file


def convnext(own: Tensors) -> Any:
    """github.com/facebookresearch/ConvNeXt and ConvNeXt-V2: GRN's two are (1, 1, 1, D) there."""
    rules = (
        (r"^stem\.", "downsample_layers.0."), (r"^stages\.(\d)\.downsample", r"downsample_layers.\1"),
        (r"\.blocks\.", "."), ("conv_dw", "dwconv"), (r"mlp\.fc", "pwconv"),
        (r"mlp\.grn\.bias", "grn.beta"), (r"mlp\.grn\.weight", "grn.gamma"),
        (r"^head\.norm", "norm"), (r"^head\.fc", "head"),
    )  # fmt: skip
    file = renamed(*rules)(own)
    return {"model": {n: t[None, None, None] if "grn" in n else t for n, t in file.items()}}


def registers(own: Tensors) -> Tensors:
    """DINOv2's: the class token and its position apart."""
    file = dict(own)
    file["register_tokens"] = file.pop("reg_token")
    position = torch.full_like(file["cls_token"], 0.25)  # a sum and difference without rounding
    file["cls_token"] = file["cls_token"] - position
    file["pos_embed"] = torch.cat([position, file["pos_embed"]], dim=1)
    return file | {"mask_token": torch.zeros(1, 96)}


def openai(own: Tensors) -> Tensors:
    rules = (
        (r"^patch_embed\.proj", "conv1"), (r"^pos_embed", "positional_embedding"),
        (r"^cls_token", "class_embedding"), (r"^norm_pre", "ln_pre"), (r"^norm\.", "ln_post."),
        (r"^blocks\.", "transformer.resblocks."), (r"attn\.qkv\.", "attn.in_proj_"),
        (r"attn\.proj", "attn.out_proj"), (r"mlp\.fc1", "mlp.c_fc"), (r"mlp\.fc2", "mlp.c_proj"),
        (r"norm([12])", r"ln_\1"), (r"^head\.weight", "proj"),
    )  # fmt: skip
    file = renamed(*rules)(own)
    file.pop("head.bias")
    file["proj"] = file["proj"].T
    file["class_embedding"] = file["class_embedding"][0, 0]
    file["positional_embedding"] = file["positional_embedding"][0]
    return {f"visual.{name}": tensor for name, tensor in file.items()} | {
        "logit_scale": torch.ones(())
    }


def sam(own: Tensors) -> Tensors:
    return {f"image_encoder.{n.replace('mlp.fc', 'mlp.lin')}": t for n, t in own.items()} | {
        "prompt_encoder.x": torch.ones(3)
    }


def dinov3(own: Tensors) -> Tensors:
    file = renamed((r"gamma_([12])", r"ls\1.gamma"), (r"^reg_token", "storage_tokens"))(own)
    for name in [n for n in file if n.endswith("qkv.weight")]:  # zero, and masked, there
        file[name.replace("weight", "bias")] = torch.zeros(len(file[name]))
        file[name.replace("weight", "bias_mask")] = torch.zeros(len(file[name]))
    return file | {"mask_token": torch.zeros(1, 96), "rope_embed.periods": torch.ones(12)}


SWIN = (r"layers\.(\d)\.downsample", "layers.{}.downsample")
VIT = small_arguments("vit_")
WHOLE_VGG = Network("vgg11", {}, 64)
ORIGINALS: dict[str, tuple[Network, Write]] = {
    "torchvision's VGG": (  # of all 4096 numbers, which the filter counts on
        WHOLE_VGG,
        then(
            renamed(
                (r"pre_logits\.fc1", "classifier.0"), (r"pre_logits\.fc2", "classifier.3"),
                (r"head\.fc", "classifier.6"),
            ),
            flat_vgg,
        ),
    ),
    "torchvision's DenseNet, as published": (
        FAST["densenet"],
        then(uncounted, renamed((r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2."))),
    ),
    "torchvision's RegNet": (FAST["regnet"], regnet),
    "CrossViT": (FAST["crossvit"], renamed((r"^(pos_embed|cls_token)_(\d)", r"\1.\2"))),
    "BEiT": (
        FAST["beit"],
        renamed(inside="model", beside=("blocks.0.attn.relative_position_index",)),
    ),
    "BEiT v2": (FAST["beit"], renamed(inside="module")),
    "ConvNeXt": (FAST["convnext"], convnext),
    "ConvNeXt V2": (Network("test_convnext2"), convnext),
    "DeiT": (FAST["deit"], renamed(inside="model")),
    "DeiT III": (
        Network("deit3_small_patch16_224", small_arguments("deit")),
        renamed((r"ls([12])\.gamma", r"gamma_\1"), inside="model"),
    ),
    "DINOv2": (
        Network("vit_small_patch14_dinov2", VIT, 28), renamed(beside=("mask_token",)),
    ),
    "DINOv2 with registers": (Network("vit_small_patch14_reg4_dinov2", VIT, 28), registers),
    "DINOv2 g": (
        Network("vit_giant_patch14_dinov2", VIT, 28),
        renamed((r"mlp\.fc1", "mlp.w12"), (r"mlp\.fc2", "mlp.w3"), beside=("mask_token",)),
    ),
    "DINOv3": (Network("vit_base_patch16_dinov3", VIT, 32), dinov3),
    "OpenAI's CLIP": (Network("vit_base_patch16_clip_224", VIT), openai),
    "Segment Anything": (FAST["vision_transformer_sam"], sam),
    "Swin": (
        FAST["swin_transformer"],
        then(
            down(*SWIN),
            renamed(
                (r"^head\.fc", "head"), inside="model",
                beside=("layers.0.blocks.1.attn_mask", "layers.0.blocks.0.attn.relative_position_index"),
            ),
        ),
    ),
    "Swin V2": (
        SLOW["swin_transformer_v2"],
        then(
            down(*SWIN),
            renamed(
                (r"^head\.fc", "head"), inside="model",
                beside=("layers.0.blocks.0.attn.relative_coords_table",),
            ),
        ),
    ),
    "CaiT": (SLOW["cait"], renamed((r"^", "module."), inside="model")),
    "CoaT": (SLOW["coat"], renamed(inside="model", beside=("norm1.weight", "norm2.bias"))),
    "DaViT": (
        SLOW["davit"],
        renamed(
            (r"^stem", "patch_embeds.0"), (r"stages\.(\d)\.downsample", r"patch_embeds.\1"),
            (r"stages\.(\d)\.blocks", r"main_blocks.\1"), (r"(patch_embeds\.\d)\.conv", r"\1.proj"),
            (r"^head\.fc", "head"), (r"^head\.norm", "norms"), ("cpe1", "cpe.0"), ("cpe2", "cpe.1"),
            inside="state_dict",
        ),
    ),
    "FocalNet": (
        SLOW["focalnet"],
        then(
            down(*SWIN), renamed((r"^stem", "patch_embed"), (r"^head\.fc", "head"), inside="model"),
        ),
    ),
    "Hiera": (
        SLOW["hiera"],
        renamed(
            (r"^head\.fc", "head.projection"), (r"^head\.norm", "norm"), inside="model_state"
        ),
    ),
    "LeViT": (SLOW["levit"], renamed(inside="model", beside=("blocks.0.attention_bias_idxs",))),
    "MambaOut": (
        SLOW["mambaout"],
        renamed(
            (r"^stem\.", "downsample_layers.0."), (r"\.blocks\.", "."),
            (r"stages\.(\d)\.downsample", r"downsample_layers.\1"), (r"^head\.norm", "norm"),
            (r"head\.pre_logits\.fc", "head.fc1"), (r"head\.fc\.", "head.fc2."),
            (r"head\.pre_logits\.norm", "head.norm"), inside="model",
        ),
    ),
    "PiT": (SLOW["pit"], down(r"transformers\.(\d)\.pool", "pools.{}")),
    "PVT v2": (
        SLOW["pvt_v2"],
        then(
            renamed(
                (r"^patch_embed\.", "patch_embed1."), (r"mlp\.dwconv", "mlp.dwconv.dwconv"),
                (r"stages\.1\.downsample", "patch_embed2"),
                (r"stages\.2\.downsample", "patch_embed3"),
                (r"stages\.3\.downsample", "patch_embed4"),
                (r"stages\.0\.blocks", "block1"), (r"stages\.1\.blocks", "block2"),
                (r"stages\.2\.blocks", "block3"), (r"stages\.3\.blocks", "block4"),
                (r"stages\.0\.norm", "norm1"), (r"stages\.1\.norm", "norm2"),
                (r"stages\.2\.norm", "norm3"), (r"stages\.3\.norm", "norm4"),
            ),
        ),
    ),
    "RDNet": (SLOW["rdnet"], renamed((r"^stem\.", "stem.stem."), inside="model")),
    "SAM 2": (
        SLOW["hieradet_sam2"],
        renamed((r"mlp\.fc1", "mlp.layers.0"), (r"mlp\.fc2", "mlp.layers.1"), inside="model"),
    ),
    "StarNet": (SLOW["starnet"], renamed(inside="state_dict")),
    "TinyViT": (
        SLOW["tiny_vit"],
        renamed(inside="model", beside=("stages.1.blocks.0.attn.attention_bias_idxs",)),
    ),
}  # fmt: skip
QUICK = {
    "torchvision's DenseNet, as published", "torchvision's RegNet", "BEiT", "ConvNeXt", "DeiT III",
    "DINOv2 with registers", "DINOv2 g", "DINOv3", "OpenAI's CLIP", "Segment Anything",
}  # fmt: skip


@pytest.mark.parametrize(
    "release",
    [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in ORIGINALS],
)
def test_an_original_release_loads_as_by_timm(release, tmp_path, small_networks, monkeypatch):
    network, write = ORIGINALS[release]
    whole = whole_timm(full_name(network), network.arguments)
    path = tmp_path / "original.pth"
    torch.save(write(dict(whole.state_dict())), path)
    entry = Entry("small", full_name(network), arguments=network.arguments)
    monkeypatch.setitem(resolve.SHORT_NAMES, "small", entry)
    description = describe("small", network.size)
    encoder, _ = load_encoder(description, Weights(path))
    by_timm = of_timm(
        network,
        description.size,
        description.arguments,
        pretrained_cfg_overlay={"file": str(path)},
    )
    state = encoder.model.state_dict()
    for name, tensor in by_timm.state_dict().items():
        assert torch.equal(state[name], tensor), name
    own = whole.state_dict()
    same = [n for n in state if state[n].shape == own[n].shape]  # positions may be resampled
    assert len(same) >= len(state) - 1
    for name in same:
        torch.testing.assert_close(state[name], own[name], rtol=1e-6, atol=1e-7, msg=name)
    images = torch.randn(1, 3, description.size, description.size)
    with torch.inference_mode():
        torch.testing.assert_close(encoder(images)["head"], head(by_timm, images))


@pytest.mark.parametrize(
    ("release", "name", "make", "device"),
    [
        ("torchvision's VGG", "vgg11", torchvision.models.vgg11, "meta"),
        # Its widths are computed by torch.
        ("torchvision's RegNet", "regnety_004", torchvision.models.regnet_y_400mf, "cpu"),
    ],
)
def test_the_names_are_the_original_s_own(release, name, make, device):
    with torch.device("meta"):
        own = dict(timm.create_model(name).state_dict())
    with torch.device(device):
        original = make().state_dict()
    assert set(ORIGINALS) >= QUICK
    file = ORIGINALS[release][1](own)
    assert {n: t.shape for n, t in file.items()} == {n: t.shape for n, t in original.items()}
