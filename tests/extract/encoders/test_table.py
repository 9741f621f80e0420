"""The table of encoders: complete, true to the libraries, and the same as the document."""

from pathlib import Path

import pytest
import timm
import torch

from cache import RequestError
from extract.datasets.origins import ORIGINS, describe_seen
from extract.encoders import document
from extract.encoders.encoder import Weights, describe, find_weights, load_encoder
from extract.encoders.libraries import timm as from_timm
from extract.encoders.table.entries import ENTRIES
from extract.encoders.table.entry import LIBRARIES
from extract.encoders.weights.published import Hub
from extract.encoders.weights.tensor_names import LAYOUTS
from extract.show.models import place_of

BY_NAME = {entry.name: entry for entry in ENTRIES}

# Which encoders each paper's code uses; from the papers' tables, not from the table under test.
WU = """eva02 dinov2 dino vit clip openai sam sam-c vgg16 densenet121 resnet18 efficientnet-b4
medsam biomedclip biomedgpt"""
HUIX = "sam seem dinov2 blip openclip dino deit resnet152"
BAHAROON = """densenet201 resnet152-v2 vgg19 vit-l mae-l msn-l clip-l14 openclip-h14 sam-l dinov2-s
dinov2 dinov2-l dinov2-g biomedclip"""
# Doerrich et al.'s AlexNet is in none of the libraries.
DOERRICH = """vgg16 resnet18 densenet121 efficientnet-b4 vit clip eva02-clip dino sam"""

# Millions of parameters of the body, from the papers or counted from their code; see also the
# published model cards.
MILLIONS = {
    "vgg16": 134.26,
    "resnet18": 11.18,
    "densenet121": 6.95,
    "efficientnet-b4": 17.55,
    "vit": 85.80,
    "eva02": 85.76,
    "dinov2": 86.58,
    "sam": 89.67,
    "medsam": 89.67,
    "blip": 85.80,
    "seem": 29.92,
    "resnet152": 58.14,
    "densenet201": 18.09,
    "vgg19": 139.57,
    "vit-l": 303.30,
    "mae-l": 303.30,
    "clip-l14": 303.18,
    "openclip-h14": 630.77,
    "sam-l": 308.28,
    "dinov2-s": 22.06,
    "dinov2-l": 304.37,
    "dinov2-g": 1136.48,
    "dinov2-reg-b": 86.58,
    "dinov3-b": 85.64,
    "dinov3-l": 303.08,
    "rad-dino": 86.58,
    "medsiglip": 428.57,
    "uni": 303.4,
    "uni2-h": 681.4,
    "virchow": 631.2,
}


@pytest.mark.parametrize(
    ("paper", "names"),
    [
        ("wu2025", WU),
        ("huix2024", HUIX),
        ("baharoon2023", BAHAROON),
        ("doerrich2024", DOERRICH),
    ],
)
def test_every_encoder_of_a_paper_is_one_short_name(paper, names):
    assert {entry.name for entry in ENTRIES if paper in entry.papers} == set(names.split())


def test_names_are_unique_and_plain():
    assert len(BY_NAME) == len(ENTRIES)
    full = [entry.encoder for entry in ENTRIES]
    assert len(set(full)) == len(full)
    assert all(name == name.lower() and "/" not in name and ":" not in name for name in BY_NAME)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_entries_are_complete(entry):
    assert entry.library in LIBRARIES
    assert entry.title
    assert entry.pretraining.objective
    assert entry.pretraining.images
    assert entry.layout is None or entry.layout in LAYOUTS
    assert entry.pretraining.licence or entry.name == "monet"  # whose owners say none
    if entry.pretraining.seen:
        known = {origin for origins in ORIGINS.values() for origin in origins}
        assert set(entry.pretraining.seen) <= known | {"CheXpert", "MIMIC-CXR"}


@pytest.mark.parametrize("name", MILLIONS)
def test_parameters_are_those_of_the_publications(name):
    assert describe(name, None).anatomy.n_parameters / 1e6 == pytest.approx(
        MILLIONS[name], abs=0.06
    )


@pytest.mark.parametrize(
    "entry", [e for e in ENTRIES if e.library == "timm"], ids=lambda entry: entry.name
)
def test_published_weights_are_where_timm_has_them(entry):
    """`extract models` doesn't import timm, so the table must know what timm knows."""
    config = timm.get_pretrained_cfg(entry.encoder) if not entry.network else None
    if config is None or entry.name == "efficientnet-lite0":
        assert entry.weights is not None
    else:
        place = place_of(entry)
        assert isinstance(place, Hub)
        assert place.repository == config.hf_hub_id
        assert config.license
    if config is not None and entry.pretraining.licence != config.license:
        # OpenAI's repository and torchvision say otherwise than timm's copies.
        assert entry.name in {"openai", "clip-l14", "openclip-h14", "densenet201"}


def test_every_entry_is_in_the_document():
    text = (Path(document.__file__).parents[1] / "ENCODERS.md").read_text()
    for entry in ENTRIES:
        assert text.count(f"| `{entry.name}` |") == 2  # architecture, and where it comes from
        assert f"| `{entry.encoder}` |" in text


@pytest.mark.slow
def test_the_document_is_made_from_the_table():
    path = Path(document.__file__).parents[1] / "ENCODERS.md"
    assert path.read_text() == "\n".join(document.make_document()) + "\n", (
        "run: python -m extract.encoders.document > extract/ENCODERS.md"
    )


# ---------------------------------------------------------------------------- sizes


TWELVE = WU.split()[:12]


@pytest.mark.parametrize("name", TWELVE)
def test_the_twelve_take_224_pixels(name):
    assert describe(name, 224).size == 224


@pytest.mark.parametrize("name", [*TWELVE, "seem", "biomedgpt", "deit", "blip", "swin-b"])
def test_sizes_up_to_1024(name):
    """1024, or the nearest multiple of a patch of 14 below."""
    size = 1022 if name in {"eva02", "dinov2"} else 1024
    if name == "swin-b":
        size = 1024 // 32 * 32
    assert describe(name, size).size == size


@pytest.mark.parametrize("size", [224, 1024])
def test_sam_at_both_sizes(size):
    d = describe("sam", size)
    assert d.arrays["layers/11/mean"] == 768
    assert d.arrays["head"] == 256


@pytest.mark.parametrize(
    ("name", "size", "near"),
    [
        ("eva02", 225, "224 or 238"),
        ("rad-dino", 225, "224 or 238"),
        ("openclip", 250, "240 or 256"),
        ("biomedclip", 100, "96 or 112"),
        ("seem", 100, "96 or 128"),
        ("medsiglip", 447, "434 or 448"),
    ],
)
def test_nearest_valid_sizes_are_named_and_work(name, size, near):
    with pytest.raises(RequestError, match=f"--size {size} .*nearest valid: {near};"):
        describe(name, size)
    for other in near.split(" or "):
        assert describe(name, int(other)).size == int(other)


def test_what_works_at_no_size_is_told_no_size(monkeypatch):
    """As timm's gemma4_vit, which asks a tensor for its value while it is built."""

    def fail(model, size):
        raise RuntimeError("item() cannot be called on meta tensors")

    monkeypatch.setattr(from_timm, "study", fail)
    for size in (None, 160, 96):
        with pytest.raises(RequestError, match=r"test_vit.* \(item\(\) cannot .* at any size$"):
            describe("test_vit", size)


@pytest.mark.slow
def test_gemma4_s_vision_tower_is_told_no_size():
    with pytest.raises(RequestError, match="gemma4_vit_167m.* can't be used at any size"):
        describe("gemma4_vit_167m", 768)


# ---------------------------------------------------------------------------- tokens


def spread(model: torch.nn.Module) -> None:
    """Weights such that the class token is 100, registers 200, patches 7, in every block."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for name, parameter in model.named_parameters():
            if name.endswith("cls_token"):
                parameter.fill_(100)
            elif name.endswith(("reg_token", "dist_token", "register_tokens")):
                parameter.fill_(200)
            elif name.endswith(("patch_embed.proj.bias", "patch_embeddings.projection.bias")):
                parameter.fill_(7)


@pytest.mark.parametrize(
    ("name", "size", "n_prefix"),
    [
        ("test_vit", 64, 1),
        ("test_vit2", 64, 1),
        ("deit_tiny_distilled_patch16_224", 32, 2),
        ("eva02_tiny_patch14_224", 28, 1),
        ("vit_small_patch14_reg4_dinov2", 28, 5),
        ("vit_small_patch16_dinov3", 32, 5),
        ("vit_medium_patch16_reg4_gap_256", 32, 4),
    ],
)
def test_cls_and_mean_are_of_their_own_tokens_alone(name, size, n_prefix):
    description = describe(name, size, layer_norm="none")
    encoder, _ = load_encoder(description, Weights(None, seed=0))
    spread(encoder.model)
    assert description.anatomy.n_prefix == n_prefix
    stored = encoder(torch.zeros(1, 3, size, size))
    means = [vector for array, vector in stored.items() if array.endswith("/mean")]
    classes = [vector for array, vector in stored.items() if array.endswith("/cls")]
    assert len(means) == description.anatomy.n_layers
    assert all((vector == 7).all() for vector in means)
    assert all((vector == 100).all() for vector in classes)
    assert bool(classes) == (getattr(encoder.model, "cls_token", None) is not None)


# ---------------------------------------------------------------------------- what was seen


@pytest.mark.parametrize(
    ("name", "dataset", "words"),
    [
        ("rad-dino", "chestmnist", "yes: NIH ChestX-ray14"),
        ("rad-dino", "breastmnist", "no"),
        ("dinov2", "chestmnist", "no"),
        ("biomedclip", "chestmnist", "unknown"),
        ("dinov2", "my-own-set", "unknown"),
        ("biomedgpt", "pathmnist", "unknown"),
    ],
)
def test_whether_pretraining_saw_a_set(name, dataset, words):
    assert describe_seen(BY_NAME[name].pretraining.seen, dataset) == words


def test_no_weights_are_guessed_for_what_nobody_publishes():
    name = next(n for n in timm.list_models() if not timm.list_pretrained(f"{n}.*"))
    with pytest.raises(RequestError, match="no published weights are known"):
        find_weights(describe(name, None), "pretrained", 0, download=False)
