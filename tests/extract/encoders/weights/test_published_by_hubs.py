"""Every encoder of the table loads as published: from the place and in the layout of its download.

The networks are made small; names, filters, layouts, places and the whole path of loading are the
real ones. What comes out is compared with what the library's own loading gives.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
import transformers
from publishing import Shelf, Tensors, shelf, small_arguments, small_networks, trained, whole_timm
from torch import Tensor

from extract.encoders import resolve
from extract.encoders.encoder import describe, find_weights, load_encoder
from extract.encoders.libraries.architectures import ARCHITECTURES
from extract.encoders.libraries.timm import _class_of
from extract.encoders.table.entries import ENTRIES
from extract.encoders.table.entry import Entry
from extract.encoders.weights.published import ByHand, Place
from finetune.config import ModelConfig
from finetune.model.classifier import build_classifier

__all__ = ["shelf", "small_networks"]

BY_NAME = {entry.name: entry for entry in ENTRIES}
IN_PACKAGE = "efficientnet-lite0"  # pip brings its real file: test_checkpoints.py


# ---------------------------------------------------------------------------- layouts


def under(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def some(*names: str) -> Tensors:
    return {name: torch.ones(3) for name in names}


def medsam(own: Tensors) -> Tensors:
    renamed = {name.replace("mlp.fc", "mlp.lin"): t for name, t in own.items()}
    return under("image_encoder.", renamed) | some("prompt_encoder.x", "mask_decoder.y")


def blip(own: Tensors) -> dict[str, Tensors]:
    momentum = under("visual_encoder_m.", {n: t + 1 for n, t in own.items()})
    return {"model": under("visual_encoder.", own) | momentum | some("text_encoder.x")}


def mae(own: Tensors) -> dict[str, Any]:
    return {"model": own | some("mask_token", "decoder_embed.weight", "decoder_pred.bias")}


def seem(own: Tensors) -> Tensors:
    file: Tensors = {}
    for name, tensor in own.items():
        if tensor.ndim == 4 and re.search(r"modulation\.(f|proj)\.|mlp\.fc", name):
            tensor = tensor.flatten(1)  # a linear layer there
        for old, new in (("stem.", "patch_embed."), ("stage_norms.", "norm"), ("_post.", ".")):
            name = name.replace(old, new)
        name = re.sub(r"ls([12])\.gamma", r"gamma_\1", name)
        name = re.sub(
            r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", name
        )
        file[f"backbone.{name}"] = tensor
    return file | some("sem_seg_head.x")


def biomedgpt(own: Tensors) -> dict[str, Any]:
    return {"model": under("encoder.embed_images.", own) | some("encoder.embed_tokens.weight")}


def hf_vit(own: Tensors) -> Tensors:
    """Hugging Face's ViT-MSN: query, key and value apart."""
    file: Tensors = {}
    renames = (
        (r"^cls_token", "embeddings.cls_token"),
        (r"^pos_embed", "embeddings.position_embeddings"),
        (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
        (r"^blocks\.", "encoder.layer."),
        (r"attn\.proj", "attention.output.dense"),
        (r"mlp\.fc1", "intermediate.dense"),
        (r"mlp\.fc2", "output.dense"),
        (r"norm1", "layernorm_before"),
        (r"norm2", "layernorm_after"),
        (r"^norm\.", "layernorm."),
    )
    for name, tensor in own.items():
        if not name.startswith("head."):
            for old, new in renames:
                name = re.sub(old, new, name)
            if "attn.qkv" in name:
                for part, third in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                    file[name.replace("attn.qkv", f"attention.attention.{part}")] = third
            else:
                file[name] = tensor
    return file


WRITERS: dict[str, Callable[[Tensors], Any]] = {
    "medsam": medsam,
    "blip": blip,
    "retfound": mae,
    "seem": seem,
    "biomedgpt": biomedgpt,
    "msn-l": hf_vit,
}


# ---------------------------------------------------------------------------- entries


def small(entry: Entry) -> Entry:
    """The entry with a smaller network."""
    network = entry.network or entry.encoder
    if entry.library == "timm":
        arguments = {} if network in ARCHITECTURES else small_arguments(network)
        return dataclasses.replace(entry, arguments={**entry.arguments, **arguments})
    if entry.library == "transformers":
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        sizes |= {"image_size": 32, "patch_size": 8}
        if "intermediate_size" in entry.config:
            sizes["intermediate_size"] = 24
        return dataclasses.replace(entry, config={**entry.config, **sizes}, size=None)
    config = dict(entry.config) or dict(open_clip.get_model_config(entry.network.partition("/")[0]))
    vision = dict(config["vision_cfg"])
    if "timm_model_name" in vision:
        vision |= {"timm_model_name": "test_vit", "image_size": 64}
    else:
        vision |= {"layers": 2, "width": 32, "head_width": 8, "patch_size": 8, "image_size": 32}
    text = {"context_length": 8, "vocab_size": 20, "width": 16, "heads": 2, "layers": 1}
    config |= {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    place = describe(entry.name, None).outline.place
    return dataclasses.replace(entry, config=config, weights=place)


HF = {
    "vit-l": "ViTForImageClassification",
    "phikon": "ViTModel",
    "rad-dino": "Dinov2Model",
    "phikon-v2": "Dinov2Model",
    "medsiglip": "SiglipModel",
    "plip": "CLIPModel",
    "pubmedclip": "CLIPModel",
    "monet": "CLIPModel",
}
HF_TEXT = {"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1}
HF_TEXT |= {"num_attention_heads": 2, "vocab_size": 20, "max_position_embeddings": 6}


def publish(entry: Entry, shelf: Shelf, place: Place) -> tuple[Path, Callable[[Tensor], Tensor]]:
    """Put an entry's file on the shelf.

    Returns:
        The file, and how the library itself computes "head" (of CLIPs "proj") after its own loading
        of that file.
    """
    network = entry.network or entry.encoder
    if entry.library == "open_clip":
        return publish_open_clip(entry, shelf, place)
    if entry.library == "transformers":
        return publish_transformers(entry, shelf, place)
    if network in ARCHITECTURES:
        whole: Any = trained(ARCHITECTURES[network]())
    else:
        whole = whole_timm(network, {n: _class_of(v) for n, v in entry.arguments.items()})
    state = dict(whole.state_dict())
    path = shelf.keep(place, WRITERS.get(entry.name, dict)(state))

    def as_timm(images: Tensor) -> Tensor:
        model = whole
        if network not in ARCHITECTURES:
            options: dict[str, Any] = {n: _class_of(v) for n, v in entry.arguments.items()}
            if "img_size" in describe(entry.name, images.shape[-1]).arguments:
                options["img_size"] = images.shape[-1]
            if entry.weights is not None:  # not where timm looks: the same tensors by its names
                file = shelf.folder / "timm.pt"
                torch.save(state, file)
                options["pretrained_cfg_overlay"] = {"file": str(file)}
            model = timm.create_model(network, pretrained=True, num_classes=0, **options).eval()
        final = model.forward_features(images)
        return model.forward_head(final, pre_logits=True).flatten(1)

    return path, as_timm


def publish_open_clip(
    entry: Entry, shelf: Shelf, place: Place
) -> tuple[Path, Callable[[Tensor], Tensor]]:
    config = entry.config
    made = open_clip.CustomTextCLIP if "timm_model_name" in config["vision_cfg"] else open_clip.CLIP
    arguments = (config["embed_dim"], config["vision_cfg"], config["text_cfg"])
    path = shelf.keep(place, trained(made(*arguments)).state_dict())
    loaded: Any = made(*arguments)
    open_clip.load_checkpoint(loaded, str(path))
    return path, loaded.eval().encode_image


def publish_transformers(
    entry: Entry, shelf: Shelf, place: Place
) -> tuple[Path, Callable[[Tensor], Tensor]]:
    made = getattr(transformers, HF[entry.name])
    config = {n: v for n, v in entry.config.items() if n != "model_type"}
    if HF[entry.name] in ("CLIPModel", "SiglipModel"):
        config = {"vision_config": config, "text_config": HF_TEXT}
        if "projection_dim" in entry.config:
            config["projection_dim"] = entry.config["projection_dim"]
    whole = trained(made(made.config_class(**config)))
    whole.save_pretrained(shelf.folder / "saved")
    content = (shelf.folder / "saved" / "model.safetensors").read_bytes()
    path = shelf.keep(place, {})
    path.write_bytes(content)
    loaded: Any = made.from_pretrained(shelf.folder / "saved").eval()

    def as_transformers(images: Tensor) -> Tensor:
        if hasattr(loaded, "vision_model"):
            output = loaded.vision_model(images).pooler_output
            return loaded.visual_projection(output) if "projection_dim" in config else output
        base = getattr(loaded, "vit", loaded)
        return base(images).last_hidden_state[:, 0]

    return path, as_transformers


def side(entry: Entry) -> int:
    network = entry.network or entry.encoder
    if entry.library != "timm":
        return 64 if "timm_model_name" in entry.config.get("vision_cfg", {}) else 32
    if network.startswith("swin"):
        return 224  # its windows' tables aren't resampled then
    patch = entry.arguments.get("patch_size") or re.findall(r"patch(\d+)", network)[:1]
    return 2 * int(patch if isinstance(patch, int) else patch[0]) if patch else 64


# One of each architecture, library, layout and kind of place; the others are slow.
QUICK = set(
    "eva02 dinov2 vit openai sam vgg16 vgg19 densenet121 densenet201 efficientnet-b4 medsam "
    "biomedclip biomedgpt seem blip openclip vit-l msn-l pe-core-b16 convnextv2-b swin-b rad-dino "
    "medsiglip retfound plip virchow2".split()
)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in BY_NAME
        if name != IN_PACKAGE
    ],
)
def test_every_entry_of_the_table(name, shelf, small_networks, monkeypatch):
    entry = small(BY_NAME[name])
    monkeypatch.setitem(resolve.SHORT_NAMES, name, entry)
    description = describe(name, side(entry))
    place = description.outline.place
    assert place
    path, reference = publish(entry, shelf, place)
    wish = str(path) if isinstance(place, ByHand) else "pretrained"
    weights = find_weights(description, wish, 0, download=False)
    assert weights.path == path, "found where a download would put it"
    encoder, digest = load_encoder(description, weights)
    pool = "proj" if description.anatomy.proj_width else "head"
    images = torch.randn(2, 3, description.size, description.size)
    with torch.inference_mode():
        expected = reference(images)
        torch.testing.assert_close(encoder(images)[pool], expected, rtol=1e-4, atol=1e-5)
        assert (expected[0] - expected[1]).abs().max() > 1e-4, "it looks at its images"
    classifier, tuned_from = build_classifier(
        description, weights, ModelConfig(pool=pool), 2, 0, lambda line: None
    )
    with torch.inference_mode():
        vectors = classifier.eval().reader(images)
    torch.testing.assert_close(vectors, expected, rtol=1e-4, atol=1e-5)
    assert tuned_from == digest


def test_every_layout_library_and_place_is_among_the_quick():
    assert set(BY_NAME) >= QUICK
    quick = [BY_NAME[name] for name in QUICK] + [BY_NAME[IN_PACKAGE]]
    for what in (
        lambda entry: entry.layout,
        lambda entry: entry.library,
        lambda entry: type(entry.weights),
        lambda entry: entry.config.get("model_type"),
    ):
        assert {what(entry) for entry in quick} == {what(entry) for entry in ENTRIES}
