"""Patch tokens of every family against timm's own maps: values, places, norm, and the pool mean."""

import dataclasses
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from looking import some
from networks import assert_close, some_images, unsettle
from torch import Tensor

from cache import RequestError
from extract.encoders.encoder import Description, Encoder, Weights, describe, load_encoder
from extract.encoders.libraries import families
from extract.encoders.outline_memory import OutlineMemory
from extract.encoders.table.entry import Entry


class Case(NamedTuple):
    """What is expected of a model. Written by hand, not asked of the code under test."""

    family: str  # timm's class
    model: str
    grid: tuple[int, int]  # of the last layer
    norm: str = "none"  # of the tokens
    n: int = 1  # layers from the end
    size: int = 64
    mean: bool = True  # whether the mean of tokens is the pool ``mean``
    arguments: Mapping[str, Any] = {}  # of timm's, to make it small, or odd


SMALL = {"embed_dim": 48, "depth": 2, "num_heads": 3}
STAGES = {"embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 3, 4)}
RELATIVE = {**SMALL, "global_attn_indexes": (1,)}
CASES = {
    "plain": Case("VisionTransformer", "test_vit", (4, 4), "tokens", 3),
    # One prefix token, which is a register; normed after pooling.
    "pooled norm": Case("VisionTransformer", "test_vit2", (4, 4), mean=False, n=2),
    "no prefix": Case("VisionTransformer", "test_vit3", (4, 4), "tokens"),
    "oblong patches": Case(
        "VisionTransformer", "test_vit", (8, 4), "tokens", arguments={"patch_size": (8, 16)}
    ),
    # With four registers and a class token there are 9 tokens before 16, and 25 is a square.
    "registers": Case(
        "VisionTransformer", "test_vit", (4, 4), "tokens", arguments={"reg_tokens": 8}
    ),
    "distilled": Case(
        "VisionTransformerDistilled",
        "deit_tiny_distilled_patch16_224",
        (4, 4),
        "tokens",
        arguments=SMALL,
    ),
    "eva02": Case(
        "Eva", "eva02_tiny_patch14_224", (4, 4), n=2, size=56, mean=False, arguments=SMALL
    ),
    "rotary": Case("Eva", "vit_pe_core_tiny_patch16_384", (4, 4), "tokens", arguments=SMALL),
    "dinov3": Case("Eva", "vit_small_patch16_dinov3", (4, 4), "tokens", arguments=SMALL),
    "beit": Case("Beit", "beit_base_patch16_224", (4, 4), mean=False, arguments=SMALL),
    "sam": Case("VisionTransformerSAM", "samvit_base_patch16_224", (4, 4), arguments=RELATIVE),
    "swin": Case(
        "SwinTransformer", "swin_tiny_patch4_window7_224", (2, 2), "last stage", 2, arguments=STAGES
    ),
    "swinv2": Case(
        "SwinTransformerV2", "swinv2_tiny_window8_256", (2, 2), "last stage", 2, arguments=STAGES
    ),
    "focalnet": Case("FocalNet", "focalnet_tiny_lrf", (2, 2), "last stage", 4),
    "seem": Case("SeemFocalNet", "seem_focalnet_tiny", (2, 2), "each stage", 4),
    "coatnet": Case("MaxxVit", "test_coatnet", (2, 2), "last stage", 2),
    "hiera": Case("Hiera", "hiera_tiny_224", (7, 7), n=4, size=224, arguments={"embed_dim": 16}),
    "byobnet": Case("ByobNet", "test_byobnet", (2, 2), n=2),
    "convnext": Case("ConvNeXt", "test_convnext", (2, 2), n=4),
    "densenet": Case(
        "DenseNet",
        "densenet121",
        (2, 2),
        n=5,
        arguments={"block_config": (1, 1, 1, 1), "growth_rate": 8},
    ),
    "efficientnet": Case("EfficientNet", "test_efficientnet", (2, 2), n=5),
    "mobilenet": Case("MobileNetV3", "mobilenetv3_small_050", (2, 2)),
    "nfnet": Case("NormFreeNet", "test_nfnet", (2, 2)),
    "regnet": Case("RegNet", "regnetx_002", (2, 2)),
    "resnet": Case("ResNet", "test_resnet", (2, 2), n=5),
    "resnetv2": Case("ResNetV2", "resnetv2_18", (2, 2), arguments={"layers": (1, 1, 1, 1)}),
    # Of no table: raw.
    "cait": Case("Cait", "cait_xxs24_224", (4, 4), arguments={"depth": 2}),
    "xcit": Case("Xcit", "xcit_nano_12_p16_224", (4, 4), arguments={"depth": 2}),
}
HEAVY = {
    "resnet trunk": Case("ResNetTrunk", "biomedgpt_resnet50", (4, 4), n=2),
    "inception": Case("InceptionV3", "inception_v3", (1, 1), n=2, size=96),
    "vgg": Case("VGG", "vgg11", (2, 2), n=2),
    "xception": Case("Xception", "legacy_xception", (2, 2)),
    "xception aligned": Case("XceptionAligned", "xception41", (2, 2)),
}


def test_every_family_has_a_case():
    known = families.TOKENS | families.RAW_BLOCKS | families.EACH_STAGE_NORMED
    known |= families.LAST_STAGE_NORMED | families.RAW_MAPS
    assert known <= {case.family for case in [*CASES.values(), *HEAVY.values()]}


class Made(NamedTuple):
    case: Case
    description: Description
    model: Any
    stored: dict[str, Tensor]
    means: dict[str, Tensor]  # the pool mean of the same layers
    images: Tensor


@pytest.fixture(
    scope="module",
    params=[
        *(pytest.param(case, id=name) for name, case in CASES.items()),
        *(pytest.param(case, id=name, marks=pytest.mark.slow) for name, case in HEAVY.items()),
    ],
)
def made(request):
    case: Case = request.param
    wish = f"last{case.n}"
    with pytest.MonkeyPatch.context() as patch:
        entry = Entry(case.model, case.model, arguments=case.arguments)
        patch.setattr("extract.encoders.encoder.find_entry", lambda name: entry)
        description = describe(case.model, case.size, wish, tokens=True)
    pooled = dataclasses.replace(description, tokens=False)
    encoder, _ = load_encoder(description, Weights(None, seed=0))
    unsettle(encoder.model)
    images = some_images(3, case.size)
    means = Encoder(pooled, encoder.network)(images)
    network: Any = encoder.network
    return Made(case, description, network.model, encoder(images), means, images)


def test_tokens_are_timms_own_maps(made):
    """What ``forward_intermediates`` gives, laid out (B, D, h, w)."""
    case = made.case
    normed = {} if case.norm == "none" else {"norm": True}
    with torch.inference_mode():
        maps = made.model.forward_intermediates(made.images, intermediates_only=True, **normed)
    assert len(made.stored) == case.n
    for (name, tokens), expected in zip(made.stored.items(), maps[-case.n :], strict=True):
        assert tokens.dtype == torch.float32
        assert_close(tokens.permute(0, 3, 1, 2), expected, name)


def test_grid_and_norm_are_as_the_family_has_them(made):
    case, d = made.case, made.description
    assert d.anatomy.family == case.family
    assert d.norm_rule == case.norm
    assert d.grids[-1] == case.grid
    assert [tuple(tokens.shape[1:]) for tokens in made.stored.values()] == [*d.arrays.values()]
    assert list(made.stored) == [f"layers/{layer:02d}/tokens" for layer in d.layers]


def test_of_which_families_the_mean_of_tokens_is_the_pool_mean(made):
    for name, tokens in some(made.stored.items()):
        mean = made.means[name.replace("tokens", "mean")]
        if made.case.mean:
            assert_close(tokens.mean(dim=(1, 2)), mean, name)
        else:
            assert float((tokens.mean(dim=(1, 2)) - mean).abs().max()) > 0.05
            with torch.inference_mode():
                assert_close(made.model.fc_norm(tokens.mean(dim=(1, 2))), mean, name)


# ---------------------------------------------------------------------------- places

# Patches that are the means of what they cover, in each layout, with rows of 8 px and columns of 16.
PLACES = """
import torch
from torch import nn
from extract import UserEncoder

class Net(nn.Module):
    def __init__(self, layout, patch):
        super().__init__()
        self.pool, self.layout = nn.AvgPool2d(patch), layout
        self.layer, self.scale = nn.Identity(), nn.Parameter(torch.ones(1))

    def forward(self, x):
        x = self.pool(x) * self.scale
        if self.layout == "BHWD":
            x = x.permute(0, 2, 3, 1)
        elif self.layout != "BDHW":
            x = x.flatten(2).transpose(1, 2)
            if self.layout == "tokens":  # two prefix tokens that no mean may see
                x = torch.cat([torch.full_like(x[:, :2], 99.0), x], dim=1)
        return self.layer(x)

def make_encoder():
    return UserEncoder(
        Net("LAYOUT", PATCH), size=32, mean=(0.5,) * 3, std=(0.5,) * 3, layers=["layer"],
        layout="LAYOUT", n_prefix=2, grid=GRID,
    )
"""


def write_places(folder: Path, layout: str, patch: tuple[int, int], grid: Any) -> str:
    text = PLACES.replace("LAYOUT", layout).replace("PATCH", str(patch))
    (folder / "places.py").write_text(text.replace("GRID", str(grid)))
    return f"{folder / 'places.py'}:make_encoder"


@pytest.mark.parametrize(
    ("layout", "patch", "grid"),
    [
        ("tokens", (8, 16), (4, 2)),
        ("BTD", (16, 8), (2, 4)),
        ("BTD", (8, 8), None),
        ("tokens", (8, 8), None),
        ("BDHW", (8, 8), None),
        ("BHWD", (8, 8), None),
    ],
)
def test_tokens_know_their_place(tmp_path, layout, patch, grid):
    """One channel grows from the top to the bottom, another from the left to the right."""
    description = describe(write_places(tmp_path, layout, patch, grid), None, "-1", tokens=True)
    assert description.grids == [(32 // patch[0], 32 // patch[1])]
    encoder, _ = load_encoder(description, Weights(None))
    along = torch.arange(32.0)
    planes = [along[:, None].expand(32, 32), along.expand(32, 32), torch.zeros(32, 32)]
    tokens = encoder(torch.stack(planes)[None])["layers/00/tokens"][0]
    rows, columns = (along.reshape(-1, side).mean(dim=1) for side in patch)
    assert torch.equal(tokens[..., 0], rows[:, None].expand(len(rows), len(columns)))
    assert torch.equal(tokens[..., 1], columns.expand(len(rows), len(columns)))


@pytest.mark.parametrize(
    ("layout", "grid", "message"),
    [
        ("tokens", None, r"fill no square.*add grid=\(rows, columns\) to its extract.UserEncoder"),
        ("BTD", (3, 3), r"gives 8 patches, and grid is \(3, 3\)"),
        ("BTD", (8,), r"grid is \(rows, columns\) of the patches, not \(8,\)"),
        ("BDHW", (4, 2), "grid is for tokens, and layout 'BDHW' has maps"),
    ],
)
def test_patches_of_unknown_places_are_refused(tmp_path, layout, grid, message):
    with pytest.raises(RequestError, match=message):
        describe(write_places(tmp_path, layout, (8, 16), grid), None, "-1", tokens=True)


def test_without_a_grid_pools_are_as_ever(tmp_path):
    d = describe(write_places(tmp_path, "tokens", (8, 16), None), None)
    assert [*d.arrays] == ["layers/00/cls", "layers/00/mean"]
    assert "grid" not in d.arguments["read"]


# ---------------------------------------------------------------------------- descriptions


def test_a_description_travels_and_is_remembered(tmp_path):
    memory = OutlineMemory(tmp_path / "encoders.json")
    first = describe("test_vit", 64, "last2", "final", memory, tokens=True)
    again = describe("test_vit", 64, "last2", "final", memory, tokens=True)
    sent = pickle.loads(pickle.dumps(again))
    for found in (again, sent):
        assert (found.arrays, found.tokens, found.norm_rule) == (first.arrays, True, "tokens")
    assert first.arrays == {"layers/04/tokens": (4, 4, 64), "layers/05/tokens": (4, 4, 64)}


def test_half_precision_and_lone_images(tmp_path):
    """Tokens come in float32, whatever the arithmetic's type; a row doesn't depend on its batch."""
    encoder, _ = load_encoder(describe("test_vit", 64, "-1", tokens=True), Weights(None, seed=0))
    images = some_images(5, 64)
    whole = encoder(images)["layers/05/tokens"]
    assert_close(encoder(images[:1])["layers/05/tokens"], whole[:1], relative=1e-5)
    half = encoder.to(torch.device("cpu"), "bf16")(images)["layers/05/tokens"]
    assert half.dtype == torch.float32
    assert 0 < float((half - whole).abs().max()) < 0.3
