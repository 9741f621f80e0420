"""Models of transformers: every stored array against transformers' own outputs, and strict loading.

Models are tiny and random, of the very classes that published ones have; nothing is downloaded.
"""

import dataclasses
import functools
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from networks import randomise
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cache import RequestError, open_features
from extract.cli import main
from extract.encoders.anatomy import Statistics
from extract.encoders.encoder import Encoder, Weights, describe, find_weights, load_encoder
from extract.encoders.libraries import transformers as from_transformers
from extract.encoders.libraries.transformers import (
    IMAGE_SIDE,
    MODEL_TYPES,
    check_published,
    fetch_published,
    network_values,
    read_config,
)
from extract.encoders.outline import Outline, recording
from extract.encoders.table.entries import ENTRIES
from extract.encoders.table.entry import Entry
from extract.encoders.weights.published import Hub, Local

SIDE, PATCH, DEPTH, WIDTH = 32, 8, 2, 16
SMALL = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": PATCH,
}
VIT = {**SMALL, "intermediate_size": 24}
TEXT = {
    "hidden_size": WIDTH,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 20,
    "max_position_embeddings": 6,
}
MAE_DECODER = {
    "decoder_hidden_size": 8,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 8,
}


QUERY = "layer.1.attention.attention.query.weight"


class Case(NamedTuple):
    """A model as hubs publish it. What is expected is written by hand."""

    make: Callable[[], Any]
    part: str = ""  # the encoder within it; "": it is the encoder
    old_name: str = f"encoder.{QUERY}"  # a tensor of the saved file, as published ones name it
    dropped: str = ""  # what loading says
    n_prefix: int = 1  # the first one is the class token
    pools: str = "head"  # of the last layer, besides mean: "head", "head proj"

    @property
    def has_cls(self) -> bool:
        return self.n_prefix > 0


def small(name: str, config: str, **values: Any) -> Callable[[], Any]:
    """A function that builds transformers' class of this name."""

    def make() -> Any:
        return getattr(transformers, name)(getattr(transformers, config)(**values))

    return make


def classifier(name: str, config: str, part: str, old_name: str = "", **more: Any) -> Case:
    """The encoder in a classifier, whose two tensors are dropped."""
    n_prefix = more.pop("n_prefix", 1)
    old_name = f"{part}.{old_name or f'encoder.{QUERY}'}"
    return Case(
        small(name, config, **more), part, old_name, "dropped: classifier (2 tensors)", n_prefix
    )


CLIP_QUERY = "encoder.layers.1.self_attn.q_proj.weight"
TOWERS = {"vision_config": VIT, "text_config": TEXT}
TOWER = ("vision_model", f"vision_model.{CLIP_QUERY}")
CLIP_DROPS = "dropped: logit_scale (1 tensor), text_model (20 tensors), text_projection (1 tensor)"
CASES = {
    "vit": classifier("ViTForImageClassification", "ViTConfig", "vit", **VIT, layer_norm_eps=1e-3),
    "vit, with pooler": Case(
        small("ViTModel", "ViTConfig", **VIT, qkv_bias=False, hidden_act="relu"),
        dropped="dropped: pooler (2 tensors)",
    ),
    "vit_msn": Case(small("ViTMSNModel", "ViTMSNConfig", **VIT)),
    "vit_mae": Case(
        small("ViTMAEForPreTraining", "ViTMAEConfig", **VIT, **MAE_DECODER),
        "vit",
        f"vit.encoder.{QUERY}",
        "dropped: decoder (23 tensors)",
    ),
    "deit": Case(
        small("DeiTForImageClassificationWithTeacher", "DeiTConfig", **VIT),
        "deit",
        f"deit.encoder.{QUERY}",
        "dropped: cls_classifier (2 tensors), distillation_classifier (2 tensors)",
        n_prefix=2,
    ),
    "ijepa": classifier("IJepaForImageClassification", "IJepaConfig", "ijepa", n_prefix=0, **VIT),
    "dinov2": Case(small("Dinov2Model", "Dinov2Config", **SMALL, mlp_ratio=2)),
    # As DINOv2's giant: two matrices of the file are one in older releases' modules.
    "dinov2, gated": classifier(
        "Dinov2ForImageClassification",
        "Dinov2Config",
        "dinov2",
        "encoder.layer.1.mlp.weights_in.weight",
        **SMALL,
        use_swiglu_ffn=True,
    ),
    "dinov2_with_registers": Case(
        small(
            "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", **SMALL, num_register_tokens=3
        ),
        n_prefix=4,
    ),
    "dinov3_vit": Case(
        small(
            "DINOv3ViTModel", "DINOv3ViTConfig", **VIT, num_register_tokens=4, use_gated_mlp=True
        ),
        old_name="layer.1.attention.q_proj.weight",
        n_prefix=5,
    ),
    "clip": Case(
        small("CLIPModel", "CLIPConfig", **TOWERS, projection_dim=12),
        *TOWER,
        CLIP_DROPS,
        pools="head proj",
    ),
    "clip_vision_model": Case(
        small("CLIPVisionModelWithProjection", "CLIPVisionConfig", **VIT, projection_dim=12),
        *TOWER,
        pools="head proj",
    ),
    "clip, without projection": Case(
        small("CLIPVisionModel", "CLIPVisionConfig", **VIT, hidden_act="gelu"), "", CLIP_QUERY
    ),
    "clip, classifier": classifier(
        "CLIPForImageClassification", "CLIPConfig", "vision_model", CLIP_QUERY, **TOWERS
    ),
    "metaclip_2": Case(
        small(
            "MetaClip2Model",
            "MetaClip2Config",
            vision_config=VIT,
            text_config={**TEXT, "eos_token_id": 2},
            projection_dim=12,
        ),
        *TOWER,
        CLIP_DROPS,
        pools="head proj",
    ),
    "siglip": Case(
        small("SiglipModel", "SiglipConfig", **TOWERS),
        *TOWER,
        "dropped: logit_bias (1 tensor), logit_scale (1 tensor), text_model (22 tensors)",
        n_prefix=0,
    ),
    "siglip, without head": Case(
        small("SiglipVisionModel", "SiglipVisionConfig", **VIT, vision_use_head=False),
        old_name=CLIP_QUERY,
        n_prefix=0,
        pools="",
    ),
}
close = functools.partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)


def save(model: Any, folder: Path) -> Path:
    """A folder as transformers saves it, with a preprocessor beside the weights."""
    model.save_pretrained(folder)
    preprocessor = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "resample": 2}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


described = functools.cache(describe)


def load(
    folder: Path, size: int | None = None, layer_norm: str = "final", file: Path | None = None
) -> Encoder:
    description = described(f"local-dir:{folder}", size, layer_norm=layer_norm)
    weights = find_weights(description, str(file or "pretrained"), 0, download=False)
    return load_encoder(description, weights)[0]


def put(outline: Outline, tensors: dict[str, Tensor]) -> None:
    """Load tensors that a file called "x" could hold."""
    assert outline.load is not None
    outline.load(tensors, "x", None)


def images(side: int = SIDE, n: int = 3) -> Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(9))


def file_of(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def rewrite(folder: Path, tensors: dict[str, Tensor]) -> Path:
    """The folder with other weights."""
    contiguous = {name: value.contiguous().clone() for name, value in tensors.items()}
    save_file(contiguous, folder / "model.safetensors")
    return folder


class Published(NamedTuple):
    case: Case
    model: Any
    folder: Path

    @property
    def encoder(self) -> Any:
        return self.model.get_submodule(self.case.part) if self.case.part else self.model

    def put(self, tensors: dict[str, Tensor]) -> None:
        """Load tensors that a file called "x" could hold, as those of this model."""
        put(described(f"local-dir:{self.folder}", None).outline, tensors)


@pytest.fixture(scope="module")
def publish(tmp_path_factory):
    """``publish(name of a case)``: its model, saved once."""
    known = {}

    def publish(name):
        if name not in known:
            model = randomise(CASES[name].make())
            folder = save(model, tmp_path_factory.mktemp("hub") / name.replace(", ", "-"))
            known[name] = Published(CASES[name], model, folder)
        return known[name]

    return publish


@pytest.fixture(params=CASES)
def published(request, publish):
    return publish(request.param)


# Resize their positions without being asked.
DINOS = (
    transformers.Dinov2Model,
    transformers.Dinov2WithRegistersModel,
    transformers.DINOv3ViTModel,
)


@pytest.fixture(params=["vit", "deit", "dinov3_vit", "clip", "siglip"])
def one_of_each(request, publish):
    """For what doesn't depend on the model type's details."""
    return publish(request.param)


@torch.inference_mode()
def own_outputs(published: Published, pixels: Tensor) -> dict[str, Any]:
    """transformers' own: "layers" raw, "last" as it calls it, "head" and "proj"."""
    model, whole = published.encoder, published.model
    resize = {"interpolate_pos_encoding": True}
    options: dict[str, Any] = {} if isinstance(model, DINOS) else dict(resize)
    if isinstance(model, transformers.ViTMAEModel):
        # Nothing hidden, nothing shuffled.
        model.config.mask_ratio = 0.0
        n_patches = (pixels.shape[-1] // PATCH) ** 2
        options["noise"] = torch.arange(n_patches).repeat(len(pixels), 1).float()
    output = model(pixels, output_hidden_states=True, **options)
    last, head = output.last_hidden_state, output.get("pooler_output")
    if isinstance(model, transformers.IJepaModel):
        head = last.mean(dim=1)  # its classifier sees this
    elif head is None or isinstance(model, transformers.ViTModel):  # whose pooler is dropped
        head = last[:, 0]
    found = {"layers": output.hidden_states[1:], "last": last, "head": head}
    if hasattr(whole, "get_image_features"):
        found["proj"] = whole.get_image_features(pixels, **resize).pooler_output
    elif "proj" in published.case.pools:
        found["proj"] = whole(pixels, **resize).image_embeds
    return found


def test_every_model_type_has_a_case():
    tested = {name.partition(",")[0] for name in CASES} | {"metaclip_2_vision_model"}
    tested |= {"siglip_vision_model"}  # the case without head
    assert tested == {*MODEL_TYPES, *IMAGE_SIDE}


# ---------------------------------------------------------------------------- outputs


@pytest.mark.parametrize("size", [SIDE, 40])
def test_raw_layers_are_transformers_hidden_states(published, size):
    pixels, n_prefix, has_cls = images(size), published.case.n_prefix, published.case.has_cls
    stored = load(published.folder, size, layer_norm="none")(pixels)
    layers = own_outputs(published, pixels)["layers"]
    assert len(layers) == DEPTH
    for i, tokens in enumerate(layers):
        assert tokens.shape[1] == n_prefix + (size // PATCH) ** 2
        close(stored[f"layers/{i:02d}/mean"], tokens[:, n_prefix:].mean(dim=1))
        assert (f"layers/{i:02d}/cls" in stored) == has_cls
        if has_cls:
            close(stored[f"layers/{i:02d}/cls"], tokens[:, 0])


@pytest.mark.parametrize("size", [SIDE, 40])
def test_layers_have_the_final_norm_by_default(published, size):
    pixels, n_prefix = images(size), published.case.n_prefix
    encoder = load(published.folder, size)
    stored = encoder(pixels)
    with_tokens = dataclasses.replace(encoder.description, tokens=True)
    maps = Encoder(with_tokens, encoder.network)(pixels)
    own = own_outputs(published, pixels)
    norm = next(
        getattr(published.encoder, name)
        for name in ("layernorm", "post_layernorm", "norm")
        if hasattr(published.encoder, name)
    )
    for i, tokens in enumerate(own["layers"]):
        close(stored[f"layers/{i:02d}/mean"], norm(tokens)[:, n_prefix:].mean(dim=1))
        patches = maps[f"layers/{i:02d}/tokens"]
        assert patches.shape[1:3] == (size // PATCH, size // PATCH)
        close(patches.flatten(1, 2), norm(tokens)[:, n_prefix:])
        if published.case.has_cls:
            close(stored[f"layers/{i:02d}/cls"], norm(tokens)[:, 0])
    last = own["last"]
    if "CLIP" in type(published.encoder).__name__.upper():  # transformers leaves it raw
        last = norm(last)
    close(stored[f"layers/{DEPTH - 1:02d}/mean"], last[:, n_prefix:].mean(dim=1))


def test_norm2_layers_are_what_the_norms_before_mlps_give(published):
    """Of block i + 1, for layer i; the last is the usual one."""
    pixels, case = images(), published.case
    norms = {
        name: module
        for name, module in published.encoder.named_modules()
        if name.rpartition(".")[2] in ("layernorm_after", "layer_norm2", "norm2")
    }
    assert len(norms) == DEPTH
    with recording(norms) as runs:
        own_outputs(published, pixels)
    stored, usual = (load(published.folder, layer_norm=norm)(pixels) for norm in ("norm2", "final"))
    assert list(stored) == list(usual)
    for layer, (_, tokens) in enumerate(runs[1:DEPTH]):
        close(stored.pop(f"layers/{layer:02d}/mean"), tokens[:, case.n_prefix :].mean(dim=1))
        if case.has_cls:
            close(stored.pop(f"layers/{layer:02d}/cls"), tokens[:, 0])
    assert f"layers/{DEPTH - 1:02d}/mean" in stored
    for name, vectors in stored.items():
        close(vectors, usual[name])


@pytest.mark.parametrize("size", [SIDE, 40])
def test_head_and_projection_are_transformers_own(published, size):
    pixels = images(size)
    stored = load(published.folder, size)(pixels)
    own = own_outputs(published, pixels)
    assert {n for n in stored if "/" not in n} == set(published.case.pools.split())
    for name in published.case.pools.split():
        close(stored[name], own[name])


def test_cls_is_the_first_token_and_mean_never_holds_a_prefix_token(published):
    """Token t of the last block is made to be t everywhere."""
    encoder = load(published.folder, layer_norm="none")
    n_prefix, n_patches = published.case.n_prefix, (SIDE // PATCH) ** 2

    def number(module, inputs, output):
        assert isinstance(output, Tensor)
        return torch.arange(output.shape[1]).float()[None, :, None].expand_as(output)

    last = encoder.description.anatomy.taps[-1].module
    encoder.model.get_submodule(last).register_forward_hook(number, prepend=True)
    stored = encoder(images())
    patches = n_prefix + (n_patches - 1) / 2
    assert (stored[f"layers/{DEPTH - 1:02d}/mean"] == patches).all()
    if published.case.has_cls:
        assert (stored[f"layers/{DEPTH - 1:02d}/cls"] == 0).all()


def test_mae_hides_no_patch(publish):
    """transformers' own model shuffles and hides patches in inference too."""
    encoder = load(publish("vit_mae").folder)
    torch.manual_seed(1)
    first = encoder(images())
    torch.manual_seed(2)
    second = encoder(images())
    assert all(torch.equal(first[name], second[name]) for name in first)
    brighter = images()
    for row in range(0, SIDE, PATCH):  # each patch has its say
        for column in range(0, SIDE, PATCH):
            changed = brighter.clone()
            changed[:, :, row : row + PATCH, column : column + PATCH] += 1
            assert not torch.allclose(encoder(changed)["head"], first["head"])


def test_a_run_can_be_repeated_and_rows_are_independent(published):
    encoder, pixels = load(published.folder), images(n=5)
    together = encoder(pixels)
    again = encoder(pixels)
    alone = [encoder(pixels[i : i + 1]) for i in range(5)]
    for name, rows in together.items():
        assert torch.equal(rows, again[name]), name
        close(torch.cat([one[name] for one in alone]), rows)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_transformers_own(publish, precision, monkeypatch):
    """Rotary frequencies stay float32 there, which a cast of the whole module would change."""
    folder = publish("dinov3_vit").folder
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    own = transformers.DINOv3ViTModel.from_pretrained(folder, dtype=dtype).eval()
    encoder = load(folder).to(torch.device("cpu"), precision)
    encoder(images())  # a second pass must be like the first
    with torch.inference_mode():
        expected = own(images().to(dtype)).pooler_output.float()
    assert torch.equal(encoder(images())["head"], expected)


def test_statistics_are_the_preprocessors(publish):
    description = describe(f"local-dir:{publish('vit').folder}", None)
    assert description.statistics == Statistics((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bilinear")


# ---------------------------------------------------------------------------- sizes


def test_the_encoders_own_size_is_the_default(one_of_each):
    description = describe(f"local-dir:{one_of_each.folder}", None)
    assert (description.size, description.outline.own_size) == (SIDE, SIDE)


def test_a_size_that_patches_dont_fill_is_refused_with_the_nearest(one_of_each):
    expected = (
        f"local-dir:{one_of_each.folder.name} doesn't take --size 37 (not a multiple of the patch "
        "size 8); nearest valid: 32 or 40; its own size is 32"
    )
    with pytest.raises(RequestError, match=f"^{re.escape(expected)}$"):
        describe(f"local-dir:{one_of_each.folder}", 37)
    with pytest.raises(RequestError, match="nearest valid: 8; "):
        describe(f"local-dir:{one_of_each.folder}", 3)


def test_an_own_size_that_patches_dont_fill_is_taken(tmp_path):
    """SigLIP So400m/14 at 384 is published so: 27 patches a side, 6 pixels unseen."""
    make = small("SiglipVisionModel", "SiglipVisionConfig", **{**VIT, "image_size": SIDE + 3})
    model = randomise(make())
    encoder = load(save(model, tmp_path))
    assert encoder.description.size == SIDE + 3
    with torch.inference_mode():
        close(encoder(images(SIDE + 3))["head"], model(images(SIDE + 3)).pooler_output)


# ---------------------------------------------------------------------------- files


def test_what_lies_beside_the_encoder_is_dropped_by_name(published):
    encoder = load(published.folder)
    assert list(encoder.said) == ([published.case.dropped] if published.case.dropped else [])


def test_published_and_newer_names_load_alike(published, tmp_path):
    old = file_of(published.folder)
    assert published.case.old_name in old
    new = published.model.state_dict()
    if any("encoder.layer." in name or "layer.0" in name for name in old):
        assert new.keys() != old.keys()
    (tmp_path / "config.json").write_text((published.folder / "config.json").read_text())
    rewrite(tmp_path, new)
    expected, found = load(published.folder)(images()), load(tmp_path)(images())
    for name in expected:
        assert torch.equal(found[name], expected[name]), name


def test_files_of_torch_save_and_of_half_precision(published, tmp_path):
    half = {name: value.half() for name, value in file_of(published.folder).items()}
    saved, exact = tmp_path / "half", tmp_path / "exact"
    for folder in (saved, exact):
        folder.mkdir()
        (folder / "config.json").write_text((published.folder / "config.json").read_text())
    torch.save(half, saved / "pytorch_model.bin")
    encoder = load(saved)
    assert {p.dtype for p in encoder.model.parameters()} == {torch.float32}
    rewrite(exact, {name: value.float() for name, value in half.items()})
    expected, found = load(exact)(images()), encoder(images())
    for name in expected:
        assert torch.equal(found[name], expected[name]), name


NUMBERS = {"vision_model.embeddings.position_ids": torch.arange(17)[None]}  # in old files
MASK = {"embeddings.mask_token": torch.zeros(1, 1, WIDTH)}
POOLER = {"vit.pooler.dense.weight": torch.zeros(WIDTH, WIDTH)}


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("clip", lambda file: file | NUMBERS, CASES["clip"].dropped),
        ("siglip", lambda file: file | NUMBERS, CASES["siglip"].dropped),
        ("dinov2", lambda file: {n: x for n, x in file.items() if n not in MASK}, ""),
        ("vit, with pooler", lambda file: file | MASK, None),
        (
            "dinov2",
            lambda file: {f"module.{n}": x for n, x in file.items()},
            "names mapped by the rule \"strip 'module.'\"",
        ),
        (
            "vit",
            lambda file: file | POOLER,
            "dropped: classifier (2 tensors), vit.pooler (1 tensor)",
        ),
    ],
)
def test_what_may_be_there_or_not_changes_no_output(publish, tmp_path, name, change, said):
    folder = publish(name).folder
    torch.save(change(file_of(folder)), tmp_path / "w.bin")
    encoder = load(folder, file=tmp_path / "w.bin")
    if said is not None:
        assert list(encoder.said) == ([said] if said else [])
    assert torch.equal(encoder(images())["head"], load(folder)(images())["head"])


# ---------------------------------------------------------------------------- strictness


def belongs_to_encoder(name: str, published: Published) -> bool:
    """By hand, as the test's own reading of the saved names."""
    beside = ("classifier.", "cls_classifier.", "distillation_", "decoder.", "pooler.")
    beside += ("text_", "logit_")
    return not name.startswith(beside) and not name.endswith("mask_token")


def test_a_file_without_any_one_tensor_is_refused(published):
    tensors = file_of(published.folder)
    outline = described(f"local-dir:{published.folder}", None).outline
    for name in tensors:
        if ".0." in name or not belongs_to_encoder(name, published):
            continue  # block 1 has the same names
        rest = {n: value for n, value in tensors.items() if n != name}
        lacks = r"^x doesn't fit .* are missing \(.*this very model$"
        with pytest.raises(RequestError, match=lacks):
            put(outline, rest)


def test_a_tensor_too_many_is_refused(published):
    tensors = file_of(published.folder)
    old = published.case.old_name
    for name in (old.replace(".1.", f".{DEPTH}."), old.replace(".weight", ".spare")):
        extra = {**tensors, name: torch.zeros(WIDTH, WIDTH)}
        with pytest.raises(RequestError, match=r"doesn't fit [^:]+: \d don't belong \(\S+"):
            published.put(extra)


def test_a_wrong_shape_is_named(published):
    tensors = file_of(published.folder)
    norms = [n for n in tensors if n.endswith("norm.bias") and belongs_to_encoder(n, published)]
    wrong = {**tensors, norms[0]: torch.zeros(WIDTH + 1)}
    with pytest.raises(RequestError, match=r"norm\.bias is \(17,\) instead of \(16,\); give"):
        published.put(wrong)


def test_a_position_table_of_another_size_is_refused(publish, tmp_path):
    other = randomise(small("Dinov2Model", "Dinov2Config", **{**SMALL, "image_size": 64})())
    with pytest.raises(RequestError, match=r"position_embeddings is \(1, 65, 16\) instead of"):
        load(publish("dinov2").folder, file=save(other, tmp_path) / "model.safetensors")


# One network by several names, whose files nobody can tell apart.
ALIKE = ({"vit", "vit_msn", "vit_mae"}, {"clip", "clip_vision_model", "metaclip_2"})
CLIPS = {name for name in CASES if "clip" in name}  # without projection, a file's is left out


@pytest.mark.parametrize("name", CASES)
def test_another_models_file_is_refused(name, publish):
    outline = described(f"local-dir:{publish(name).folder}", None).outline
    fitting = {name}.union(*(group for group in ALIKE if name in group))
    if name in ("clip, without projection", "clip, classifier"):
        fitting = CLIPS
    for other in CASES:
        tensors = file_of(publish(other).folder)
        if other in fitting:
            put(outline, tensors)
        else:
            with pytest.raises(RequestError, match=r"^x doesn't fit transformers' "):
                put(outline, tensors)


def test_a_file_of_nothing_that_belongs_is_refused(one_of_each):
    with pytest.raises(RequestError, match=r"doesn't fit .*: (\d+) of \1 tensors are missing"):
        one_of_each.put({"foo.weight": torch.zeros(2)})


def test_two_tensors_for_one_place_are_refused(publish):
    """transformers takes one of them without a word."""
    published = publish("vit")
    tensors = file_of(published.folder)
    double = {**tensors, "layernorm.weight": tensors["vit.layernorm.weight"] + 1}
    n = sum(p.numel() for p in published.encoder.parameters())
    with pytest.raises(RequestError, match=f"it holds {n + WIDTH} numbers for the encoder's {n};"):
        published.put(double)


def test_nothing_is_left_without_values_or_at_random(published):
    torch.manual_seed(1)
    first = load(published.folder)
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    second = load(published.folder)
    assert torch.equal(torch.random.get_rng_state(), state)  # nor is the caller's state used up
    for (name, one), other in zip(
        everything(first.model).items(), everything(second.model).values(), strict=True
    ):
        assert one.device.type == "cpu", name
        assert torch.equal(one, other), name
    a, b = first(images()), second(images())
    assert all(torch.equal(a[name], b[name]) for name in a)


def everything(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def test_every_tensor_has_the_files_values(published):
    """Buffers that no file holds are as transformers makes them."""
    own = dict(published.encoder.named_buffers())
    state = everything(load(published.folder).model)
    values = {tuple(v.flatten().tolist()) for v in published.model.state_dict().values()}
    for name, tensor in state.items():
        if name.endswith(("position_ids", "inv_freq")):
            assert torch.equal(tensor, own[name.removeprefix("vision_model.")])
        elif not name.endswith("mask_token"):
            assert tuple(tensor.flatten().tolist()) in values, name


def test_a_release_that_leaves_tensors_without_values_is_refused(publish, monkeypatch):
    published = publish("vit")

    def leave(*arguments, config, **options):
        with torch.device("meta"):
            model = transformers.ViTModel(config, add_pooling_layer=False)
        return model, {"missing_keys": set(), "unexpected_keys": set(), "mismatched_keys": set()}

    monkeypatch.setattr(transformers.ViTModel, "from_pretrained", leave)
    with pytest.raises(RequestError, match="this release of transformers leaves tensors without"):
        load(published.folder)


def test_random_weights_are_the_seeds(one_of_each):
    description = describe(f"local-dir:{one_of_each.folder}", 24)
    first, same, other = (load_encoder(description, Weights(None, seed=s)) for s in (3, 3, 4))
    assert first[1] == same[1] != other[1]
    for vectors in first[0](images(24)).values():
        assert vectors.isfinite().all()


def test_loading_is_silent_and_asks_nobody(published, capfd, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    encoder = load(published.folder, 24)
    encoder(images(24))
    tensors = file_of(published.folder)
    tensors.pop(published.case.old_name)
    with pytest.raises(RequestError):
        put(encoder.description.outline, tensors)
    assert capfd.readouterr() == ("", "")


# ---------------------------------------------------------------------------- configurations


def entry_of(config: dict[str, Any], **others: Any) -> Entry:
    return Entry(
        "small", "transformers:some/model", library="transformers", config=config, **others
    )


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def test_remarks_of_whoever_saved_it_change_nothing(publish, tmp_path):
    published = publish("dinov2")
    remarks = {
        "attn_implementation": "flash_attention_2",
        "_attn_implementation": "flash_attention_2",
        "dtype": "bfloat16",
        "torch_dtype": "float16",
        "return_dict": False,
        "output_attentions": True,
        "output_hidden_states": True,
        "hidden_dropout_prob": 0.5,
        "drop_path_rate": 0.3,
        "pruned_heads": {},
        "torchscript": True,
        "finetuning_task": "x",
        "id2label": {"0": "a"},
        "out_features": ["stage1"],
    }
    rewrite(tmp_path, file_of(published.folder))
    (tmp_path / "config.json").write_text(json.dumps(config_of(published.folder) | remarks))
    expected, encoder = load(published.folder), load(tmp_path)
    assert encoder.description.arguments == expected.description.arguments
    assert torch.equal(encoder(images())["head"], expected(images())["head"])


def test_arguments_are_what_builds_the_network(publish):
    def arguments(name):
        return describe(f"local-dir:{publish(name).folder}", 40).arguments

    assert arguments("vit") == {"model_type": "vit", **VIT, "layer_norm_eps": 1e-3}
    assert arguments("clip") == {
        "model_type": "clip_vision_model",
        **VIT,
        "projection_dim": 12,
    }
    # 16 is the default here, 4 isn't.
    assert arguments("dinov3_vit")["num_register_tokens"] == 4
    json.dumps(arguments("dinov3_vit"))


def test_defaults_may_be_written_out_or_not():
    """Releases differ in that; the network is one."""
    short = {"model_type": "dinov2", "hidden_size": 384, "num_attention_heads": 6}
    long = {**transformers.Dinov2Config(hidden_size=384, num_attention_heads=6).to_dict(), **short}
    assert len(long) > 20
    first, second = (network_values(read_config("x", config)[2]) for config in (short, long))
    assert first == second == {"hidden_size": 384, "num_attention_heads": 6}


def test_old_configurations_of_clip():
    """The projection of the whole model counts, and vision_config_dict wins."""
    inner = {"hidden_size": 24, "projection_dim": 512, "top_k": 50, "pruned_heads": {}}
    config = {"model_type": "clip", "projection_dim": 768, "vision_config": inner}
    assert read_config("x", config)[2].projection_dim == 768
    config["vision_config_dict"] = {"hidden_size": 36, "projection_dim": 768}
    assert read_config("x", config)[2].hidden_size == 36
    whole = transformers.CLIPConfig(**{n: v for n, v in config.items() if n != "model_type"})
    assert whole.vision_config.hidden_size == 36  # as transformers reads it
    assert (
        read_config("x", {"model_type": "clip", "vision_config": {"projection_dim": 8}})[
            2
        ].projection_dim
        == transformers.CLIPConfig().projection_dim
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bert"}, "is of transformers' model type 'bert'; medprobe reads vit, "),
        ({"model_type": None}, "model type None"),
        ({"image_size": [32, 16]}, r"can't build .*: \[32, 16\] isn't square"),
        ({"hidden_size": "wide"}, r"can't build .*'hidden_size'.*expected int, got str"),
        ({"num_attention_heads": 5}, r"transformers \S+ can't run .* at --size 32: "),
        ({"hidden_act": "gelu_of_mine"}, r"can't run .*: .*gelu_of_mine"),
        ({"num_channels": 1}, "takes images of 1 channels, not of 3"),
        ({"auto_map": {"AutoModel": "mine.MyModel"}}, "code of its own repository, which is never"),
        ({"quantization_config": {"bits": 8}}, "quantised weights"),
    ],
)
def test_a_configuration_that_cant_be_used_is_one_line(changes, message):
    config = {"model_type": "siglip_vision_model", **VIT, **changes}
    with pytest.raises(RequestError, match=message) as error:
        from_transformers.outline(entry_of(config), None)
    assert "\n" not in str(error.value)


def outline_of(**config: Any) -> Outline:
    return from_transformers.outline(entry_of({"model_type": "vit", **VIT, **config}), None)


def test_what_a_configuration_says_counts():
    square = outline_of(image_size=[SIDE, SIDE], patch_size=[PATCH, PATCH])
    assert square.own_size == SIDE
    assert square.arguments == {"model_type": "vit", **VIT}
    narrow = outline_of(head_dim=4)  # which configurations don't list
    assert narrow.arguments["head_dim"] == 4
    assert narrow.anatomy.n_parameters < square.anatomy.n_parameters
    entry = entry_of({"model_type": "dinov2", **SMALL}, size=24)  # the entry's own size
    outline = from_transformers.outline(entry, None)
    assert (outline.size, outline.own_size) == (24, 24)


# ---------------------------------------------------------------------------- the table


TABLE = [entry for entry in ENTRIES if entry.library == "transformers"]


@pytest.mark.parametrize("entry", TABLE, ids=lambda entry: entry.name)
def test_literal_configurations_hold_no_name_that_nobody_reads(entry):
    """A misspelt one would silently be transformers' default."""
    _, _, config = read_config(entry.name, entry.config)
    assert set(entry.config) - {"model_type"} <= from_transformers._network_names(type(config))
    for name, value in entry.config.items():
        if name != "model_type":
            assert getattr(config, name) == value


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """``hub(config)``: what some/model's config.json holds in the hub's cache."""

    def keep(config):
        path = tmp_path / "cached.json"
        path.write_text(json.dumps(config))

        def cached(repository, name):
            assert (repository, name) == ("some/model", "config.json")
            return path

        monkeypatch.setattr(from_transformers, "cached_file", cached)

    return keep


PUBLISHED = {  # the way hubs have them: the table's literal, and a difference that would be silent
    "vit": ({"model_type": "vit", **VIT}, "layer_norm_eps", 1e-5, 1e-12),
    "dinov2": ({"model_type": "dinov2", **SMALL}, "layerscale_value", 0.1, 1.0),
    "dinov3_vit": ({"model_type": "dinov3_vit", **VIT}, "rope_theta", 50.0, 100.0),
    "clip": ({"model_type": "clip_vision_model", **VIT}, "hidden_act", "gelu", "quick_gelu"),
    "siglip": (
        {"model_type": "siglip_vision_model", **VIT},
        "hidden_act",
        "gelu",
        "gelu_pytorch_tanh",
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_literal_configuration_is_compared_with_the_published_one(name, hub):
    literal, attribute, changed, was = PUBLISHED[name]
    entry = entry_of(literal, weights=Hub("some/model"))
    config = {**literal, "model_type": name, "transformers_version": "4.30.0"}
    if name in IMAGE_SIDE:
        config = {"model_type": name, "vision_config": config, "text_config": TEXT}
        config |= {"projection_dim": 512} if name == "clip" else {}
    hub(config)
    check_published(entry)
    config.get("vision_config", config)[attribute] = changed
    hub(config)
    message = (
        "medprobe's configuration of transformers:some/model isn't the one that some/model "
        f"publishes: {attribute} is {was!r} here and {changed!r} there. Please report it; --model "
        "transformers:some/model takes the published one"
    )
    with pytest.raises(RequestError, match=f"^{re.escape(message)}$"):
        check_published(entry)


def test_every_value_that_builds_a_network_is_compared(hub):
    for name, kind in MODEL_TYPES.items():
        entry = entry_of({"model_type": name}, weights=Hub("some/model"))
        config_class = getattr(transformers, kind.config)
        default = config_class().to_dict()
        compared = from_transformers._network_names(config_class) & default.keys()
        assert {"hidden_size", "num_hidden_layers", "hidden_act", "layer_norm_eps"} <= compared
        for attribute in compared - {"num_channels"}:
            value = default[attribute]
            changed = {str: "relu", bool: not value}.get(type(value), value and value * 2)
            if attribute in ("num_register_tokens",):
                changed = value + 1
            hub({"model_type": name, attribute: changed})
            with pytest.raises(RequestError, match=f"{attribute} is .* here and .* there"):
                check_published(entry)


def test_a_published_projection_and_class_are_compared(hub):
    entry = entry_of({"model_type": "clip_vision_model", **VIT}, weights=Hub("some/model"))
    hub({"model_type": "clip", "vision_config": VIT, "projection_dim": 768})
    with pytest.raises(RequestError, match="projection_dim is 512 here and 768 there"):
        check_published(entry)
    hub({"model_type": "clip_vision_model", **VIT, "architectures": ["CLIPVisionModel"]})
    with pytest.raises(RequestError, match="model class is 'CLIPVisionModelWithProjection' here"):
        check_published(entry)
    hub({"model_type": "dinov2", **SMALL})
    with pytest.raises(RequestError, match=r"intermediate_size is 24 here and None there; .*class"):
        check_published(entry)


def test_a_published_configuration_that_cant_be_read_is_named(hub, tmp_path):
    entry = entry_of({"model_type": "vit", **VIT}, weights=Hub("some/model"))
    hub({"model_type": "swin"})
    with pytest.raises(
        RequestError, match=r"cached.json of transformers:some/model is of .*'swin'"
    ):
        check_published(entry)
    (tmp_path / "cached.json").write_text("{")
    with pytest.raises(RequestError, match="cached.json isn't readable JSON"):
        check_published(entry)


def test_without_a_cached_configuration_nothing_is_compared(monkeypatch):
    monkeypatch.setattr(from_transformers, "cached_file", lambda repository, name: None)
    check_published(entry_of({"model_type": "vit"}, weights=Hub("some/model")))


def test_loading_compares_first(publish, hub):
    folder = publish("vit").folder
    entry = entry_of(config_of(folder), weights=Hub("some/model"))
    outline = from_transformers.outline(entry, None)
    hub(config_of(folder))
    put(outline, file_of(folder))
    hub(config_of(folder) | {"hidden_act": "relu"})
    with pytest.raises(RequestError, match="hidden_act is 'gelu' here and 'relu' there"):
        put(outline, file_of(folder))


def test_the_published_configuration_is_fetched_if_it_can_be(monkeypatch):
    asked = []

    def fetch(repository, name):
        asked.append((repository, name))
        raise RequestError("no network")

    monkeypatch.setattr(from_transformers, "config_file", fetch)
    fetch_published(entry_of({"model_type": "vit"}, weights=Hub("some/model")))
    assert asked == [("some/model", "config.json")]
    fetch_published(entry_of({"model_type": "vit"}, weights=Local(Path("x"))))
    assert len(asked) == 1


# ---------------------------------------------------------------------------- the library


def test_without_transformers_or_the_class_one_line_says_what_to_install(monkeypatch):
    kind = dataclasses.replace(MODEL_TYPES["vit"], model="ViTModelOfTomorrow")
    monkeypatch.setitem(MODEL_TYPES, "vit", kind)
    lacks = f"ViTModelOfTomorrow, which transformers {re.escape(transformers.__version__)} lack"
    with pytest.raises(RequestError, match=lacks):
        describe("phikon", None)
    monkeypatch.setitem(sys.modules, "transformers", None)
    expected = "this encoder needs the package transformers: pip install 'medprobe[transformers]'"
    with pytest.raises(RequestError, match=f"^{re.escape(expected)}$"):
        describe("phikon", None)


def test_a_release_with_other_modules_is_named(monkeypatch):
    kind = MODEL_TYPES["vit"]
    for changed in (
        dataclasses.replace(kind, norm="norm_of_tomorrow"),
        dataclasses.replace(kind, n_prefix=2),
    ):
        monkeypatch.setitem(MODEL_TYPES, "vit", changed)
        with pytest.raises(RequestError, match="medprobe doesn't know the ViTModel of transformer"):
            from_transformers.outline(entry_of({"model_type": "vit", **VIT}), None)


def test_a_fresh_process_is_silent_and_imports_transformers_for_its_models_only(publish):
    """No warning of an import, no progress bar, no report of what was loaded."""
    code = (
        "import contextlib, io, sys, torch\n"
        "from cache import RequestError\n"
        "from extract.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    main(['--help'])\n"
        "from extract.encoders.encoder import describe, find_weights, load_encoder\n"
        "for name in ('test_vit', 'resnet18'):\n"
        "    describe(name, 64)\n"
        "assert 'transformers' not in sys.modules\n"
        f"clip = describe('local-dir:{publish('clip').folder}', None)\n"
        "assert 'transformers' in sys.modules\n"
        "weights = find_weights(clip, 'pretrained', 0, download=False)\n"
        "load_encoder(clip, weights)\n"
        "try: clip.outline.load({'vision_model.embeddings.foo': torch.zeros(1)}, 'x', None)\n"
        "except RequestError: sys.exit(3)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert (result.returncode, result.stdout, result.stderr) == (3, "", "")


def test_the_command_extracts_from_a_folder(publish, write_npz, tmp_path, capsys):
    data = write_npz(tmp_path / "tiny.npz", counts=(4, 2, 3), side=16)
    folder = publish("clip").folder
    arguments = ["--model", f"local-dir:{folder}", "--size", "40", "--data", f"npz:{data}"]
    assert main([*arguments, "--features", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert CASES["clip"].dropped in capsys.readouterr().out
    (path,) = (tmp_path / "out").rglob("*.h5")
    features = open_features(path)
    assert features.array(-1, "proj").shape == (9, 12)
    assert features.key["arguments"]["projection_dim"] == 12
