"""``--layer-norm norm2``: every stored layer against plain hooks on the libraries' own modules."""

import dataclasses
import functools
import json
import re
import shlex
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
import torch
from looking import some
from networks import some_images, unsettle
from timm.models.eva import Eva
from timm.models.vision_transformer import (
    ParallelScalingBlock,
    ParallelThingsBlock,
    ResPostBlock,
    VisionTransformer,
)
from torch import Tensor

import extract
from cache import RequestError, open_features
from cache.cli import main as cache_main
from cache.format.key import key_differences
from extract.cli import main as extract_main
from extract.encoders.encoder import Description, Weights, describe, load_encoder
from extract.encoders.libraries import timm as from_timm
from extract.encoders.libraries.families import TOKENS, study
from extract.encoders.resolve import find_entry
from extract.encoders.table.entries import ENTRIES
from extract.encoders.table.entry import Entry
from probe.cli import main as probe_main
from probe.report.cli import main as report_main

assert_close = functools.partial(networks.assert_close, relative=1e-5)
# Whose families no short name has: two prefix tokens, BEiT's own blocks, a register alone.
BESIDE = ("deit_tiny_distilled_patch16_224", "beit_base_patch16_224", "test_vit2")
DEPTH = 3
SMALL = {"depth": DEPTH, "embed_dim": 96, "num_heads": 4}


def describe_small(entry: Entry, norm: str) -> Description:
    """The same encoder with three narrow blocks."""
    small = dataclasses.replace(entry, arguments={**entry.arguments, **SMALL})
    outline = from_timm.outline(small, 112)  # patches of 14 and 16 fill it
    return Description(entry.name, entry, outline, tuple(range(DEPTH)), norm)


@torch.inference_mode()
def seen_by_mlps(model: Any, images: Tensor) -> list[Tensor]:
    """What each block's ``norm2`` gives, which its MLP must see, and nothing else."""
    normed, seen = [], []
    for block in model.blocks:
        block.norm2.register_forward_hook(lambda m, inputs, output: normed.append(output))
        block.mlp.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0]))
    model.forward_features(images)
    for a, b in zip(normed, seen, strict=True):
        assert torch.equal(a, b)
    return normed


def expected_layers(model: Any, images: Tensor, n_prefix: int, has_cls: bool) -> dict[str, Tensor]:
    """The vectors of the paper: ``blocks.1..L-1.norm2``, without registers in the mean."""
    found = {}
    for layer, tokens in enumerate(seen_by_mlps(model, images)[1:]):
        found[f"layers/{layer:02d}/mean"] = tokens[:, n_prefix:].double().mean(dim=1).float()
        if has_cls:
            found[f"layers/{layer:02d}/cls"] = tokens[:, 0]
    return found


def listed() -> list[Entry]:
    """One of timm's of each sort that ENCODERS.md lists; its own test holds the page to the code."""
    lines = (Path(extract.__file__).parent / "ENCODERS.md").read_text(encoding="utf-8").splitlines()
    head, _, *rows = [[c.strip(" `") for c in line.split("|")] for line in lines if line[:1] == "|"]
    page = {row[1]: dict(zip(head, row, strict=True)) for row in rows if len(row) == len(head)}
    sorts = {}
    for entry in ENTRIES:
        of = page[entry.name]
        if entry.library == "timm" and of["norm2"] == "yes":
            what = (of["prefix"], of["norm"], of["pools"], entry.pretraining.objective)
            sorts.setdefault(what, entry)
    return some([*sorts.values()])


@pytest.mark.parametrize("entry", [*listed(), *map(find_entry, BESIDE)], ids=lambda e: e.name)
def test_each_sort_of_the_table_gives_what_timms_own_norms_give(entry):
    """Class tokens alone, with registers, with the token of distillation; none at all; CLIP's."""
    description = describe_small(entry, "norm2")
    anatomy = description.anatomy
    encoder, _ = load_encoder(description, Weights(None, seed=0))
    usual, _ = load_encoder(describe_small(entry, "final"), Weights(None, seed=0))
    images = some_images(2, description.size)
    for each in (encoder, usual):
        unsettle(each.model)
    stored, final = encoder(images), usual(images)
    expected = expected_layers(usual.model, images, anatomy.n_prefix, anatomy.has_cls)
    assert list(stored) == list(description.arrays) == list(final)
    for name, vectors in stored.items():
        # The last layer, and what belongs to it, is what it always is.
        assert_close(vectors, expected.get(name, final[name]), name)
        assert (name in expected) == (name[7:9] in ("00", "01"))


def test_each_family_has_its_case():
    found = [describe_small(e, "norm2").anatomy for e in [*listed(), *map(find_entry, BESIDE)]]
    assert {anatomy.family for anatomy in found} == TOKENS
    assert {anatomy.n_prefix for anatomy in found} >= {0, 1, 2, 5}
    assert {anatomy.norm_rule for anatomy in found} == {"tokens", "pooled"}


# ---------------------------------------------------------------------------- refused

ELSEWHERE = (ResPostBlock, ParallelScalingBlock, ParallelThingsBlock)
TINY = {
    "img_size": 32,
    "patch_size": 16,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "num_classes": 0,
}


@pytest.mark.parametrize(
    ("make", "options", "blocks"),
    [
        *((VisionTransformer, {"block_fn": block}, block.__name__) for block in ELSEWHERE),
        (Eva, {"use_post_norm": True}, "EvaBlockPostNorm"),
    ],
)
def test_blocks_that_norm_elsewhere_have_none(make, options, blocks):
    with torch.device("meta"):
        without, plain = make(**TINY, **options).eval(), make(**TINY).eval()
    why = rf"has blocks \({blocks}\) with none there; take --layer-norm final or none"
    assert re.fullmatch(why, study(without, 32).lacks_norm2)
    assert not study(plain, 32).lacks_norm2


@pytest.mark.parametrize(
    ("name", "size", "why"),
    [
        ("resnet18", 64, "a ResNet, has stages or maps as layers"),
        ("swin_tiny_patch4_window7_224", 64, "a SwinTransformer, has stages or maps"),
        ("samvit_base_patch16_224", 224, "a VisionTransformerSAM, has stages or maps"),
        ("cait_xxs24_224", 64, "a Cait, isn't in the table of families"),
    ],
)
def test_encoders_without_such_norms_say_what_they_have(name, size, why):
    with pytest.raises(RequestError, match=f"--layer-norm norm2 .*{name}, {why}.*final or none"):
        describe(name, size, layer_norm="norm2")


def test_a_users_own_encoder_names_the_norms_itself(tmp_path):
    code = (
        "import torch\n"
        "from extract import UserEncoder\n"
        "from timm.models.vision_transformer import VisionTransformer\n"
        "def make(norm2=False):\n"
        "    model = VisionTransformer(32, 16, embed_dim=16, depth=2, num_heads=2, num_classes=0)\n"
        "    layers = {layers}\n"
        "    return UserEncoder(model, 32, (.5, .5, .5), (.5, .5, .5), layers, norm={norm!r})\n"
    )
    blocks = tmp_path / "blocks.py"
    blocks.write_text(code.format(layers=["blocks.0", "blocks.1"], norm="norm"))
    with pytest.raises(
        RequestError, match="its own code names; name those norms there, and norm=None"
    ):
        describe(f"{blocks}:make", None, layer_norm="norm2")
    norms = tmp_path / "norms.py"
    norms.write_text(code.format(layers=["blocks.1.norm2", "norm"], norm=None))
    description = describe(f"{norms}:make", None)
    encoder, _ = load_encoder(description, Weights(None))
    images = some_images(2, 32)
    expected = expected_layers(encoder.model, images, 1, True)
    stored = encoder(images)
    for name, vectors in some(expected.items()):
        assert_close(stored[name], vectors, name)


# ---------------------------------------------------------------------------- files


def words(data: Path, folder: Path, norm: str = "norm2") -> list[str]:
    """``extract`` of a random test_vit, on a tiny set."""
    return [
        *("--model", "test_vit", "--size", "32", "--weights", "random", "--data", f"npz:{data}"),
        *("--features", str(folder / "f"), "--layer-norm", norm, "--device", "cpu"),
    ]


def test_a_file_of_its_own_that_every_command_takes(tmp_path, write_npz, capsys):
    data = write_npz(tmp_path / "tiny.npz", counts=(40, 20, 20), side=8, classes=2)
    assert extract_main([*words(data, tmp_path), "--dry-run"]) == 0
    said = "norm: norm2 of the next block, of the last layer tokens"
    assert said in capsys.readouterr().out
    for norm in ("norm2", "final"):
        assert extract_main(words(data, tmp_path, norm)) == 0
    norm2, usual = sorted(
        map(open_features, (tmp_path / "f" / "tiny").glob("*.h5")), key=lambda f: -len(f.label)
    )
    assert (norm2.label, usual.label) == ("test_vit (random norm2)", "test_vit (random)")
    assert key_differences(usual.key, norm2.key) == [
        "layers.norm: tokens -> norm2",
        "layers.last: (absent) -> tokens",
    ]
    assert usual.header.arrays.keys() == norm2.header.arrays.keys()
    for layer, pool in some([(n, p) for n, pools in usual.layers.items() for p in pools]):
        is_same = np.array_equal(usual.array(layer, pool), norm2.array(layer, pool))
        assert is_same == (layer == usual.last_layer), (layer, pool)
    assert np.array_equal(usual.array(-1, "head"), norm2.array(-1, "head"))

    command = shlex.split(norm2.header.attributes["command"])  # goes on with this very file
    assert command[command.index("--layer-norm") + 1] == "norm2"
    assert cache_main(["verify", str(norm2.path)]) == 0
    assert cache_main(["export", str(norm2.path), "-o", str(tmp_path / "out.h5")]) == 0
    assert open_features(tmp_path / "out.h5").label == norm2.label

    asked = [
        "--features",
        str(tmp_path / "f"),
        "--results",
        str(tmp_path / "r"),
        "--kind",
        "knn",
        "--k",
        "5",
    ]
    assert probe_main([*asked, "--layer", "2", "--where", "layer_norm=norm2"]) == 0
    assert probe_main([*asked, "--layer", "2"]) == 0  # both: neither stands for the other
    models = [
        json.loads(p.read_text())["features"]["label"] for p in (tmp_path / "r").glob("*/*.json")
    ]
    assert {*models} == {"test_vit (random)", "test_vit (random norm2)"}
    capsys.readouterr()
    assert (
        report_main(["table", "--results", str(tmp_path / "r"), "--features", str(tmp_path / "f")])
        == 0
    )
    printed = capsys.readouterr().out
    assert all(f"test_vit ({words})" in printed for words in ("random", "random norm2"))
    chosen = ["ls", "--results", str(tmp_path / "r"), "--where", "layer_norm=norm2"]
    assert report_main(chosen) == 0
    printed = capsys.readouterr().out
    assert "test_vit (random norm2)" in printed
    assert "test_vit (random)" not in printed
