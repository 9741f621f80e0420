"""Encoders of our own: each computes what a plain reading of the original's tensors computes."""

import argparse
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from extract.encoders.libraries.architectures import (
    ARCHITECTURES,
    ResNetTrunk,
    SeemFocalNet,
)
from extract.encoders.weights.checkpoints import load_strictly
from extract.encoders.weights.files import read_checkpoint

SIDE = 64
close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)


def fill(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    tensors = {n: torch.randn(shape, generator=generator) * 0.3 for n, shape in shapes.items()}
    return {n: v.abs() + 0.5 if n.endswith("running_var") else v for n, v in tensors.items()}


def images(side: int = SIDE) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(9))


def load(model: nn.Module, tensors: dict[str, Tensor], layout: str | None = None) -> list[str]:
    said = load_strictly(
        model, tensors, source="w.pt", classifier=(), filter_fn=None, layout=layout
    )
    model.eval()
    return said


# ---------------------------------------------------------------------------- SEEM

WIDTH, DEPTHS = 8, (1, 2, 1, 1)


def seem_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of focal_dw.py, with FOCAL_LEVELS 3 and FOCAL_WINDOWS 3."""
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embed.proj.weight": (WIDTH, 3, 7, 7),
        "patch_embed.proj.bias": (WIDTH,),
        "patch_embed.norm.weight": (WIDTH,),
        "patch_embed.norm.bias": (WIDTH,),
    }
    for i, depth in enumerate(DEPTHS):
        d = WIDTH * 2**i
        for j in range(depth):
            block = f"layers.{i}.blocks.{j}"
            shapes |= {
                f"{block}.gamma_1": (d,),
                f"{block}.gamma_2": (d,),
                f"{block}.dw1.weight": (d, 1, 3, 3),
                f"{block}.dw1.bias": (d,),
                f"{block}.norm1.weight": (d,),
                f"{block}.norm1.bias": (d,),
                f"{block}.modulation.f.weight": (2 * d + 4, d),
                f"{block}.modulation.f.bias": (2 * d + 4,),
                f"{block}.modulation.h.weight": (d, d, 1, 1),
                f"{block}.modulation.h.bias": (d,),
                f"{block}.modulation.proj.weight": (d, d),
                f"{block}.modulation.proj.bias": (d,),
                f"{block}.modulation.focal_layers.0.0.weight": (d, 1, 3, 3),
                f"{block}.modulation.focal_layers.1.0.weight": (d, 1, 5, 5),
                f"{block}.modulation.focal_layers.2.0.weight": (d, 1, 7, 7),
                f"{block}.dw2.weight": (d, 1, 3, 3),
                f"{block}.dw2.bias": (d,),
                f"{block}.norm2.weight": (d,),
                f"{block}.norm2.bias": (d,),
                f"{block}.mlp.fc1.weight": (4 * d, d),
                f"{block}.mlp.fc1.bias": (4 * d,),
                f"{block}.mlp.fc2.weight": (d, 4 * d),
                f"{block}.mlp.fc2.bias": (d,),
            }
        if i < 3:
            shapes |= {
                f"layers.{i}.downsample.proj.weight": (2 * d, d, 3, 3),
                f"layers.{i}.downsample.proj.bias": (2 * d,),
                f"layers.{i}.downsample.norm.weight": (2 * d,),
                f"layers.{i}.downsample.norm.bias": (2 * d,),
            }
        shapes |= {f"norm{i}.weight": (d,), f"norm{i}.bias": (d,)}
    return {f"backbone.{name}": shape for name, shape in shapes.items()}


def plain_seem(tensors: dict[str, Tensor], pixels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Each stage's map (B, D, H, W), raw and normed."""

    def norm(name: str, x: Tensor) -> Tensor:
        weight, bias = tensors[f"backbone.{name}.weight"], tensors[f"backbone.{name}.bias"]
        return F.layer_norm(x.permute(0, 2, 3, 1), weight.shape, weight, bias).permute(0, 3, 1, 2)

    def linear(name: str, x: Tensor) -> Tensor:
        weight, bias = tensors[f"backbone.{name}.weight"], tensors[f"backbone.{name}.bias"]
        return F.linear(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)

    def conv(name: str, x: Tensor, stride: int = 1, each: bool = False) -> Tensor:
        weight = tensors[f"backbone.{name}.weight"]
        bias = tensors.get(f"backbone.{name}.bias")
        groups = x.shape[1] if each else 1
        return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2, groups=groups)

    def gamma(name: str) -> Tensor:
        return tensors[f"backbone.{name}"][:, None, None]

    x = norm("patch_embed.norm", conv("patch_embed.proj", pixels, stride=4))
    raw, normed = [], []
    for i, depth in enumerate(DEPTHS):
        d = WIDTH * 2**i
        for j in range(depth):
            block = f"layers.{i}.blocks.{j}"
            x = x + conv(f"{block}.dw1", x, each=True)
            mixed = linear(f"{block}.modulation.f", x)
            query, context, gates = mixed[:, :d], mixed[:, d : 2 * d], mixed[:, 2 * d :]
            total = torch.zeros_like(context)
            for level in range(3):
                name = f"{block}.modulation.focal_layers.{level}.0"
                context = F.gelu(conv(name, context, each=True))
                total = total + context * gates[:, level, None]
            total = total + F.gelu(context.mean((2, 3), keepdim=True)) * gates[:, 3, None]
            total = query * conv(f"{block}.modulation.h", total / 4)
            total = linear(f"{block}.modulation.proj", total)
            x = norm(f"{block}.norm1", x + gamma(f"{block}.gamma_1") * total)
            x = x + conv(f"{block}.dw2", x, each=True)
            hidden = linear(f"{block}.mlp.fc2", F.gelu(linear(f"{block}.mlp.fc1", x)))
            x = norm(f"{block}.norm2", x + gamma(f"{block}.gamma_2") * hidden)
        raw.append(x)
        normed.append(norm(f"norm{i}", x))
        if i < 3:
            x = conv(f"layers.{i}.downsample.proj", x, stride=2)
            x = norm(f"layers.{i}.downsample.norm", x)
    return raw, normed


@pytest.mark.parametrize("layout", [None, "seem"])
def test_seem_computes_what_its_own_code_does(layout):
    file = fill(seem_shapes() | {"sem_seg_head.predictor.query_feat.weight": (5, 8)})
    model = SeemFocalNet(WIDTH, DEPTHS)
    assert load(model, file, layout) == [
        "names mapped by the layout 'seem'",
        "dropped: sem_seg_head. (1 tensor)",
    ]
    with torch.inference_mode():
        raw, normed = plain_seem(file, images())
        final, maps = model.forward_intermediates(images())
        for ours, expected in zip(maps, raw, strict=True):
            close(ours, expected)
        for ours, expected in zip(
            model.forward_intermediates(images(), norm=True, intermediates_only=True),
            normed,
            strict=True,
        ):
            close(ours, expected)
        for stage_norm, ours, expected in zip(model.stage_norms, maps, normed, strict=True):
            close(stage_norm(ours), expected)
        close(final, normed[-1])
        close(model.forward_features(images()), normed[-1])
        close(model.forward_head(final, pre_logits=True), normed[-1].mean((2, 3)))
        close(model(images()), normed[-1].mean((2, 3)))


def test_seem_takes_maps_by_number():
    model = SeemFocalNet(WIDTH, DEPTHS).eval()
    with torch.inference_mode():
        final, maps = model.forward_intermediates(images(), norm=True)
        for indices in ([1], [0, 2], [-1]):
            for early in (False, True):
                end, some = model.forward_intermediates(
                    images(), indices, norm=True, stop_early=early
                )
                assert [m.shape for m in some] == [maps[i].shape for i in indices]
                assert all(torch.equal(m, maps[i]) for m, i in zip(some, indices, strict=True))
                assert torch.equal(end, final) or (early and indices != [-1])


def test_seem_s_parameters_are_29_92_million():
    with torch.device("meta"):
        model = ARCHITECTURES["seem_focalnet_tiny"](1024)
    assert sum(p.numel() for p in model.parameters()) == 29_922_288


def test_seem_takes_multiples_of_32():
    with torch.device("meta"):
        model = ARCHITECTURES["seem_focalnet_tiny"]()  # type: ignore[assignment]
        for size in (32, 224, 1024):
            ARCHITECTURES["seem_focalnet_tiny"](size)
        for size in (0, 16, 28, 100, 225):
            with pytest.raises(ValueError, match=rf"{size} px isn't a multiple of 32"):
                ARCHITECTURES["seem_focalnet_tiny"](size)
        for run in (model.forward_features, model.forward_intermediates):
            with pytest.raises(ValueError, match="100 px isn't a multiple of 32"):
                run(torch.empty(1, 3, 64, 100))


# ---------------------------------------------------------------------------- BiomedGPT

LAYERS = (1, 2, 1)


def ofa_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of OFA's resnet.py, at few blocks a layer; its widths are fixed."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7)}
    norms = {"bn1": 64}
    n_in = 64
    for i, (depth, width) in enumerate(zip(LAYERS, (64, 128, 256), strict=True), start=1):
        for j in range(depth):
            block = f"layer{i}.{j}"
            shapes |= {
                f"{block}.conv1.weight": (width, n_in, 1, 1),
                f"{block}.conv2.weight": (width, width, 3, 3),
                f"{block}.conv3.weight": (4 * width, width, 1, 1),
            }
            norms |= {f"{block}.bn1": width, f"{block}.bn2": width, f"{block}.bn3": 4 * width}
            if j == 0:
                shapes[f"{block}.downsample.0.weight"] = (4 * width, n_in, 1, 1)
                norms[f"{block}.downsample.1"] = 4 * width
            n_in = 4 * width
    for name, width in norms.items():
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (width,)
        shapes[f"{name}.num_batches_tracked"] = ()
    return {f"encoder.embed_images.{name}": shape for name, shape in shapes.items()}


def ofa_file() -> dict[str, Tensor]:
    """Small weights, or a thousand summed channels grow beyond what float32 compares well."""
    file = {n: v / 6 if "conv" in n else v for n, v in fill(ofa_shapes()).items()}
    return file | fill({"encoder.image_proj.weight": (8, 1024), "decoder.version": (1,)})


def plain_ofa(tensors: dict[str, Tensor], pixels: Tensor) -> list[Tensor]:
    """The maps after the stem and each of the three layers."""
    t = {n.removeprefix("encoder.embed_images."): v for n, v in tensors.items()}

    def norm(name: str, x: Tensor) -> Tensor:
        mean, variance = t[f"{name}.running_mean"], t[f"{name}.running_var"]
        weight, bias = t[f"{name}.weight"], t[f"{name}.bias"]
        scaled = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
        return scaled * weight[:, None, None] + bias[:, None, None]

    x = norm("bn1", F.conv2d(pixels, t["conv1.weight"], stride=2, padding=3)).relu()
    maps = [x]
    x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
    for i, depth in enumerate(LAYERS, start=1):
        for j in range(depth):
            block, stride = f"layer{i}.{j}", 2 if i > 1 and j == 0 else 1
            y = norm(f"{block}.bn1", F.conv2d(x, t[f"{block}.conv1.weight"])).relu()
            y = F.conv2d(y, t[f"{block}.conv2.weight"], stride=stride, padding=1)
            y = norm(f"{block}.bn2", y).relu()
            y = norm(f"{block}.bn3", F.conv2d(y, t[f"{block}.conv3.weight"]))
            if j == 0:
                x = F.conv2d(x, t[f"{block}.downsample.0.weight"], stride=stride)
                x = norm(f"{block}.downsample.1", x)
            x = (x + y).relu()
        maps.append(x)
    return maps


def test_biomedgpt_computes_what_its_own_code_does(tmp_path):
    """Read from a file as fairseq's trainer writes it, with the command line beside the tensors."""
    file = ofa_file()
    arguments = argparse.Namespace(arch="ofa_base", resnet_type="resnet101", lr=[1e-5], seed=None)
    content = {"args": arguments, "cfg": {"model": arguments, "task": None}, "model": file}
    torch.save(content, tmp_path / "biomedgpt_base.pt")
    model = ResNetTrunk(LAYERS)
    assert load(model, read_checkpoint(tmp_path / "biomedgpt_base.pt").tensors, "biomedgpt") == [
        "names mapped by the layout 'biomedgpt'",
        "dropped: encoder.image_proj. (1 tensor), decoder. (1 tensor)",
    ]
    with torch.inference_mode():
        expected = plain_ofa(file, images())
        final, maps = model.forward_intermediates(images())
        for ours, theirs in zip(maps, expected, strict=True):
            close(ours, theirs)
        close(final, expected[-1])
        close(model.forward_features(images()), expected[-1])
        close(model.forward_head(final, pre_logits=True), expected[-1].mean((2, 3)))
        chosen = model.forward_intermediates(images(), [-1, 0], intermediates_only=True)
        assert [m.shape[1] for m in chosen] == [64, 1024]
        early = model.forward_intermediates(images(), [1], stop_early=True, intermediates_only=True)
        close(early[0], expected[1])


def test_biomedgpt_without_step_counters():
    """FrozenBatchNorm2d of OFA has none."""
    file = {n: v for n, v in ofa_file().items() if not n.endswith("num_batches_tracked")}
    assert load(ResNetTrunk(LAYERS), file)[0] == "names mapped by the layout 'biomedgpt'"


@pytest.mark.parametrize(
    ("name", "n_parameters", "depths"),
    [
        # torchvision's ResNets (25.56, 44.55 and 60.19 M) without layer4 (14.96 M) and fc (2.05 M).
        ("biomedgpt_resnet50", 8_543_296, [3, 4, 6]),
        ("biomedgpt_resnet101", 27_535_424, [3, 4, 23]),
        ("biomedgpt_resnet152", 43_179_072, [3, 8, 36]),
    ],
)
def test_biomedgpt_s_sizes(name, n_parameters, depths):
    with torch.device("meta"):
        model = ARCHITECTURES[name](384)  # type: ignore[assignment]
        maps = model.forward_intermediates(torch.empty(1, 3, 384, 384), intermediates_only=True)
    assert sum(p.numel() for p in model.parameters()) == n_parameters
    assert [len(layer) for layer in (model.layer1, model.layer2, model.layer3)] == depths
    assert [tuple(m.shape[1:]) for m in maps] == [
        (64, 192, 192),
        (256, 96, 96),
        (512, 48, 48),
        (1024, 24, 24),
    ]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures_describe_themselves_as_timm_s_do(name):
    with torch.device("meta"):
        model = ARCHITECTURES[name]().eval()
        pixels = torch.empty(1, 3, 224, 224)
        maps = model.forward_intermediates(pixels, intermediates_only=True)  # type: ignore[operator]
        head = model.forward_head(model.forward_features(pixels), pre_logits=True)  # type: ignore[operator]
    assert head.shape == (1, model.num_features)
    assert model.num_classes == 0
    info = [(i["num_chs"], 224 // i["reduction"]) for i in model.feature_info]  # type: ignore
    assert [tuple(m.shape[1:3]) for m in maps] == info
    assert not [n for n in model.state_dict() if n.startswith(("head", "fc", "layer4", "norm."))]
