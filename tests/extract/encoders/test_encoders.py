"""Every stored array against timm's own intermediate layers, pooled in the slow obvious way."""

import functools
import itertools
from typing import Any, NamedTuple

import networks
import pytest
import timm
import torch
from looking import some
from networks import some_images, unsettle
from torch import Tensor, nn

from cache import RequestError
from extract.config import ExtractConfig
from extract.describe import describe_plan
from extract.encoders.encoder import (
    Description,
    Encoder,
    Weights,
    choose_layers,
    describe,
    load_encoder,
)
from extract.encoders.libraries.timm import TimmNetwork
from extract.encoders.pooling import mean_map, pool_tokens
from extract.encoders.resolve import find_entry
from extract.encoders.table.entries import ENTRIES
from extract.key import make_transform
from extract.machine.devices import choose_device, set_precision
from extract.machine.digests import DigestMemory
from extract.plan import make_plan
from extract.prepare.protocols import preprocess

assert_close = functools.partial(networks.assert_close, relative=2e-5)


class Family(NamedTuple):
    """What is expected of one encoder. Written by hand, not asked of the code under test."""

    model: str
    size: int
    family: str  # timm's class
    norm: str  # "tokens", "pooled", "last stage", "none"
    n_layers: int
    width: int  # of the last layer
    has_cls: bool = False
    known: bool = True


DISTILLED = "deit_tiny_distilled_patch16_224"
FAMILIES = (
    Family("test_vit", 64, "VisionTransformer", "tokens", 6, 64, has_cls=True),
    # One prefix token, and it is a register.
    Family("test_vit2", 64, "VisionTransformer", "pooled", 8, 64),
    Family("test_vit3", 64, "VisionTransformer", "tokens", 9, 96),
    # Two prefix tokens: the class token, then the one for distillation.
    Family(DISTILLED, 64, "VisionTransformerDistilled", "tokens", 12, 192, has_cls=True),
    Family("eva02_tiny_patch14_224", 56, "Eva", "pooled", 12, 192, has_cls=True),
    Family("vit_pe_core_tiny_patch16_384", 64, "Eva", "tokens", 12, 192, has_cls=True),
    Family("resnet18", 64, "ResNet", "none", 5, 512),
    Family("densenet121", 64, "DenseNet", "none", 5, 1024),
    Family("efficientnet_b0", 64, "EfficientNet", "none", 5, 320),
    Family("tf_efficientnet_lite0", 64, "EfficientNet", "none", 5, 320),
    Family("swin_tiny_patch4_window7_224", 64, "SwinTransformer", "last stage", 4, 768),
    Family("focalnet_tiny_lrf", 64, "FocalNet", "last stage", 4, 768),
    Family("coatnet_nano_rw_224", 64, "MaxxVit", "last stage", 5, 512),
    Family("hiera_tiny_224", 224, "Hiera", "none", 4, 768),
    Family("convnext_atto", 64, "ConvNeXt", "none", 4, 320),
    Family("cait_xxs24_224", 64, "Cait", "none", 24, 192, known=False),
)
HEAVY = (
    Family("samvit_base_patch16_224", 224, "VisionTransformerSAM", "none", 12, 768),
    Family("vgg11", 64, "VGG", "none", 6, 512),
    Family("vit_base_patch16_siglip_224", 64, "VisionTransformer", "tokens", 12, 768),
    Family("vit_base_patch16_clip_224", 64, "VisionTransformer", "tokens", 12, 768, has_cls=True),
    Family("beit_base_patch16_224", 64, "Beit", "pooled", 12, 768, has_cls=True),
    Family("vit_small_patch16_dinov3", 64, "Eva", "tokens", 12, 384, has_cls=True),
    Family("swinv2_tiny_window8_256", 256, "SwinTransformerV2", "last stage", 4, 768),
    Family("xcit_nano_12_p16_224", 64, "Xcit", "none", 12, 128, known=False),
)


class Case(NamedTuple):
    expected: Family
    description: Description
    encoder: Encoder
    model: nn.Module
    images: Tensor
    stored: dict[str, Tensor]


def make_encoder(name: str, size: int, layers: str = "all", layer_norm: str = "final") -> Encoder:
    description = describe(name, size, layers, layer_norm)
    encoder, _ = load_encoder(description, Weights(None, seed=0))
    unsettle(encoder.model)
    return encoder


@pytest.fixture(
    scope="module",
    params=[
        *(pytest.param(f, id=f.model) for f in FAMILIES),
        *(pytest.param(f, id=f.model, marks=pytest.mark.slow) for f in HEAVY),
    ],
)
def case(request):
    expected = request.param
    encoder = make_encoder(expected.model, expected.size)
    images = some_images(2, expected.size)
    stored = encoder(images)
    return Case(expected, encoder.description, encoder, encoder.model, images, stored)


@torch.inference_mode()
def timm_layers(model: Any, images: Tensor, norm: str, has_prefix: bool) -> dict[str, Tensor]:
    """All layers by timm's own ``forward_intermediates``, pooled by plain loops.

    Args:
        model: a headless timm model.
        images: (B, 3, S, S).
        norm: as Family's.
        has_prefix: whether timm returns prefix tokens.
    """
    pooled = {}
    if norm == "none" and not has_prefix:
        layers = model.forward_intermediates(images, intermediates_only=True)
    elif norm == "last stage":
        layers = model.forward_intermediates(images, norm=True, intermediates_only=True)
    else:
        layers = model.forward_intermediates(
            images,
            norm=norm == "tokens",
            output_fmt="NCHW",
            return_prefix_tokens=True,
            intermediates_only=True,
        )
    for i, layer in enumerate(layers):
        patches, prefix = layer if isinstance(layer, tuple) else (layer, None)
        pooled[f"layers/{i:02d}/mean"] = patches.double().mean(dim=(2, 3)).float()
        if prefix is not None:
            pooled[f"layers/{i:02d}/cls"] = prefix[:, 0]
    if norm == "pooled":
        pooled = {name: model.fc_norm(vectors) for name, vectors in pooled.items()}
    return pooled


# ---------------------------------------------------------------------------- families


def test_every_layer_equals_timms_own(case):
    family = case.expected.family
    has_prefix = family in ("VisionTransformer", "VisionTransformerDistilled", "Eva", "Beit")
    expected = timm_layers(case.model, case.images, case.expected.norm, has_prefix)
    stored = {name: v for name, v in case.stored.items() if name != "head"}
    if not case.expected.has_cls:  # a register is no class token
        expected = {name: v for name, v in expected.items() if not name.endswith("/cls")}
    assert set(stored) == set(expected)
    for name, vectors in stored.items():
        assert_close(vectors, expected[name], name)


def test_layers_differ_from_each_other(case):
    """Each layer is its own: a tap on a wrong module would repeat one."""
    pools = [v for name, v in case.stored.items() if name.endswith("mean")]
    for before, after in some(itertools.pairwise(pools)):
        assert before.shape != after.shape or not torch.equal(before, after)


def test_head_is_what_the_model_gives_without_a_classifier(case):
    with torch.inference_mode():
        plain = case.model(case.images)
    assert_close(case.stored["head"], plain.flatten(1), "head")


def test_planned_shapes_are_the_real_ones(case):
    found = {name: vectors.shape[1] for name, vectors in case.stored.items()}
    assert found == case.description.arrays
    assert list(found) == list(case.description.arrays)
    assert all(vectors.dtype == torch.float32 for vectors in case.stored.values())


def test_the_family_is_the_one_in_the_table(case):
    anatomy, expected = case.description.anatomy, case.expected
    assert anatomy.family == expected.family
    assert anatomy.norm_rule == expected.norm
    assert anatomy.n_layers == expected.n_layers
    assert anatomy.width[-1] == expected.width
    assert anatomy.has_cls == expected.has_cls
    assert anatomy.known == expected.known
    assert ("layers/00/cls" in case.stored) == expected.has_cls


@pytest.mark.parametrize(
    ("name", "size", "last"),
    [
        ("test_vit2", 64, "layers/07/mean"),  # whose norm comes after pooling
        ("eva02_tiny_patch14_224", 28, "layers/11/mean"),
        ("test_vit", 64, "layers/05/cls"),
    ],
)
def test_head_is_the_part_of_the_last_layer_that_timm_takes(name, size, last):
    stored = make_encoder(name, size)(some_images(2, size))
    assert_close(stored["head"], stored[last], "head")


@pytest.mark.parametrize(
    ("name", "size", "n_prefix"),
    [
        ("test_vit", 64, 1),
        ("test_vit2", 64, 1),
        (DISTILLED, 32, 2),
        ("eva02_tiny_patch14_224", 28, 1),
        ("swin_tiny_patch4_window7_224", 64, 0),
    ],
)
def test_layer_norm_none_is_raw(name, size, n_prefix):
    encoder = make_encoder(name, size, layer_norm="none")
    images = some_images(2, size)
    stored = encoder(images)
    expected = timm_layers(encoder.model, images, "none", n_prefix > 0)
    for array, vectors in stored.items():
        if array != "head":
            assert_close(vectors, expected[array], array)
    with torch.inference_mode():  # head is the model's own, whatever the layers are
        assert_close(stored["head"], encoder.model(images), "head")
    final = make_encoder(name, size)(images)
    last = f"layers/{encoder.description.anatomy.n_layers - 1:02d}/mean"
    assert not torch.allclose(final[last], stored[last], rtol=1e-2)


def test_only_the_layers_asked_for(monkeypatch):
    images = some_images(2, 64)
    everything = make_encoder("test_vit", 64)(images)
    some = make_encoder("test_vit", 64, layers="0,3")(images)
    assert list(some) == ["layers/00/cls", "layers/00/mean", "layers/03/cls", "layers/03/mean"]
    for name, vectors in some.items():
        assert torch.equal(vectors, everything[name])
    assert "head" in make_encoder("test_vit", 64, layers="-1")(images)


# ---------------------------------------------------------------------------- pooling


def test_a_prefix_token_is_never_in_the_mean():
    tokens = torch.zeros(1, 6, 2)
    tokens[:, :2] = 1000.0  # class token and a register
    tokens[:, 2:, 0] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    pooled = pool_tokens(tokens, n_prefix=2, has_cls=True)
    assert pooled["mean"].tolist() == [[2.5, 0.0]]
    assert pooled["cls"].tolist() == [[1000.0, 1000.0]]
    assert list(pool_tokens(tokens, n_prefix=2, has_cls=False)) == ["mean"]


def test_half_precision_tokens_are_summed_in_float32():
    tokens = torch.full((1, 4097, 1), 100.0, dtype=torch.float16)  # their sum is above 65504
    assert pool_tokens(tokens, 1, True)["mean"].item() == 100.0
    with pytest.raises(ValueError, match="layout must be one of"):
        mean_map(torch.zeros(1, 2, 3), "NLC")


# ---------------------------------------------------------------------------- eval, batches


@pytest.mark.parametrize(
    ("name", "size"), [("resnet18", 64), ("efficientnet_b0", 32), ("test_vit", 64)]
)
def test_a_row_does_not_depend_on_its_batch(name, size):
    encoder = make_encoder(name, size)
    images = some_images(32, size)
    images[1:] *= 7  # neighbours of another brightness would move batch statistics
    whole = encoder(images)
    for batch_size in (1, 8):
        for array, vectors in encoder(images[:batch_size]).items():
            assert_close(vectors, whole[array][:batch_size], array)


def test_eval_mode_holds_whatever_mode_the_model_came_in():
    description = describe("resnet18", 32)
    model = timm.create_model("resnet18", num_classes=0)
    before = Encoder(description, TimmNetwork(model.eval()))(some_images(4, 32))
    statistics = {n: b.clone() for n, b in model.named_buffers()}
    after = Encoder(description, TimmNetwork(model.train()))(some_images(4, 32))
    for array, vectors in some(before.items()):
        assert torch.equal(vectors, after[array])
    for buffer_name, buffer in some(model.named_buffers()):
        assert torch.equal(buffer, statistics[buffer_name]), buffer_name


def test_weights_take_no_gradient():
    encoder = make_encoder("test_vit", 64)
    assert not any(p.requires_grad for p in encoder.model.parameters())
    assert not encoder(some_images(1, 64))["head"].requires_grad


# ---------------------------------------------------------------------------- names


# Widths of protocols.md, section 2: name -> (head, last layer, layers, class token, own size).
PAPER = {
    "eva02": (768, 768, 12, True, 224),
    "dinov2": (768, 768, 12, True, 518),
    "dino": (768, 768, 12, True, 224),
    "vit": (768, 768, 12, True, 224),
    "clip": (768, 768, 12, True, 224),
    "openai": (768, 768, 12, True, 224),
    "sam": (256, 768, 12, False, 1024),
    "sam-c": (768, 768, 12, True, 224),
    "vgg16": (4096, 512, 6, False, 224),
    "densenet121": (1024, 1024, 5, False, 224),
    "resnet18": (512, 512, 5, False, 224),
    "efficientnet-b4": (1792, 448, 5, False, 320),
    "efficientnet-lite0": (1280, 320, 5, False, 224),
}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@pytest.mark.parametrize("name", PAPER)
def test_short_names_can_all_be_described(name):
    head, width, n_layers, has_cls, own_size = PAPER[name]
    d = describe(name, None)
    anatomy = d.anatomy
    assert (anatomy.head_width, anatomy.width[-1], anatomy.n_layers) == (head, width, n_layers)
    assert anatomy.has_cls == has_cls
    assert anatomy.known
    assert d.size == own_size
    preprocessing = preprocess(ExtractConfig(models=()), d.entry, d.statistics)
    make_transform(d.size, preprocessing, 1)


def test_the_table_has_the_paper_s_encoders_and_the_demo_s():
    assert set(PAPER) <= {entry.name for entry in ENTRIES}
    expected = {"vit": HALF, "sam-c": HALF, "efficientnet-lite0": HALF}
    expected |= dict.fromkeys(["clip", "openai", "eva02"], CLIP)
    for name in ("vit", "sam-c", "clip", "openai", "eva02", "dino", "resnet18"):
        statistics = describe(name, None, "-1").statistics
        mean, std = expected.get(name, IMAGENET)
        assert statistics.mean == pytest.approx(mean)
        assert statistics.std == pytest.approx(std)


def test_which_weights_a_name_means():
    assert "quickgelu" in find_entry("openai").encoder
    assert find_entry("resnet18").encoder == "resnet18.a1_in1k"  # the default tag
    assert find_entry("vit_base_patch16_224").encoder.startswith("vit_base_patch16_224.augreg2")


def layers_of_six(wish: str) -> tuple[int, ...]:
    return choose_layers(wish, 6)


UNREADABLE = "--layers takes all, last4 or numbers"


@pytest.mark.parametrize(
    ("ask", "wish", "message"),
    [
        (find_entry, "dinov3x", "no encoder 'dinov3x'; .*dinov3-s"),
        (find_entry, "eva2", "no encoder 'eva2'; .*eva02"),
        (find_entry, "resnet-18", "no encoder 'resnet-18'; .*resnet18"),
        (find_entry, "DINO", "no encoder 'DINO'; .*dino"),
        (find_entry, "vit_base_patch16_225", "no encoder .*; .*vit_base_patch16_224"),
        (find_entry, "xyzzy", "no encoder 'xyzzy'; .*short names: eva02, dinov2"),
        (find_entry, "resnet18.nope", r"no weights 'nope'; it has resnet18\..*resnet18\."),
        *((layers_of_six, s, UNREADABLE) for s in ("", "last", "last0", "last-1", "last²")),
        *((layers_of_six, s, UNREADABLE) for s in ("1-3", "x", "0,,1", "1.5")),
        *((layers_of_six, s, r"the encoder has layers 0\.\.5") for s in ("6", "-7", "0,99")),
        *(
            (choose_device, s, "--device takes auto, cpu, cuda")
            for s in ("gpu", "cuda:x", "cpu:99x", "meta", "", "xpu")
        ),
    ],
)
def test_words_that_mean_nothing_are_refused(ask, wish, message):
    with pytest.raises(RequestError, match=message):
        ask(wish)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("dinov2", 225, r"--size 225 \(not a multiple of the patch size 14 .* 224 or 238; .* 518"),
        ("dino", 8, r"--size 8 \(not a multiple of the patch size 16 .* nearest valid: 16;"),
        ("sam", 100, r"patch size 16 .* 96 or 112"),
        ("coatnet_nano_rw_224", 50, r"doesn't take --size 50 .*nearest valid: 32 or 64; .* 224"),
    ],
)
def test_sizes_that_do_not_fit(name, size, message):
    with pytest.raises(RequestError, match=message):
        describe(name, size)


# ---------------------------------------------------------------------------- sizes, layers


def test_cnns_take_any_size():
    assert describe("resnet18", 225).anatomy.width == (64, 64, 128, 256, 512)


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ("all", (0, 1, 2, 3, 4, 5)),
        ("last4", (2, 3, 4, 5)),
        ("last1", (5,)),
        ("last99", (0, 1, 2, 3, 4, 5)),
        ("-1", (5,)),
        ("0,5,-1", (0, 5)),
        ("4, 2", (2, 4)),
        ("-6", (0,)),
    ],
)
def test_layers(wish, expected):
    assert choose_layers(wish, 6) == expected


def test_unknown_families_say_that_they_are_raw(tmp_path, write_npz):
    config = ExtractConfig(
        models=("cait_xxs24_224",),
        size=64,
        data=(f"npz:{write_npz(tmp_path / 'x.npz')}",),
        weights="random",
    )
    lines = describe_plan(make_plan(config), DigestMemory(tmp_path / "none.json"))
    assert any("Cait isn't in the table of families: layers are raw" in line for line in lines)


# ---------------------------------------------------------------------------- devices


def test_cuda_without_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RequestError, match="--device cuda: 0 CUDA devices are here"):
        choose_device("cuda")


def test_auto_takes_the_local_rank(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert choose_device("auto") == torch.device("cuda", 1)
    with pytest.raises(RequestError, match="cuda:2: 2 CUDA devices"):
        choose_device("cuda:2")


def test_tf32_only_on_cuda():
    with pytest.raises(RequestError, match="tf32 needs a CUDA device, found cpu"):
        set_precision("tf32", torch.device("cpu"))
    set_precision("fp32", torch.device("cpu"))
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
