"""Image towers of open_clip: what is stored of each against the whole model's own outputs.

Models are tiny and random, of the very classes that published ones have; nothing is downloaded.
"""

import dataclasses
import json
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import open_clip
import pytest
import timm
import torch
from networks import assert_close, some_images, unsettle
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP
from safetensors.torch import save_file
from torch import Tensor, nn

from cache import RequestError, open_features
from cache.format.key import canonical_json
from extract.cli import main
from extract.config import ExtractConfig
from extract.encoders.anatomy import Statistics
from extract.encoders.encoder import Description, Encoder, Weights, describe, load_encoder
from extract.encoders.libraries import open_clip as from_open_clip
from extract.encoders.outline import recording
from extract.encoders.resolve import find_entry
from extract.encoders.table.entry import CLIP as CLIP_STATISTICS
from extract.encoders.table.entry import Entry
from extract.encoders.weights.published import OPEN_CLIP, Hub, Url
from extract.prepare.protocols import preprocess

TEXT = {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1}
# 16 patches of 8 x 8 px, and a class token.
VIT = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 3, "head_width": 32}
CLIPA = {"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True}
COCA = {"attentional_pool": True, "attn_pooler_queries": 5, "attn_pooler_heads": 2}
ATTENTION = {"qk_norm": True, "scale_heads": True, "scale_attn": True, "scale_fc": True}
RESNET = {"image_size": 64, "layers": [1, 2, 1, 1], "width": 16, "head_width": 64}
CAPTIONS = {"context_length": 7, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1}


def timm_trunk(name: str, pool: str, proj: str | None, size: int = 160) -> dict[str, Any]:
    names = {"timm_model_name": name, "timm_pool": pool, "timm_proj": proj}
    return {**names, "timm_model_pretrained": False, "timm_drop_path": 0.1, "image_size": size}


class Kind(NamedTuple):
    """What is expected of one kind of tower. Written by hand, not asked of the code under test."""

    vision: dict[str, Any]
    norm: str  # "tokens", "pooled", "last stage", "none"
    n_layers: int
    width: int  # of the last layer
    head: int | None  # its width
    has_cls: bool = False
    has_proj: bool = True
    quick_gelu: bool = False
    captions: bool = False  # whether the whole model writes them


KINDS = {
    # open_clip's own ViT: OpenAI's CLIP, LAION's.
    "tok": Kind(VIT, "tokens", 3, 64, 64, has_cls=True),
    "quick gelu": Kind(VIT, "tokens", 3, 64, 64, has_cls=True, quick_gelu=True),
    "avg": Kind({**VIT, "pool_type": "avg"}, "tokens", 3, 64, 64, has_cls=True),
    # CLIPA: the norm is behind the pool, and none before the blocks.
    "clipa": Kind({**VIT, **CLIPA}, "pooled", 3, 64, 64, has_cls=True),
    "norm after tok": Kind({**VIT, "final_ln_after_pool": True}, "pooled", 3, 64, 64, has_cls=True),
    # CoCa: pooled by attention, to the width of the projection, and normed only then.
    "coca": Kind({**VIT, **COCA}, "none", 3, 64, 24, has_cls=True),
    "coca avg": Kind({**VIT, **COCA, "pool_type": "avg"}, "none", 3, 64, 24, has_cls=True),
    "coca captions": Kind(
        {**VIT, **COCA, "output_tokens": True}, "none", 3, 64, 24, has_cls=True, captions=True
    ),
    "layer scale": Kind({**VIT, "ls_init_value": 0.1}, "tokens", 3, 64, 64, has_cls=True),
    "fixed positions": Kind({**VIT, "pos_embed_type": "sin_cos_2d"}, "tokens", 3, 64, 64, True),
    "attention": Kind({**VIT, **ATTENTION}, "tokens", 3, 64, 64, has_cls=True),
    "patches dropped in training": Kind({**VIT, "patch_dropout": 0.5}, "tokens", 3, 64, 64, True),
    # timm's trunks. BiomedCLIP is a ViT with a linear projection.
    "timm linear": Kind(timm_trunk("test_vit", "", "linear"), "tokens", 6, 64, 64, True),
    "timm mlp": Kind(timm_trunk("test_vit", "avg", "mlp"), "tokens", 6, 64, 64, True),
    # EVA-02 CLIP, PE-Core, MobileCLIP: the trunk's classifier is the projection.
    "timm classifier": Kind(timm_trunk("test_vit", "token", None), "tokens", 6, 64, 64, True),
    "eva02": Kind(
        timm_trunk("eva02_tiny_patch14_224", "token", None, 224), "tokens", 12, 192, 192, True
    ),
    "registers": Kind(timm_trunk("test_vit2", "avg", "linear"), "pooled", 8, 64, 64),
    "map and classifier": Kind(timm_trunk("test_vit3", "map", None), "tokens", 9, 96, 96),
    # SigLIP: pooled by attention, and nothing behind it.
    "siglip": Kind(timm_trunk("test_vit3", "map", "none"), "tokens", 9, 96, 96),
    "convnext": Kind(timm_trunk("test_convnext", "", "linear"), "none", 4, 64, 64),
    "convnext mlp": Kind(timm_trunk("test_convnext", "", "mlp"), "none", 4, 64, 64),
    "resnet classifier": Kind(timm_trunk("test_resnet", "avg", None), "none", 5, 96, 96),
    # Stem, then layer1 to layer4, which is 32 times as wide as the stem.
    "modified resnet": Kind(RESNET, "none", 5, 512, None),
}
EMBED = 24  # of the projection


def make_config(kind: Kind) -> dict[str, Any]:
    config = {"embed_dim": EMBED, "vision_cfg": kind.vision, "text_cfg": TEXT}
    config |= {"quick_gelu": True} if kind.quick_gelu else {}
    return config | ({"multimodal_cfg": CAPTIONS} if kind.captions else {})


def make_whole(config: dict[str, Any], seed: int = 3) -> Any:
    """A whole model of open_clip's as its factory would build it, every weight moved."""
    # Either way of saving texts: at the root of a checkpoint, or under "text.".
    model_class = CustomTextCLIP if "timm_model_name" in config["vision_cfg"] else CLIP
    model_class = CoCa if "multimodal_cfg" in config else model_class
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        whole = model_class(**config).eval()
    return unsettle(whole, by=0.05)


def make_entry(config: dict[str, Any], **changes: Any) -> Entry:
    return Entry("toy", "toy", library="open_clip", config=config, **changes)


def make_description(entry: Entry, size: int | None = None, norm: str = "final") -> Description:
    outline = from_open_clip.outline(entry, size)
    return Description("toy", entry, outline, tuple(range(outline.anatomy.n_layers)), norm)


def save(whole: nn.Module, path: Path, **changed: Tensor | None) -> Path:
    tensors = {**whole.state_dict(), **changed}
    tensors = {n: t.clone().contiguous() for n, t in tensors.items() if t is not None}
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


@torch.inference_mode()
def encode_image(whole: Any, images: Tensor) -> Tensor:
    return whole.encode_image(images, normalize=False)


@torch.inference_mode()
def pooled_layers(visual: Any, images: Tensor, norm: str) -> dict[str, Tensor]:
    """All layers by open_clip's own ``forward_intermediates``, pooled by plain means."""
    has_tokens = hasattr(visual, "transformer") or hasattr(getattr(visual, "trunk", None), "blocks")
    found = visual.forward_intermediates(
        images,
        normalize_intermediates=norm in ("tokens", "last stage"),
        intermediates_only=True,
        output_extra_tokens=has_tokens,
    )
    pooled = {}
    for i, patches in enumerate(found["image_intermediates"]):
        pooled[f"layers/{i:02d}/mean"] = patches.double().mean(dim=(2, 3)).float()
    for i, prefix in enumerate(found.get("image_intermediates_prefix", [])):
        pooled[f"layers/{i:02d}/cls"] = prefix[:, 0]
    if norm == "pooled":
        own = visual.ln_post if hasattr(visual, "ln_post") else visual.trunk.fc_norm
        pooled = {name: own(vectors) for name, vectors in pooled.items()}
    return pooled


@torch.inference_mode()
def before_projection(visual: Any, images: Tensor) -> Tensor:
    if hasattr(visual, "trunk"):
        final = visual.trunk.forward_features(images)
        return visual.trunk.forward_head(final, pre_logits=True).flatten(1)
    projection, visual.proj = visual.proj, None
    vector = visual(images)
    visual.proj = projection
    return vector[0] if isinstance(vector, tuple) else vector


class Case(NamedTuple):
    kind: Kind
    whole: Any
    encoder: Encoder
    images: Tensor
    stored: dict[str, Tensor]
    path: Path


@pytest.fixture(scope="module", params=list(KINDS))
def case(request, tmp_path_factory):
    """A whole model, and our encoder of a file that it was saved to."""
    kind = KINDS[request.param]
    config = make_config(kind)
    whole = make_whole(config)
    path = save(whole, tmp_path_factory.mktemp("weights") / "w.pt")
    encoder, _ = load_encoder(make_description(make_entry(config)), Weights(path))
    images = some_images(2, kind.vision["image_size"])
    return Case(kind, whole, encoder, images, encoder(images), path)


# ---------------------------------------------------------------------------- every kind of tower


def test_proj_is_what_the_whole_model_compares_with_texts(case):
    assert ("proj" in case.stored) == case.kind.has_proj
    vector = case.stored["proj" if case.kind.has_proj else "head"]
    assert_close(vector, encode_image(case.whole, case.images))


def test_head_is_the_vector_before_the_projection(case):
    if case.kind.head is None:
        assert "head" not in case.stored
        return
    assert case.stored["head"].shape[1] == case.kind.head
    assert_close(case.stored["head"], before_projection(case.whole.visual, case.images))


def test_layers_are_open_clips_own_pooled_by_hand(case):
    anatomy = case.encoder.description.anatomy
    assert (anatomy.norm_rule, anatomy.n_layers) == (case.kind.norm, case.kind.n_layers)
    assert (anatomy.width[-1], anatomy.has_cls) == (case.kind.width, case.kind.has_cls)
    assert anatomy.known
    expected = pooled_layers(case.whole.visual, case.images, case.kind.norm)
    if not case.kind.has_cls:  # a register is no class token
        expected = {name: v for name, v in expected.items() if not name.endswith("cls")}
    assert expected.keys() == case.stored.keys() - {"head", "proj"}
    for name, vectors in expected.items():
        assert_close(case.stored[name], vectors, name)


def test_tokens_are_open_clips_own_maps(case):
    """(B, D, h, w) each; raw where the norm is of the pooled vector."""
    d = dataclasses.replace(case.encoder.description, tokens=True)
    stored = Encoder(d, case.encoder.network)(case.images)
    normed = case.kind.norm in ("tokens", "last stage")
    with torch.inference_mode():
        found = case.whole.visual.forward_intermediates(
            case.images, normalize_intermediates=normed, intermediates_only=True
        )
    maps = found["image_intermediates"]
    assert len(maps) == case.kind.n_layers
    for (name, tokens), expected in zip(stored.items(), maps, strict=True):
        assert tuple(tokens.shape[1:]) == d.arrays[name]
        assert_close(tokens.permute(0, 3, 1, 2), expected, name)


def test_without_norm_layers_are_raw(case):
    description = make_description(case.encoder.description.entry, norm="none")
    encoder, _ = load_encoder(description, Weights(case.path))
    stored = encoder(case.images)
    for name, vectors in pooled_layers(case.whole.visual, case.images, "none").items():
        if name in stored:
            assert_close(stored[name], vectors, name)
    for name in stored.keys() & {"head", "proj"}:  # these are the encoder's own, always
        assert_close(stored[name], case.stored[name])


def test_norm2_layers_are_what_mlps_see(case):
    """Of block i + 1, for layer i; the last is the usual one."""
    visual, d = case.whole.visual, case.encoder.description
    if case.kind.norm not in ("tokens", "pooled"):
        assert d.anatomy.lacks_norm2
        return
    trunk = getattr(visual, "trunk", None)
    blocks = visual.transformer.resblocks if trunk is None else trunk.blocks
    norms = {str(i): block.ln_2 if trunk is None else block.norm2 for i, block in enumerate(blocks)}
    with torch.inference_mode(), recording(norms) as runs:
        visual(case.images)
    encoder, _ = load_encoder(make_description(d.entry, norm="norm2"), Weights(case.path))
    stored = encoder(case.images)
    last = case.kind.n_layers - 1
    for layer, (_, tokens) in enumerate(runs[1:]):
        mean = tokens[:, d.anatomy.n_prefix :].mean(dim=1)
        assert_close(stored.pop(f"layers/{layer:02d}/mean"), mean, relative=1e-5)
        if case.kind.has_cls:
            assert_close(stored.pop(f"layers/{layer:02d}/cls"), tokens[:, 0], relative=1e-5)
    assert f"layers/{last:02d}/mean" in stored
    for name, vectors in stored.items():
        assert_close(vectors, case.stored[name], name)


def test_the_parameters_are_those_of_the_tower_and_the_rest_is_named(case):
    n = sum(p.numel() for p in case.whole.visual.parameters())
    assert case.encoder.description.anatomy.n_parameters == n
    said = " ".join(case.encoder.said)
    names = {name.split(".")[0] for name in case.whole.state_dict()} - {"visual"}
    assert "dropped: " in said
    for name in names:  # transformer, ln_final, logit_scale... or text, text_decoder
        assert name in said
    assert "logit_scale (1 tensor)" in said


def test_the_key_holds_all_that_builds_the_tower(case):
    arguments = case.encoder.description.arguments
    assert json.loads(canonical_json(arguments)) == {
        "vision": case.kind.vision,
        "embed_dim": EMBED,
        "quick_gelu": case.kind.quick_gelu,
        "size": case.kind.vision["image_size"],
    }


# ---------------------------------------------------------------------------- files


@pytest.mark.parametrize("kind", ["tok", "timm linear"])
def test_files_that_hold_the_same_give_the_same(tmp_path, kind):
    """Of torch, of safetensors, and a trainer's checkpoint; and random weights by their seed."""
    config = make_config(KINDS[kind])
    whole, description = make_whole(config), make_description(make_entry(config))
    tensors = {f"module.{name}": value for name, value in whole.state_dict().items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": tensors}, tmp_path / "epoch_3.pt")
    paths = [save(whole, tmp_path / name) for name in ("w.pt", "w.safetensors")]
    loaded = [load_encoder(description, Weights(p)) for p in (*paths, tmp_path / "epoch_3.pt")]
    assert loaded[0][1] == loaded[1][1]  # their digests
    images = some_images(1, description.size)
    first, *others = (encoder(images)["proj"] for encoder, _ in loaded)
    assert_close(first, encode_image(whole, images))
    for other in others:
        torch.testing.assert_close(other, first, rtol=0, atol=0)
    digests = [load_encoder(description, Weights(None, seed=seed))[1] for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("kind", "changed", "message"),
    [
        ("tok", {"visual.ln_post.weight": None}, "1 of 44 tensors are missing (ln_post.weight)"),
        ("tok", {"visual.ln_extra": torch.ones(2)}, "1 don't belong (ln_extra)"),
        ("tok", {"visual.proj": torch.ones(64, 25)}, "proj is (64, 25) instead of (64, 24)"),
        ("tok", {"visual.positional_embedding": torch.ones(16, 64)}, "doesn't fit"),
        (
            "timm linear",
            {"visual.head.proj.weight": None},
            "tensors are missing (head.proj.weight)",
        ),
        ("timm linear", {"visual.trunk.x": torch.ones(2)}, "1 don't belong (trunk.x)"),
        ("timm linear", {"visual.trunk.cls_token": torch.ones(1, 2, 64)}, "trunk.cls_token is"),
        ("modified resnet", {"visual.bn3.bias": None}, "tensors are missing (bn3.bias)"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, kind, changed, message):
    config = make_config(KINDS[kind])
    path = save(make_whole(config), tmp_path / "w.pt", **changed)
    with pytest.raises(RequestError) as refusal:
        load_encoder(make_description(make_entry(config)), Weights(path))
    assert message in str(refusal.value)
    assert str(refusal.value).count("\n") == 0


def test_another_models_file_is_refused(tmp_path):
    whole = make_whole(make_config(KINDS["timm linear"]))
    description = make_description(make_entry(make_config(KINDS["tok"])))
    with pytest.raises(RequestError, match="w.pt doesn't fit VisionTransformer: .* are missing"):
        load_encoder(description, Weights(save(whole, tmp_path / "w.pt")))
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "t.pt")
    with pytest.raises(RequestError, match="has no names under visual"):
        load_encoder(description, Weights(tmp_path / "t.pt"))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("kind", ["tok", "clipa", "coca", "timm linear", "modified resnet"])
def test_other_precisions_are_close(kind, precision):
    config = make_config(KINDS[kind])
    images = some_images(2, config["vision_cfg"]["image_size"])
    description = make_description(make_entry(config))
    exact = load_encoder(description, Weights(None, seed=0))[0](images)
    rough, _ = load_encoder(description, Weights(None, seed=0))
    stored = rough.to(torch.device("cpu"), precision)(images)
    for name, vectors in exact.items():
        assert stored[name].dtype == torch.float32
        assert (stored[name] - vectors).abs().max() < 0.1 * vectors.abs().max(), name


# ---------------------------------------------------------------------------- sizes


@pytest.fixture
def own_models(monkeypatch):
    """open_clip's list of models, to be filled by a test."""
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {})
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", [])


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("tok", (16, 48, 64)),
        ("clipa", (64,)),
        ("fixed positions", (64,)),
        ("coca", (64,)),
        ("timm linear", (96,)),
        ("timm classifier", (224,)),
        ("eva02", (112,)),
        ("siglip", (128,)),
        ("convnext", (100, 224)),
    ],
)
def test_another_size_is_as_open_clip_makes_it(tmp_path, kind, sizes, own_models):
    config = make_config(KINDS[kind])
    path = save(make_whole(config), tmp_path / "w.pt")
    for size in sizes:
        description = make_description(make_entry(config), size)
        own_size = config["vision_cfg"]["image_size"]
        assert (description.size, description.outline.own_size) == (size, own_size)
        assert description.arguments["size"] == size
        encoder, _ = load_encoder(description, Weights(path))
        images = some_images(2, size)
        stored = encoder(images)
        whole = make_by_factory(config, tmp_path, path, size)
        assert_close(stored.get("proj", stored["head"]), encode_image(whole, images))
        expected = pooled_layers(whole.visual, images, description.norm_rule)
        for name in stored.keys() & expected.keys():
            assert_close(stored[name], expected[name], name)


def make_by_factory(config: dict[str, Any], folder: Path, path: Path, size: int) -> Any:
    """The whole model by open_clip's own factory, which is told another size."""
    custom_text = "timm_model_name" in config["vision_cfg"]
    (folder / "toy.json").write_text(json.dumps({**config, "custom_text": custom_text}))
    open_clip.add_model_config(folder / "toy.json")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return open_clip.create_model("toy", pretrained=str(path), force_image_size=size).eval()


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [
        ("tok", 33, r"\(not a multiple of the patch size 8\); nearest valid: 32 or 40; .* is 32"),
        ("tok", 3, r"\(not a multiple of the patch size 8\); nearest valid: 8"),
        (
            "timm linear",
            150,
            "patch size 16 of VisionTransformer.*nearest valid: 144 or 160; .* 160",
        ),
        ("eva02", 225, "patch size 14 of Eva.*nearest valid: 224 or 238; its own size is 224"),
        ("modified resnet", 96, r"attention pool can't be resampled\); nearest valid: 64; .* 64"),
    ],
)
def test_a_size_that_a_tower_does_not_take(kind, size, message):
    with pytest.raises(RequestError, match=f"^toy doesn't take --size {size} .*{message}"):
        from_open_clip.outline(make_entry(make_config(KINDS[kind])), size)


def test_an_own_size_that_patches_do_not_fill_is_taken():
    assert describe("open_clip:ViT-SO400M-14-SigLIP-384", None).size == 384
    with pytest.raises(RequestError, match="nearest valid: 378 or 384; its own size is 384"):
        describe("open_clip:ViT-SO400M-14-SigLIP-384", 383)
    config = make_config(KINDS["tok"])
    config["vision_cfg"] = {**VIT, "image_size": [32, 32]}  # a square of two numbers is one
    assert from_open_clip.outline(make_entry(config), None).size == 32


# ---------------------------------------------------------------------------- configurations


@pytest.mark.parametrize(
    ("vision", "message"),
    [
        ({**VIT, "vanity": 3}, "unexpected keyword argument 'vanity'"),
        ({**VIT, "image_size": [32, 64]}, "takes images of 32 x 64 px; here they are square"),
        ({**VIT, "pool_type": "none"}, r"its image tower gives \(17, 24\) numbers an image"),
        ({**VIT, "attentional_pool": "abs"}, "can't be built as its configuration says"),
        ({**VIT, "layers": -1}, "it has no layers"),
        ({**VIT, "act_kwargs": {"steep": 3}}, "unexpected keyword argument 'steep'"),
        (timm_trunk("vit_none_such", "", "linear"), "no architecture 'vit_none_such'"),
        (timm_trunk("resnet18", "abs_attn", "none"), "a pool of its own over timm's maps"),
        (timm_trunk("test_vit", "", "cubic"), "can't be built as its configuration says"),
    ],
)
def test_a_tower_that_cannot_be_built_or_read(vision, message):
    with pytest.raises(RequestError, match=message) as refusal:
        from_open_clip.outline(
            make_entry({**make_config(KINDS["tok"]), "vision_cfg": vision}), None
        )
    assert str(refusal.value).startswith("toy ")
    assert "\n" not in str(refusal.value)


def test_a_published_name_says_all():
    description = describe("open_clip:ViT-B-16/laion2b_s34b_b88k", None, "last4")
    assert description.entry.encoder == "open_clip:ViT-B-16/laion2b_s34b_b88k"
    assert description.statistics == CLIP_STATISTICS
    assert description.outline.place == Hub("laion/CLIP-ViT-B-16-laion2B-s34B-b88K", OPEN_CLIP)
    assert description.arguments == {
        "vision": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 16},
        "embed_dim": 512,
        "quick_gelu": False,
        "size": 224,
    }
    assert list(description.arrays) == [
        *(f"layers/{i:02d}/{pool}" for i in (8, 9, 10, 11) for pool in ("cls", "mean")),
        "head",
        "proj",
    ]
    assert (description.arrays["head"], description.arrays["proj"]) == (768, 512)
    short = describe("openclip", None)
    assert short.entry.encoder == description.entry.encoder
    assert short.outline.place == description.outline.place
    assert (short.arguments, short.statistics) == (description.arguments, CLIP_STATISTICS)


def test_another_activation_than_the_weights_want_is_refused():
    with pytest.raises(RequestError, match="QuickGELU, which ViT-B-16 lacks; use (.*)$") as refusal:
        describe("open_clip:ViT-B-16/openai", None)
    assert "use open_clip:ViT-B-16-quickgelu/openai" in str(refusal.value)
    description = describe("open_clip:ViT-B-16-quickgelu/openai", None)
    assert description.arguments["quick_gelu"] is True


def test_for_every_refused_activation_the_name_that_is_proposed_exists():
    refusals = []
    for model, tag in open_clip.list_pretrained():
        try:
            from_open_clip.find_configuration(find_entry(f"open_clip:{model}/{tag}"))
        except RequestError as error:
            refusals.append(str(error))
    assert len(refusals) > 20
    for refusal in refusals:
        proposed = refusal.rpartition("use ")[2]
        from_open_clip.find_configuration(find_entry(proposed))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B-16x", "open_clip has no model 'ViT-B-16x'; near names: ViT-B-16, "),
        ("vit-b-16/openai", "no model 'vit-b-16'; near names: ViT-B-16"),
        ("ViT-B/16", "no model 'ViT-B'; near names: ViT-B-16"),
        ("hf-hub:org/name", "no model 'hf-hub:org'"),
        ("local-dir:/tmp", "no model 'local-dir:'"),
        ("zzz", "no model 'zzz'; `open_clip.list_models()` has them all"),
        ("ViT-B-16/laion3b", "ViT-B-16 has no weights 'laion3b'; it has openai, laion400m_e31, "),
        ("ViT-B-16/LAION2B-s34b-b88k", "has no weights 'LAION2B-s34b-b88k'; it has openai"),
        ("coca_base/x", "coca_base has no weights 'x'; it has none"),
    ],
)
def test_unknown_names_list_near_ones(name, message):
    with pytest.raises(RequestError) as refusal:
        describe(f"open_clip:{name}", None)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_places_are_those_that_open_clip_would_fetch_from():
    place = from_open_clip._place
    assert place({}) is None
    assert place({"hf_hub": "org/name/"}) == Hub("org/name", OPEN_CLIP)
    assert place({"hf_hub": "org/name/open_clip_pytorch_model.bin"}) == Hub("org/name", OPEN_CLIP)
    files = ("pytorch_model.safetensors", "pytorch_model.bin")
    assert place({"hf_hub": "org/name/pytorch_model.bin"}) == Hub("org/name", files)
    assert place({"hf_hub": "org/name/w.pt", "url": "u"}) == Hub("org/name", ("w.pt",))
    assert place({"url": "https://host/w.pt"}) == Url("https://host/w.pt")


@pytest.mark.slow
@pytest.mark.parametrize("model", open_clip.list_models())
def test_every_model_of_open_clip_is_described(model):
    description = describe(f"open_clip:{model}", None)
    assert {"head", "proj"} & description.arrays.keys()
    canonical_json(description.arguments)


# ---------------------------------------------------------------------------- BiomedCLIP


def test_the_tables_biomedclip_is_built_from_its_literal_configuration():
    description = describe("biomedclip", None)
    anatomy = description.anatomy
    assert (description.size, anatomy.family, anatomy.n_layers) == (224, "VisionTransformer", 12)
    assert (description.arrays["head"], description.arrays["proj"]) == (768, 512)
    assert anatomy.has_cls
    # ViT-B/16 without a classifier, and 768 x 512 of the projection.
    assert anatomy.n_parameters == 85_798_656 + 768 * 512
    assert description.statistics == CLIP_STATISTICS


def test_biomedclips_like_needs_neither_its_text_tower_nor_transformers(tmp_path, monkeypatch):
    published = find_entry("biomedclip").config
    config = {**published, "embed_dim": EMBED}
    config["vision_cfg"] = {
        **published["vision_cfg"], "timm_model_name": "test_vit", "image_size": 160
    }  # fmt: skip
    whole = make_whole({**config, "text_cfg": TEXT})
    text = {n: None for n in whole.state_dict() if n.startswith("text.")}
    bert = "text.transformer.encoder.layer.0.attention.self.query.weight"
    path = save(whole, tmp_path / "w.bin", **{**text, bert: torch.ones(4, 4)})
    monkeypatch.setitem(sys.modules, "transformers", None)
    encoder, _ = load_encoder(make_description(make_entry(config)), Weights(path))
    images = some_images(2, 160)
    assert_close(encoder(images)["proj"], encode_image(whole, images))
    assert "text. (1 tensor)" in " ".join(encoder.said)


# ---------------------------------------------------------------------------- as a command


def write_folder(folder: Path, config: dict[str, Any], **preprocessing: Any) -> Any:
    """A model as open_clip saves it; gives the whole model."""
    folder.mkdir()
    whole = make_whole(config)
    content = {"model_cfg": config, "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    save(whole, folder / "open_clip_model.safetensors")
    return whole


@pytest.mark.parametrize("kind", ["tok", "timm linear"])
def test_a_folder_of_open_clips_from_end_to_end(tmp_path, write_npz, kind):
    config = make_config(KINDS[kind])
    side = config["vision_cfg"]["image_size"]
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    whole = write_folder(tmp_path / "my clip", config, mean=mean, std=std, interpolation="bilinear")
    data = write_npz(tmp_path / "x.npz", counts=(5, 2, 3), side=side, channels=3)
    words = ["extract", "--model", f"local-dir:{tmp_path / 'my clip'}", "--data", f"npz:{data}"]
    assert main([*words[1:], "--store", "float32"]) == 0
    (path,) = (tmp_path / "features" / "x").glob("*.h5")
    features = open_features(path)
    with np.load(data) as file:
        pixels = np.concatenate([file[f"{split}_images"] for split in ("train", "val", "test")])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    images = (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert_close(torch.tensor(features.array(-1, "proj")), encode_image(whole, images))
    assert features.encoder == "local-dir:my clip"
    assert features.key["arguments"]["embed_dim"] == EMBED
    assert features.key["transform"]["interpolation"] == "bilinear"


def test_without_mean_and_std_the_user_is_asked(tmp_path, write_npz, capsys):
    write_folder(tmp_path / "clip", make_config(KINDS["tok"]))
    data = write_npz(tmp_path / "x.npz", counts=(3, 1, 1), side=32)
    words = ["--model", f"local-dir:{tmp_path / 'clip'}", "--data", f"npz:{data}"]
    assert main(words) == 1
    err = capsys.readouterr().err
    assert "nobody says which mean and std local-dir:clip was trained with" in err
    assert err.count("\n") == 1
    assert main([*words, "--mean", "0.5", "--std", "0.5"]) == 0


def test_statistics_of_a_folder_reach_the_transform():
    entry = make_entry(make_config(KINDS["tok"]), statistics=Statistics((0.1,) * 3, (0.9,) * 3))
    outline = from_open_clip.outline(entry, None)
    found = preprocess(ExtractConfig(models=()), entry, outline.statistics)
    assert (found.mean, found.std, found.interpolation) == ((0.1,) * 3, (0.9,) * 3, "bicubic")
