"""Published files in their own layouts load whole, and compute what their own code computes.

Every file here is made up: the names and shapes are those of the original code, the values random.
The outputs are compared with a plain reading of the same tensors by their original names.
"""

import argparse
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
import transformers
from networks import randomise
from safetensors.torch import load_file
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import Tensor, nn

from cache import RequestError
from extract.encoders.libraries.architectures import ResNetTrunk, SeemFocalNet
from extract.encoders.table.entries import ENTRIES
from extract.encoders.weights.checkpoints import load_strictly
from extract.encoders.weights.files import read_checkpoint
from extract.encoders.weights.tensor_names import LAYOUTS, STRIP_MODULE, apply_layout, detect_layout

WIDTH, HEADS, DEPTH, PATCH = 32, 4, 2, 8
SIDE = 32  # of a ViT's images: 4 x 4 patches
SAM_SIDE, SAM_WINDOW, SAM_NECK = 64, 3, 16  # 8 x 8 patches, which windows of 3 don't fill

Shapes = dict[str, tuple[int, ...]]
close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)


def fill(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Random tensors; no norm's weight is 1 and no bias 0, so a swap can't stay unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}


def images(side: int = SIDE) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(9))


def with_module(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"module.{name}": value for name, value in tensors.items()}


def load(
    model: nn.Module, tensors: dict[str, Tensor], layout: str | None = None, **options: Any
) -> list[str]:
    options = {"classifier": ("head",), "filter_fn": None, **options}
    said = load_strictly(model, tensors, source="w.pth", layout=layout, **options)
    model.eval()
    return said


SMALL = {"patch_size": PATCH, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS}
SMALL |= {"num_classes": 0}


def small_vit(**options: Any) -> Any:
    return VisionTransformer(img_size=SIDE, **SMALL, **options)


def small_sam() -> Any:
    return VisionTransformerSAM(
        img_size=SAM_SIDE,
        **SMALL,
        neck_chans=SAM_NECK,
        use_rel_pos=True,
        window_size=SAM_WINDOW,
        global_attn_indexes=(1,),
    )


# ---------------------------------------------------------------------------- plain readings


def linear(name: str, n_outputs: int, n_inputs: int) -> Shapes:
    return {f"{name}.weight": (n_outputs, n_inputs), f"{name}.bias": (n_outputs,)}


def norm(name: str, width: int = WIDTH) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


PATCHES: Shapes = {
    "patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
    "patch_embed.proj.bias": (WIDTH,),
}


def block_shapes(block: str, up: str, down: str) -> Shapes:
    return {
        **norm(f"{block}.norm1"),
        **linear(f"{block}.attn.qkv", 3 * WIDTH, WIDTH),
        **linear(f"{block}.attn.proj", WIDTH, WIDTH),
        **norm(f"{block}.norm2"),
        **linear(f"{block}.mlp.{up}", 4 * WIDTH, WIDTH),
        **linear(f"{block}.mlp.{down}", WIDTH, 4 * WIDTH),
    }


def vit_shapes(prefix: str = "") -> Shapes:
    """MSN's src/deit.py, DINO's and BLIP's vision transformers name their parameters alike."""
    n_tokens = (SIDE // PATCH) ** 2 + 1
    shapes: Shapes = {"cls_token": (1, 1, WIDTH), "pos_embed": (1, n_tokens, WIDTH)}
    shapes |= {**PATCHES, **norm("norm")}
    for i in range(DEPTH):
        shapes |= block_shapes(f"blocks.{i}", "fc1", "fc2")
    return {f"{prefix}{name}": shape for name, shape in shapes.items()}


class Reader:
    """The tensors of a file under one prefix, as functions."""

    def __init__(self, tensors: dict[str, Tensor], prefix: str) -> None:
        self.tensors, self.prefix = tensors, prefix

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[self.prefix + name]

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self[f"{name}.weight"], self[f"{name}.bias"])

    def norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self[f"{name}.weight"], self[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, eps=1e-6)


def plain_vit(tensors: dict[str, Tensor], pixels: Tensor, prefix: str = "") -> Tensor:
    """(B, T, D) normed tokens, the class token first."""
    t = Reader(tensors, prefix)
    kernel, bias = t["patch_embed.proj.weight"], t["patch_embed.proj.bias"]
    x = F.conv2d(pixels, kernel, bias, stride=PATCH).flatten(2).transpose(1, 2)
    x = torch.cat([t["cls_token"].expand(len(x), -1, -1), x], dim=1) + t["pos_embed"]
    for i in range(DEPTH):
        qkv = t.linear(f"blocks.{i}.attn.qkv", t.norm(f"blocks.{i}.norm1", x))
        q, k, v = (part.chunk(HEADS, -1) for part in qkv.chunk(3, -1))
        mixed = []
        for head in range(HEADS):
            scores = q[head] @ k[head].transpose(1, 2) / math.sqrt(WIDTH / HEADS)
            mixed.append(scores.softmax(-1) @ v[head])
        x = x + t.linear(f"blocks.{i}.attn.proj", torch.cat(mixed, -1))
        hidden = F.gelu(t.linear(f"blocks.{i}.mlp.fc1", t.norm(f"blocks.{i}.norm2", x)))
        x = x + t.linear(f"blocks.{i}.mlp.fc2", hidden)
    return t.norm("norm", x)


def sam_shapes() -> Shapes:
    """segment_anything/modeling: the image encoder; block 0 has windows, block 1 sees everything."""
    grid = SAM_SIDE // PATCH
    shapes: Shapes = {
        "pos_embed": (1, grid, grid, WIDTH),
        **PATCHES,
        "neck.0.weight": (SAM_NECK, WIDTH, 1, 1),
        **norm("neck.1", SAM_NECK),
        "neck.2.weight": (SAM_NECK, SAM_NECK, 3, 3),
        **norm("neck.3", SAM_NECK),
    }
    for i, seen in enumerate((SAM_WINDOW, grid)):
        shapes |= block_shapes(f"blocks.{i}", "lin1", "lin2")
        shapes |= {
            f"blocks.{i}.attn.rel_pos_{axis}": (2 * seen - 1, WIDTH // HEADS) for axis in "hw"
        }
    return {f"image_encoder.{name}": shape for name, shape in shapes.items()}


def sam_attention(t: Reader, block: str, x: Tensor) -> Tensor:
    """Attention within one window (B, S, S, D), with relative positions along both axes."""
    side = x.shape[1]
    steps = torch.arange(side)[:, None] - torch.arange(side) + side - 1  # (query, key)
    down, across = t[f"{block}.rel_pos_h"][steps], t[f"{block}.rel_pos_w"][steps]  # (S, S, D / H)
    mixed = []
    q, k, v = (part.chunk(HEADS, -1) for part in t.linear(f"{block}.qkv", x).chunk(3, -1))
    for head in range(HEADS):
        scores = torch.einsum("byxd,bvud->byxvu", q[head], k[head]) / math.sqrt(WIDTH / HEADS)
        scores = scores + torch.einsum("byxd,yvd->byxv", q[head], down)[..., None]
        scores = scores + torch.einsum("byxd,xud->byxu", q[head], across)[..., None, :]
        weights = scores.flatten(3).softmax(-1).view_as(scores)
        mixed.append(torch.einsum("byxvu,bvud->byxd", weights, v[head]))
    return t.linear(f"{block}.proj", torch.cat(mixed, -1))


def plain_sam(tensors: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """(B, D, H, W) after the neck."""
    t = Reader(tensors, "image_encoder.")
    kernel, bias = t["patch_embed.proj.weight"], t["patch_embed.proj.bias"]
    x = F.conv2d(pixels, kernel, bias, stride=PATCH).permute(0, 2, 3, 1) + t["pos_embed"]
    grid = x.shape[1]
    for i, seen in enumerate((SAM_WINDOW, grid)):
        whole = -(-grid // seen) * seen
        padded = F.pad(t.norm(f"blocks.{i}.norm1", x), (0, 0, 0, whole - grid, 0, whole - grid))
        mixed = torch.zeros_like(padded)
        for y in range(0, whole, seen):
            for z in range(0, whole, seen):
                window = padded[:, y : y + seen, z : z + seen]
                part = sam_attention(t, f"blocks.{i}.attn", window)
                mixed[:, y : y + seen, z : z + seen] = part
        x = x + mixed[:, :grid, :grid]
        hidden = F.gelu(t.linear(f"blocks.{i}.mlp.lin1", t.norm(f"blocks.{i}.norm2", x)))
        x = x + t.linear(f"blocks.{i}.mlp.lin2", hidden)
    x = F.linear(x, t["neck.0.weight"][:, :, 0, 0])
    x = t.norm("neck.1", x).permute(0, 3, 1, 2)
    x = F.conv2d(x, t["neck.2.weight"], padding=1)
    return t.norm("neck.3", x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


# ---------------------------------------------------------------------------- whole files


def medsam_file() -> dict[str, Tensor]:
    return fill(
        sam_shapes()
        | {
            "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": (2, 8),
            "prompt_encoder.no_mask_embed.weight": (1, SAM_NECK),
            "mask_decoder.iou_token.weight": (1, SAM_NECK),
            "mask_decoder.mask_tokens.weight": (4, SAM_NECK),
            "mask_decoder.iou_prediction_head.layers.0.weight": (8, SAM_NECK),
        }
    )


def blip_file() -> dict[str, Tensor]:
    """The momentum copy comes last, as in BLIP_Pretrain, and has values of its own."""
    return fill(
        vit_shapes("visual_encoder.")
        | {
            "temp": (),
            "text_encoder.embeddings.word_embeddings.weight": (20, 8),
            "text_encoder.encoder.layer.0.attention.self.query.weight": (8, 8),
            "vision_proj.weight": (16, WIDTH),
            "vision_proj.bias": (16,),
            "itm_head.weight": (2, 8),
        }
        | vit_shapes("visual_encoder_m.")
        | {"image_queue": (16, 30), "text_decoder.cls.predictions.bias": (20,)}
    )


def msn_file() -> dict[str, Tensor]:
    """What `target_encoder` holds: DistributedDataParallel's prefix, and a head with BatchNorm."""
    heads: Shapes = {**linear("fc.fc1", 48, WIDTH), "fc.bn1.running_mean": (48,)}
    heads |= {"fc.fc2.weight": (48, 48), "fc.fc3.weight": (16, 48), "pred.weight": (16, 16)}
    return with_module(fill(vit_shapes() | heads))


def dino_file() -> dict[str, Tensor]:
    last: Shapes = {"head.last_layer.weight_g": (20, 1), "head.last_layer.weight_v": (20, 16)}
    return fill(vit_shapes("backbone.") | linear("head.mlp.0", 48, WIDTH) | last)


def dinov2_file() -> dict[str, Tensor]:
    """Of a training with block_chunks: each block in a chunk, under its own number there."""
    chunked = {re.sub(r"blocks\.(\d)", r"blocks.\1.\1", n): v for n, v in vit_shapes().items()}
    heads: Shapes = {
        "dino_head.mlp.0.weight": (48, WIDTH),
        "dino_head.last_layer.weight_v": (20, 16),
        "ibot_head.last_layer.weight_v": (20, 16),
    }
    return fill({f"backbone.{name}": shape for name, shape in chunked.items()} | heads)


def small_resnet() -> Any:
    return ResNet(BasicBlock, (1, 1, 1, 1), num_classes=0, channels=(8, 16, 24, 32))  # type: ignore


def moco_file() -> dict[str, Tensor]:
    """MoCo v2's: the query encoder with its projector, the key encoder, the queue."""
    query = small_resnet().state_dict() | fill({"fc.0.weight": (32, 32), "fc.2.weight": (16, 32)})
    return {
        **{f"encoder_q.{name}": value for name, value in query.items()},
        **{f"encoder_k.{name}": value + 1 for name, value in query.items()},
        **fill({"queue": (16, 64), "queue_ptr": (1,)}),
    }


def moco_v3_file() -> dict[str, Tensor]:
    shapes = vit_shapes("base_encoder.") | vit_shapes("momentum_encoder.")
    heads: Shapes = {"base_encoder.head.0.weight": (48, WIDTH), "predictor.0.weight": (48, 48)}
    return fill(shapes | heads)


def mae_file() -> dict[str, Tensor]:
    decoder: Shapes = {
        "mask_token": (1, 1, 16),
        "decoder_pos_embed": (1, 17, 16),
        **linear("decoder_embed", 16, WIDTH),
        "decoder_blocks.0.norm1.weight": (16,),
        "decoder_norm.weight": (16,),
        "decoder_pred.weight": (3 * PATCH**2, 16),
    }
    return fill(vit_shapes() | decoder)


TEXT = {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1}


def small_clip(seed: int = 0) -> Any:
    vision = {"layers": DEPTH, "width": WIDTH, "head_width": 8, "patch_size": 8, "image_size": SIDE}
    return randomise(open_clip.model.CLIP(16, vision, TEXT), seed)  # type: ignore[arg-type]


def small_biomedclip(seed: int = 0) -> Any:
    """A timm trunk, a linear projection without bias, and a text tower of any kind."""
    vision = {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"}
    vision |= {"image_size": 64}
    return randomise(open_clip.model.CustomTextCLIP(16, vision, TEXT), seed)


def open_clip_file() -> dict[str, Tensor]:
    return small_biomedclip().state_dict()


def seem_file() -> dict[str, Tensor]:
    """Names only; what they compute is in test_architectures.py."""
    model = SeemFocalNet(embed_dim=8, depths=(1, 1, 1, 1))
    shapes: Shapes = {"sem_seg_head.pixel_decoder.mask_features.weight": (8, 8, 3, 3)}
    for name, value in model.state_dict().items():
        name = name.replace("stem.", "patch_embed.").replace("stage_norms.", "norm")
        name = name.replace("_post.", ".").replace("ls1.gamma", "gamma_1")
        name = name.replace("ls2.gamma", "gamma_2")
        for i in (1, 2, 3):
            name = name.replace(f"layers.{i}.downsample", f"layers.{i - 1}.downsample")
        linear = any(part in name for part in ("modulation.f.", "modulation.proj.", "mlp.fc"))
        shapes[f"backbone.{name}"] = tuple(value.shape[:2] if linear else value.shape)
    return fill(shapes | {"dilation_kernel": (1, 1, 3, 3)})


def small_trunk() -> ResNetTrunk:
    return ResNetTrunk((1, 1, 1), channels=(8, 8, 8))


def biomedgpt_file() -> dict[str, Tensor]:
    """Names only; what they compute is in test_architectures.py."""
    shapes = {
        f"encoder.embed_images.{name}": tuple(value.shape)
        for name, value in small_trunk().state_dict().items()
    }
    texts: Shapes = {
        "encoder.embed_tokens.weight": (20, 8),
        "encoder.layers.0.fc1.weight": (8, 8),
        "encoder.layers.0.fc1.bias": (8,),
        "encoder.image_proj.weight": (8, 32),
        "decoder.embed_tokens.weight": (20, 8),
    }
    return fill(shapes | texts)


HF_VIT: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "intermediate_size": 4 * WIDTH,
    "image_size": SIDE,
    "patch_size": PATCH,
    "layer_norm_eps": 1e-6,
}


def small_hf_vit(pooler: bool = True) -> Any:
    config = transformers.ViTConfig(**HF_VIT)
    return randomise(transformers.ViTModel(config, add_pooling_layer=pooler))


def small_hf_sam() -> Any:
    vision = transformers.SamVisionConfig(
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        mlp_dim=4 * WIDTH,
        image_size=SAM_SIDE,
        patch_size=PATCH,
        output_channels=SAM_NECK,
        window_size=SAM_WINDOW,
        global_attn_indexes=[1],
    )
    prompt = transformers.SamPromptEncoderConfig(
        hidden_size=SAM_NECK, image_size=SAM_SIDE, patch_size=PATCH, mask_input_channels=4
    )
    decoder = transformers.SamMaskDecoderConfig(
        hidden_size=SAM_NECK,
        mlp_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        iou_head_hidden_dim=16,
    )
    config = transformers.SamConfig(
        vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder
    )
    return randomise(transformers.SamModel(config))


def saved(model: Any, folder: Path) -> dict[str, Tensor]:
    """As transformers writes it: a file has older names than the modules of version 5."""
    model.save_pretrained(folder)
    return read_checkpoint(folder / "model.safetensors").tensors


def hf_vit_file() -> dict[str, Tensor]:
    return {f"vit.{name}": value for name, value in small_hf_vit().state_dict().items()}


@dataclass(frozen=True)
class Case:
    """A file in a layout, and a model it fits."""

    file: Callable[[], dict[str, Tensor]]
    model: Callable[[], nn.Module]
    norm: str  # some one-dimensional tensor of the encoder, by its name in the file


CASES = {
    "medsam": Case(medsam_file, small_sam, "image_encoder.neck.1.weight"),
    "blip": Case(blip_file, small_vit, "visual_encoder.norm.weight"),
    "msn": Case(msn_file, small_vit, "module.norm.weight"),
    "mae": Case(mae_file, small_vit, "norm.weight"),
    "dino": Case(dino_file, small_vit, "backbone.norm.weight"),
    "dinov2": Case(dinov2_file, small_vit, "backbone.norm.weight"),
    "moco": Case(moco_file, small_resnet, "encoder_q.layer1.0.bn1.weight"),
    "moco v3": Case(moco_v3_file, small_vit, "base_encoder.norm.weight"),
    "open_clip": Case(
        open_clip_file, lambda: small_biomedclip(1).visual, "visual.trunk.norm.weight"
    ),
    "seem": Case(
        seem_file,
        lambda: SeemFocalNet(embed_dim=8, depths=(1, 1, 1, 1)),
        "backbone.layers.1.downsample.norm.weight",
    ),
    "biomedgpt": Case(
        biomedgpt_file, small_trunk, "encoder.embed_images.layer3.0.downsample.1.weight"
    ),
    "transformers vit": Case(hf_vit_file, small_vit, "vit.layernorm.weight"),
    "transformers sam": Case(
        lambda: small_hf_sam().state_dict(), small_sam, "vision_encoder.neck.layer_norm1.weight"
    ),
}


def test_every_layout_has_a_file_here():
    assert {*CASES, "in order", STRIP_MODULE} == set(LAYOUTS)
    assert all(name == layout.name for name, layout in LAYOUTS.items())
    assert {entry.layout for entry in ENTRIES if entry.layout} <= set(LAYOUTS)
    assert detect_layout({}) is None


# ---------------------------------------------------------------------------- what they compute


@pytest.mark.parametrize("layout", [None, "medsam"])
def test_medsam(layout):
    file, model = medsam_file(), small_sam()
    assert load(model, file, layout) == [
        "names mapped by the layout 'medsam'",
        "dropped: prompt_encoder. (2 tensors), mask_decoder. (3 tensors)",
    ]
    with torch.inference_mode():
        close(model.forward_features(images(SAM_SIDE)), plain_sam(file, images(SAM_SIDE)))


@pytest.mark.parametrize("layout", [None, "blip"])
def test_blip_without_its_momentum_copy(layout):
    file, model = blip_file(), small_vit()
    n = len(vit_shapes())
    assert load(model, file, layout) == [
        "names mapped by the layout 'blip'",
        "dropped: temp (1 tensor), text_encoder. (2 tensors), vision_proj. (2 tensors), "
        f"itm_head. (1 tensor), visual_encoder_m. ({n} tensors), image_queue (1 tensor), "
        "text_decoder. (1 tensor)",
    ]
    with torch.inference_mode():
        tokens = model.forward_features(images())
        close(tokens, plain_vit(file, images(), "visual_encoder."))
        # A loader that takes whatever contains "visual_encoder" ends with the momentum copy.
        naive = plain_vit(file, images(), "visual_encoder_m.")
    assert (tokens - naive).abs().max() > 0.1


def test_msn_s_target_encoder(tmp_path):
    file = msn_file()
    student = {name: value + 1 for name, value in file.items()}
    content = {"encoder": student, "target_encoder": file, "opt": {}, "prototypes": torch.ones(2)}
    torch.save(content, tmp_path / "vitl16_600ep.pth.tar")
    model = small_vit()
    assert load(model, read_checkpoint(tmp_path / "vitl16_600ep.pth.tar").tensors) == [
        "names mapped by the layout \"strip 'module.'\"",
        "names mapped by the layout 'msn'",
        "dropped: fc. (5 tensors), pred. (1 tensor)",
    ]
    with torch.inference_mode():
        close(model.forward_features(images()), plain_vit(file, images(), "module."))


def test_mae_with_its_decoder(tmp_path):
    """As its trainer saves it. timm's filter, too, must not take it for something else."""
    file, model = mae_file(), small_vit()
    content = {"model": file, "epoch": 3, "args": argparse.Namespace(model="mae_vit_large_patch16")}
    torch.save(content, tmp_path / "checkpoint-3.pth")
    read = read_checkpoint(tmp_path / "checkpoint-3.pth").tensors
    assert load(model, read, filter_fn=checkpoint_filter_fn) == [
        "names mapped by the layout 'mae'",
        "dropped: mask_token (1 tensor), decoder_pos_embed (1 tensor), decoder_embed. (2 tensors), "
        "decoder_blocks. (1 tensor), decoder_norm. (1 tensor), decoder_pred. (1 tensor)",
    ]
    with torch.inference_mode():
        close(model.forward_features(images()), plain_vit(file, images()))


def test_dino_s_teacher(tmp_path):
    file = dino_file()
    student = with_module({name: value + 1 for name, value in file.items()})
    torch.save({"student": student, "teacher": file, "epoch": 3}, tmp_path / "checkpoint.pth")
    model = small_vit()
    assert load(model, read_checkpoint(tmp_path / "checkpoint.pth").tensors) == [
        "names mapped by the layout 'dino'",
        "dropped: head. (4 tensors)",
    ]
    with torch.inference_mode():
        close(model.forward_features(images()), plain_vit(file, images(), "backbone."))


@pytest.mark.parametrize("make", [small_clip, small_biomedclip])
def test_open_clip_s_own_towers(make):
    whole, tower = make(0), make(1).visual
    side = 64 if make is small_biomedclip else SIDE
    said = load(tower, whole.state_dict(), "open_clip", classifier=())
    assert said[0] == "names mapped by the layout 'open_clip'"
    assert said[1].startswith("dropped: ")
    assert "logit_scale (1 tensor)" in said[1]
    assert "visual" not in said[1]
    with torch.inference_mode():
        close(tower(images(side)), whole.encode_image(images(side)))


def test_biomedclip_s_trunk_in_timm_s_model():
    whole, trunk = small_biomedclip(), timm.create_model("test_vit", img_size=64, num_classes=0)
    said = load(trunk, whole.state_dict(), filter_fn=checkpoint_filter_fn)
    assert said[0] == "names mapped by the layout 'open_clip'"
    assert said[-1] == "classifier dropped (head.proj.weight)"
    with torch.inference_mode():
        tokens = trunk.forward_features(images(64))  # type: ignore[operator]
        close(tokens, whole.visual.trunk.forward_features(images(64)))


def test_an_openai_file_in_timm_s_model():
    """timm's own filter renames; it must still recognise the file."""
    whole = small_clip()
    model = small_vit(pre_norm=True, norm_layer=partial(nn.LayerNorm, eps=1e-5))
    said = load(model, whole.state_dict(), filter_fn=checkpoint_filter_fn)
    assert said[0] == "names mapped by the layout 'open_clip'"
    assert said[-1] == "classifier dropped (head.bias, head.weight)"
    with torch.inference_mode():
        cls = model.forward_features(images())[:, 0]
        close(cls @ whole.visual.proj, whole.encode_image(images()))


@pytest.mark.parametrize(
    ("model_class", "config_class", "dropped"),
    [
        (transformers.ViTMSNModel, transformers.ViTMSNConfig, None),
        (transformers.ViTModel, transformers.ViTConfig, "pooler. (2 tensors)"),
        (transformers.ViTForImageClassification, transformers.ViTConfig, "classifier. (2 tensors)"),
        (transformers.ViTMAEModel, transformers.ViTMAEConfig, None),
    ],
)
@pytest.mark.parametrize("as_saved", [True, False])
def test_transformers_vits(tmp_path, model_class, config_class, dropped, as_saved):
    options = {"mask_ratio": 0.0} if config_class is transformers.ViTMAEConfig else {}
    original = randomise(model_class(config_class(**HF_VIT, **options)))
    file = saved(original, tmp_path) if as_saved else original.state_dict()
    model = small_vit()
    expected = ["names mapped by the layout 'transformers vit'"]
    assert load(model, file) == expected + ([f"dropped: {dropped}"] if dropped else [])
    body = getattr(original, "vit", original)
    if options:  # MAE's encoder shuffles the patches by this noise, and so keeps their order
        body = partial(body, noise=torch.arange(16.0).expand(2, -1))
    with torch.inference_mode():
        close(model.forward_features(images()), body(images()).last_hidden_state)


def test_transformers_mae_with_its_decoder(tmp_path):
    decoder = {"decoder_num_hidden_layers": 1, "decoder_hidden_size": 16}
    decoder |= {"decoder_num_attention_heads": 2, "decoder_intermediate_size": 16}
    config = transformers.ViTMAEConfig(**HF_VIT, **decoder)
    file = saved(transformers.ViTMAEForPreTraining(config), tmp_path)
    n = sum(name.startswith("decoder.") for name in file)
    model = small_vit()
    assert load(model, file)[1] == f"dropped: decoder. ({n} tensors)"
    assert torch.equal(model.norm.weight, file["vit.layernorm.weight"])


def test_transformers_mask_token_is_dropped():
    file = {"embeddings.mask_token": torch.ones(1, 1, WIDTH), **small_hf_vit(False).state_dict()}
    assert load(small_vit(), file)[1] == "dropped: embeddings.mask_token (1 tensor)"


@pytest.mark.parametrize("as_saved", [True, False])
def test_transformers_sam(tmp_path, as_saved):
    original, model = small_hf_sam(), small_sam()
    file = saved(original, tmp_path) if as_saved else original.state_dict()
    said = load(model, file)
    assert said[0] == "names mapped by the layout 'transformers sam'"
    for group in ("prompt_encoder.", "mask_decoder."):
        n = sum(name.startswith(group) for name in file)
        assert f"{group} ({n} tensors)" in said[1]
    with torch.inference_mode():
        expected = original.vision_encoder(images(SAM_SIDE)).last_hidden_state
        close(model.forward_features(images(SAM_SIDE)), expected)


def test_dinov2_s_teacher_out_of_its_chunks(tmp_path):
    file = dinov2_file()
    mask = {"backbone.mask_token": torch.zeros(1, WIDTH)}  # timm's own filter knows what it means
    content = {"teacher": {**file, **mask}, "student": fill(vit_shapes("backbone."), 1)}
    torch.save(content, tmp_path / "checkpoint.pth")
    model = small_vit()
    read = read_checkpoint(tmp_path / "checkpoint.pth").tensors
    assert load(model, read, filter_fn=checkpoint_filter_fn) == [
        "names mapped by the layout 'dinov2'",
        "dropped: dino_head. (2 tensors), ibot_head. (1 tensor)",
    ]
    plain = {re.sub(r"blocks\.(\d)\.\1", r"blocks.\1", n): v for n, v in file.items()}
    with torch.inference_mode():
        close(model.forward_features(images()), plain_vit(plain, images(), "backbone."))


@pytest.mark.parametrize(("name", "prefix"), [("moco", "encoder_q."), ("moco v3", "base_encoder.")])
def test_moco_s_evaluated_encoder(name, prefix):
    model, file = CASES[name].model(), with_module(CASES[name].file())
    assert load(model, file)[:2] == [
        "names mapped by the layout \"strip 'module.'\"",
        f"names mapped by the layout {name!r}",
    ]
    for own, value in model.state_dict().items():
        assert torch.equal(value, file[f"module.{prefix}{own}"]), own


# ---------------------------------------------------------------------------- of every layout


@pytest.mark.parametrize("name", CASES)
def test_a_layout_is_recognised_and_fills_every_tensor(name):
    case, other = CASES[name], CASES[name].model()
    model, file = case.model(), case.file()
    assert detect_layout(file) == name
    said = load(model, file)
    assert f"names mapped by the layout {name!r}" in said
    tensors, _ = apply_layout(name, file, other)
    for own, value in model.state_dict().items():
        if not own.endswith("num_batches_tracked"):
            assert torch.equal(value, tensors[own]), own
    n_dropped = sum(int(part.split("(")[1].split()[0]) for part in said[-1].split(", "))
    n_fused = 2 * 2 * DEPTH if name == "transformers vit" else 0  # of q, k, v one is left
    assert len(tensors) + n_dropped + n_fused == len(file), "each tensor is accounted for"


@pytest.mark.parametrize("name", CASES)
def test_data_parallel_may_come_on_top(name):
    case, model, again = CASES[name], CASES[name].model(), CASES[name].model()
    file = {n.removeprefix("module."): value for n, value in case.file().items()}
    said = load(model, file)
    assert load(again, with_module(file)) == [
        "names mapped by the layout \"strip 'module.'\"",
        *said,
    ]
    assert detect_layout(with_module(file)) == name
    for own, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[own]), own


@pytest.mark.parametrize("name", CASES)
def test_timm_s_own_names_need_no_layout(name):
    case = CASES[name]
    file, model = case.model().state_dict(), case.model()
    assert detect_layout(file) is None
    words = f"the names are timm's own already; no layout {name!r} needed"
    assert load(model, file, name) == [words]
    stripped = "names mapped by the layout \"strip 'module.'\""
    assert load(model, with_module(file), name) == [stripped, words]
    for own, value in model.state_dict().items():
        assert torch.equal(value, file[own]), own


@pytest.mark.parametrize("name", CASES)
def test_what_does_not_fit_is_refused_in_one_line(name):
    case = CASES[name]
    whole, norm = case.file(), case.norm
    stem = norm.removesuffix("weight")
    for file, message in [
        ({n: v for n, v in whole.items() if n != norm}, r"1 of \d+ tensors are missing"),
        ({**whole, f"{stem}extra": torch.ones(2)}, r"1 don't belong \(.*extra\)"),
        ({**whole, norm: torch.ones(7)}, r"is \(7,\) instead of"),
    ]:
        with pytest.raises(RequestError, match=f"^w.pth doesn't fit .*{message}") as caught:
            load(case.model(), file, name)
        assert "\n" not in str(caught.value)


def needs_prefix(name: str) -> bool:
    return bool(LAYOUTS[name].prefix) and not LAYOUTS[name].prefix_optional


@pytest.mark.parametrize("name", [n for n in CASES if needs_prefix(n)])
def test_a_file_without_the_prefix_is_refused(name):
    file = dict.fromkeys(("norm.weight", "heads.0.bias", "heads.1.bias"), torch.ones(7))
    with pytest.raises(RequestError) as caught:
        load(CASES[name].model(), file, name)
    prefix = LAYOUTS[name].prefix
    assert str(caught.value).startswith(f"w.pth has no names under {prefix}, which the layout")
    assert "found: norm. (1 tensor), heads. (2 tensors)" in str(caught.value)
    assert "choose the --model this one belongs to" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_of_another_layout_is_called_by_its_name():
    with pytest.raises(RequestError, match="no names under visual_encoder.*the layout 'medsam'"):
        load(small_vit(), medsam_file(), "blip")


# ---------------------------------------------------------------------------- traps


def test_query_key_and_value_are_fused_in_this_order():
    values = {part: torch.full((WIDTH, WIDTH), float(i)) for i, part in enumerate(("q", "k", "v"))}
    words = {"q": "query", "k": "key", "v": "value"}
    # Both generations of names, and an order of the file that isn't theirs.
    for pattern in (
        "encoder.layer.1.attention.attention.{word}.weight",
        "layers.1.attention.{p}_proj.weight",
    ):
        file = {pattern.format(word=words[p], p=p): values[p] for p in "vkq"}
        tensors, _ = apply_layout("transformers vit", file, small_vit())
        fused = tensors["blocks.1.attn.qkv.weight"]
        assert list(tensors) == ["blocks.1.attn.qkv.weight"]
        assert fused[:, 0].tolist() == [0.0] * WIDTH + [1.0] * WIDTH + [2.0] * WIDTH


@pytest.mark.parametrize(
    ("gone", "more", "message"),
    [
        (
            "vit.layers.0.attention.k_proj.weight",
            {},
            r"missing \(blocks.0.attn.qkv.weight\); 2 don't belong",
        ),
        (
            None,
            {"vit.encoder.layer.0.layernorm_before.weight": torch.zeros(WIDTH)},
            r"twice: vit\.layers\.0.* both are blocks\.0\.norm1",
        ),
    ],
)
def test_each_tensor_is_there_once(gone, more, message):
    file = {name: value for name, value in hf_vit_file().items() if name != gone}
    with pytest.raises(RequestError, match=message):
        load(small_vit(), file | more)


def test_downsampling_moves_by_exactly_one_stage():
    file = seem_file()
    tensors, _ = apply_layout("seem", file, SeemFocalNet(embed_dim=8, depths=(1, 1, 1, 1)))
    for i in range(3):
        here = tensors[f"layers.{i + 1}.downsample.proj.weight"]
        assert torch.equal(here, file[f"backbone.layers.{i}.downsample.proj.weight"])


def test_names_that_only_begin_alike_are_outside():
    """A prefix ends with its dot."""
    file = blip_file() | {"visual_encoderx": torch.ones(1)}
    assert "visual_encoderx (1 tensor)" in load(small_vit(), file)[1]


@pytest.mark.parametrize(
    "name",
    ["test_vit", "test_vit2", "resnet10t", "test_efficientnet", "focalnet_tiny_lrf", "vgg11"],
)
def test_timm_s_models_are_in_no_layout(name):
    with torch.device("meta"):
        tensors = timm.create_model(name).state_dict()
    assert detect_layout(tensors) is None
    assert detect_layout(with_module(tensors)) == STRIP_MODULE


def test_in_order_takes_the_tensors_by_position():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    values = list(fill({n: tuple(t.shape) for n, t in model.state_dict().items()}).values())
    file = {f"x{i}": value for i, value in enumerate([*values, torch.ones(5)])}
    tensors, said = apply_layout("in order", file, model)
    assert said == ["names mapped by the layout 'in order'"]
    assert list(tensors) == [*model.state_dict(), "classifier.x4"]
    assert all(a is b for a, b in zip(tensors.values(), file.values(), strict=True))


def test_what_transformers_writes_has_the_names_of_published_files(tmp_path):
    saved(small_hf_vit(), tmp_path)
    names = set(load_file(tmp_path / "model.safetensors"))
    assert "encoder.layer.0.attention.attention.query.weight" in names
    assert "encoder.layer.1.output.dense.bias" in names
