"""Papers' protocols, flags over them, and statistics of data sets."""

import json
import re
import shlex
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms as tv

from cache import RequestError, open_features
from extract.cli import main
from extract.config import PROTOCOL_NAMES, ExtractConfig
from extract.datasets.sources import find_source
from extract.datasets.statistics import DATASET_STATISTICS, dataset_statistics, recall_statistics
from extract.datasets.volumes import Slicing
from extract.describe import fit_words
from extract.encoders.encoder import Weights, describe, load_encoder
from extract.encoders.resolve import find_entry
from extract.encoders.table.entry import IMAGENET
from extract.key import make_transform, protocol_words
from extract.machine.digests import DigestMemory
from extract.plan import make_plan
from extract.prepare.protocols import PROTOCOLS, preprocess, wished_norm, wished_size
from extract.prepare.transforms import Transform
from probe.cli import main as probe

MODEL = ["--model", "test_vit", "--size", "32", "--weights", "random"]


@cache
def settle(name: str, **wishes: Any) -> tuple[int, Transform]:
    """Size and transform of grey images, as a plan would settle them."""
    config = ExtractConfig(models=(name,), **wishes)
    entry = find_entry(name)
    d = describe(name, wished_size(config, entry), "-1")
    preprocessing = preprocess(config, entry, d.statistics)
    return d.size, make_transform(d.size, preprocessing, 1, ((0.25,) * 3, (0.5,) * 3))


def prepare(transform: Transform, images: np.ndarray) -> Tensor:
    return transform(torch.from_numpy(transform.on_host(images)))


def pictures(n: int, side: int, seed: int = 0) -> np.ndarray:
    """Smooth grey pictures of all brightnesses, (n, side, side) uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, 5, 5), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(c).resize((side, side))) for c in coarse])


# ---------------------------------------------------------------------------- protocols


def test_each_protocol_has_its_settings():
    assert set(PROTOCOLS) == set(PROTOCOL_NAMES)


@pytest.mark.parametrize(
    ("name", "size"),
    [("dinov2", 518), ("efficientnet-b4", 224), ("sam", 224), ("eva02", 224), ("vgg16", 224)],
)
def test_wu2025_sizes(name, size):
    assert settle(name, protocol="wu2025")[0] == size


def test_wu2025_keeps_each_encoder_s_statistics():
    for name in ("vit", "openai", "dinov2"):
        transform = settle(name, protocol="wu2025")[1]
        assert transform.mean == describe(name, None).statistics.mean


def test_wu2025_is_the_released_pipeline():
    """PIL to RGB, SAM's resize of the longest side (bilinear, 8 bit), tensor, normalise."""
    size, transform = settle("dinov2", protocol="wu2025")
    images = pictures(2, 224)
    plain = tv.Compose(
        [
            lambda array: Image.fromarray(array).convert("RGB").resize((518, 518), 2),
            tv.ToTensor(),
            tv.Normalize(IMAGENET.mean, IMAGENET.std),
        ]
    )
    expected = torch.stack([plain(image) for image in images])
    assert size == 518
    torch.testing.assert_close(prepare(transform, images), expected, atol=1e-5, rtol=1e-5)


def test_doerrich2024_is_the_released_pipeline():
    """Tensor, normalise, and only then zeros around it: no resize."""
    size, transform = settle("dino", protocol="doerrich2024")
    images = pictures(2, 28)
    plain = tv.Compose(
        [
            lambda array: Image.fromarray(array).convert("RGB"),
            tv.ToTensor(),
            tv.Normalize(IMAGENET.mean, IMAGENET.std),
            tv.Pad((224 - 28) // 2),
        ]
    )
    expected = torch.stack([plain(image) for image in images])
    assert size == 224
    torch.testing.assert_close(prepare(transform, images), expected, atol=1e-5, rtol=1e-5)


def test_huix2024_is_the_released_pipeline():
    """256 px, the centre, one channel, and the first filter of the encoder's first layer."""
    config = ExtractConfig(models=("test_vit",), protocol="huix2024", size=32)
    entry = find_entry("test_vit")
    d = describe("test_vit", 32)
    transform = make_transform(
        32, preprocess(config, entry, d.statistics), 1, ((0.25,) * 3, (0.5,) * 3)
    )
    images = pictures(3, 50)
    side = round(32 * 256 / 224)
    plain = tv.Compose(
        [
            lambda array: Image.fromarray(array),
            tv.Resize((side, side)),
            tv.CenterCrop(32),
            tv.ToTensor(),
            tv.Normalize([0.25], [0.5]),
        ]
    )
    grey = torch.stack([plain(image) for image in images])  # (3, 1, 32, 32)
    prepared = prepare(transform, images)
    torch.testing.assert_close(prepared[:, :1], grey, atol=1e-5, rtol=1e-5)
    encoder, _ = load_encoder(d, Weights(None, seed=0))
    conv = encoder.model.patch_embed.proj
    one = torch.nn.functional.conv2d(grey, conv.weight[:, :1], conv.bias, conv.stride)
    torch.testing.assert_close(conv(prepared), one, atol=1e-5, rtol=1e-5)


def test_huix2024_leaves_colour_images_their_channels():
    config = ExtractConfig(models=("dino",), protocol="huix2024")
    preprocessing = preprocess(config, find_entry("dino"), None)
    transform = make_transform(224, preprocessing, 3, DATASET_STATISTICS["isic2019"])
    assert transform.channels == "RGB"
    assert transform.mean == (0.668, 0.530, 0.524)


@pytest.mark.parametrize("side", [150, 300, 1024])
@pytest.mark.parametrize("made", ["smooth", "edges"])
def test_baharoon2023_is_the_released_pipeline(side, made):
    """A float tensor by torchvision without antialias, bicubic to 224, overshoot and all; each
    channel stretched to 0..1, ImageNet's statistics for every encoder. The release has float16.
    """
    size, transform = settle("vit", protocol="baharoon2023")
    images = pictures(2, side) // 3 + 40
    if made == "edges":  # as of letters beside a lung: black and white, next to each other
        images = np.where(images > images.mean(), 255, 0).astype(np.uint8)
    plain = tv.Compose(
        [
            lambda image: torch.from_numpy(np.stack([image] * 3)),
            tv.Resize((224, 224), tv.InterpolationMode.BICUBIC, antialias=False),
            lambda x: (x - x.amin((1, 2), True)) / (x.amax((1, 2), True) - x.amin((1, 2), True)),
            tv.Normalize(IMAGENET.mean, IMAGENET.std),
        ]
    )
    expected = torch.stack([plain(image.astype(np.float32)) for image in images])
    found = prepare(transform, images)
    assert size == 224
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
    released = torch.stack([plain(image.astype(np.float16)) for image in images])
    torch.testing.assert_close(found, released.float(), atol=0.01, rtol=0)
    by_pillow = settle("vit", protocol="baharoon2023", resize_backend="pil")[1]
    assert by_pillow.antialias  # which Pillow always is; nobody has to ask for it
    apart = 0.225 * 255 * (prepare(by_pillow, images) - expected).abs().max()  # grey levels
    assert apart > 1 or side < size


def test_baharoon2023s_resize_is_in_the_key_and_a_flag_takes_it_back():
    transform = settle("dino", protocol="baharoon2023")[1]
    assert transform.key["resize"] == "scale (tensor)"
    assert transform.key["antialias"] is False
    assert str(transform).startswith("scale (tensor) to 224 px (bicubic, not antialiased)")
    assert settle("dino", protocol="baharoon2023", antialias=True)[1].key["antialias"] is True
    assert settle("dino", protocol="wu2025", resize_backend="device")[1].antialias


@pytest.mark.parametrize(
    ("name", "norm"),
    [("vit-l", "none"), ("msn-l", "none"), ("mae-l", "none"), ("dinov2-l", "final")],
)
def test_baharoon2023_takes_layers_before_the_norm_where_its_code_does(name, norm):
    config = ExtractConfig(models=(name,), protocol="baharoon2023")
    assert wished_norm(config, find_entry(name)) == norm
    plan = make_plan(
        ExtractConfig(models=(name,), protocol="baharoon2023", data=("demo",), weights="random")
    )
    assert plan.jobs[0].description.norm_rule == {"none": "none", "final": "tokens"}[norm]


def test_baharoon2023_runs_sam_at_its_own_size():
    assert settle("sam-l", protocol="baharoon2023")[0] == 1024


# ---------------------------------------------------------------------------- flags


def test_native_is_the_encoder_s_own_size_whatever_the_protocol():
    assert settle("efficientnet-b4", protocol="wu2025", size="native")[0] == 320
    assert settle("efficientnet-b4", size="native")[0] == 320


@pytest.mark.parametrize(
    ("wish", "found"),
    [
        ({"resize": "pad"}, {"resize": "pad"}),
        ({"interpolation": "nearest"}, {"interpolation": "nearest"}),
        ({"resize_backend": "device"}, {"backend": "device"}),
        ({"mean": (0.1, 0.2, 0.3)}, {"mean": (0.1, 0.2, 0.3), "std": IMAGENET.std}),
        ({"intensity": "255"}, {"intensity": "uint8 / 255"}),
        ({"channels": "first-filter"}, {"channels": "grey into the first filter"}),
    ],
)
def test_flags_override_a_protocol(wish, found):
    transform = settle("dino", protocol="baharoon2023", **wish)[1]
    for name, value in found.items():
        assert getattr(transform, name) == value


@pytest.mark.parametrize(
    ("name", "wish", "words"),
    [
        ("vit", {}, ""),
        ("vit", {"size": 224, "interpolation": "bilinear", "layer_norm": "final"}, ""),
        ("dinov2", {"size": 518}, ""),
        ("dinov2", {"size": 224}, ", but size 224"),
        ("vit", {"interpolation": "bicubic"}, ", but interpolation bicubic"),
        ("vit", {"mean": (0.5, 0.5, 0.4)}, ", but mean 0.5/0.5/0.4"),
        ("vit", {"layer_norm": "none", "channels": "first-filter"}, None),
        ("resnet18", {"layer_norm": "none"}, ""),  # its layers are raw anyway
    ],
)
def test_what_flags_changed_of_a_protocol_is_said(name, wish, words):
    config = ExtractConfig((name,), protocol="wu2025", data=("demo",), weights="random", **wish)
    (job,) = make_plan(config).jobs
    words = ", but layer norm none, channels first-filter" if words is None else words
    assert protocol_words(job, config) == f"wu2025{words}"


def test_statistics_that_only_a_user_knows_are_no_change_of_a_protocol():
    config = ExtractConfig(
        ("open_clip:ViT-B-32",),
        protocol="wu2025",
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
        data=("demo",),
        weights="random",
    )
    (job,) = make_plan(config).jobs
    assert protocol_words(job, config) == "wu2025"


@pytest.mark.parametrize(
    ("channels", "words"),
    [
        ((1,), "· grey into the first filter ·"),
        ((3,), "· RGB ·"),
        ((1, 3), "· grey into the first filter, RGB as it is ·"),
    ],
)
def test_plans_say_what_becomes_of_grey_and_of_colour(channels, words, tmp_path, write_npz, capsys):
    sets = [write_npz(tmp_path / f"x{n}.npz", side=8, channels=n) for n in channels]
    data = ",".join(f"npz:{path}" for path in sets)
    assert main([*MODEL, "--data", data, "--channels", "first-filter", "--dry-run"]) == 0
    assert words in capsys.readouterr().out


def test_without_a_protocol_everything_is_the_encoder_s_own():
    transform = settle("medsam", size=64)[1]
    assert transform.intensity == "min-max"
    assert (transform.mean, transform.std) == ((0.0,) * 3, (1.0,) * 3)
    assert settle("resnet152", size=64)[1].interpolation == "bilinear"


def test_unknown_statistics_are_refused_not_guessed():
    entry = find_entry("test_vit")
    with pytest.raises(RequestError, match="nobody says which mean and std .*--mean 0.5"):
        preprocess(ExtractConfig(models=("x",)), entry, None)
    with pytest.raises(RequestError, match="nobody says"):
        preprocess(ExtractConfig(models=("x",), mean=(0.5,) * 3), entry, None)
    config = ExtractConfig(models=("x",), mean=(0.5,) * 3, std=(0.2,) * 3)
    assert preprocess(config, entry, None).std == (0.2,) * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mean", "x"], "takes one number or three"),
        (["--mean", "0.1,0.2"], "takes one number or three"),
        (["--std", "0"], "--std takes numbers above 0"),
        (["--std", "nan"], "takes one number or three"),
        (["--mean", "127.5"], "--mean is of values in 0..1, found 127.5; divide it by 255"),
        (["--mean=-0.5"], "--mean is of values in 0..1, found -0.5"),
        (["--std", "0.2,0.2,58"], "--std is of values in 0..1, found 58; divide it by 255"),
        (["--size", "big"], "takes pixels or native"),
        (["--resize", "squash"], "invalid choice"),
        (["--protocol", "wu2024"], "invalid choice"),
        (["--template", "a {} of {}", "--text"], "needs one {}"),
        (["--template", "a {}"], "belong to --text"),
        (["--demo", "--text"], "has no text tower"),
    ],
)
def test_bad_flags_are_usage_errors(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--model", "test_vit", "--data", "demo", *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_pillow_without_antialiasing_is_refused_before_any_work(tmp_path, capsys):
    arguments = ["--resize-backend", "pil", "--no-antialias", "--features", str(tmp_path)]
    assert main([*MODEL, "--data", "demo", *arguments]) == 1
    assert "always antialiased" in capsys.readouterr().err


# ---------------------------------------------------------------------------- sizes that don't fit


@pytest.mark.parametrize(
    ("fit", "size", "words"),
    [
        ("nearest", 1022, "1022 px is the nearest to 1024 px that the encoder takes"),
        ("crop", 1022, "images of 1024 px, cut to 1022 px"),
        ("pad", 1036, "images of 1024 px, set into mean colour of 1036 px"),
    ],
)
def test_dinov2_at_1024_beside_encoders_that_take_it(fit, size, words):
    """No multiple of 14. Tables 3 of Huix et al. 2024 and 8 of Baharoon et al. 2023."""
    models = ("vit_small_patch14_dinov2.lvd142m", "samvit_base_patch16.sa1b")
    config = ExtractConfig(
        models, size=1024, protocol="huix2024", fit_size=fit, data=("demo",), weights="random"
    )
    dinov2, sam = make_plan(config).jobs
    assert (dinov2.description.size, sam.description.size) == (size, 1024)
    assert fit_words(dinov2, config).startswith(words)
    assert fit_words(sam, config) == ""
    transform = make_transform(size, dinov2.preprocessing, 1, IN_0_1)
    content = None if fit == "nearest" else 1024
    assert transform.key.get("content") == content
    said = f", but size {size}" + (f", content {content}" if content else "")
    assert protocol_words(dinov2, config) == f"huix2024{said}"
    assert "content" not in make_transform(1024, sam.preprocessing, 1, IN_0_1).key


IN_0_1 = ((0.25,) * 3, (0.5,) * 3)


@pytest.mark.parametrize(
    ("fit", "size", "channels"), [("nearest", 128, 1), ("crop", 128, 3), ("pad", 144, 1)]
)
def test_features_of_a_fitted_size_are_those_of_the_plain_pipeline(
    fit, size, channels, tmp_path, write_npz
):
    path = write_npz(tmp_path / "tiny.npz", counts=(3, 2, 2), side=50, channels=channels)
    root = tmp_path / "f"
    words = ["--model", "test_vit", "--weights", "random", "--data", f"npz:{path}"]
    words += ["--size", "136", "--fit-size", fit, "--features", str(root), "--store", "float32"]
    assert main(words) == 0
    features = open_features(next(root.rglob("*.h5")))
    with np.load(path) as file:
        images = np.concatenate([file[f"{s}_images"] for s in ("train", "val", "test")])
    images = images if channels == 3 else np.stack([images] * 3, -1)
    side = 128 if fit == "nearest" else 136
    d = describe("test_vit", size)
    mean, std = d.statistics.mean, d.statistics.std
    levels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    x = tv.functional.resize(levels, [side, side], tv.InterpolationMode.BICUBIC, antialias=True)
    x = tv.functional.normalize(x.clamp(0, 255) / 255, mean, std)
    if fit != "nearest":
        x = tv.functional.center_crop(x, [size, size])  # which pads with zeros where it is larger
    encoder, _ = load_encoder(d, Weights(None, seed=0))
    np.testing.assert_allclose(features.array(-1, "head"), encoder(x)["head"], rtol=1e-4, atol=1e-4)
    assert features.size == size
    assert str(size) in features.notes["fitted"]
    command = shlex.split(features.header.attributes["command"])
    assert main(command[1:]) == 0  # the same file again
    assert len(list(root.rglob("*.h5"))) == 1
    assert probe(["--kind", "knn", "--k", "1", "--features", str(root)]) == 0
    (row,) = [json.loads(p.read_text()) for p in (tmp_path / "results").glob("*/*.json")]
    assert features.notes["fitted"] in row["marks"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--size", "136"],
            "nearest valid: 128 or 144; .*; or let images be fitted to such a size, --fit-size nearest, crop or pad",
        ),
        (["--size", "8", "--fit-size", "pad"], "--fit-size pad finds no size near 8"),
    ],
)
def test_a_size_that_doesnt_fit_is_refused_with_what_can_be_done(words, message, capsys):
    assert main([*MODEL[:2], *MODEL[4:], "--data", "demo", *words]) == 1
    assert re.search(message, capsys.readouterr().err)


# ---------------------------------------------------------------------------- whole runs


@pytest.mark.parametrize("protocol", PROTOCOL_NAMES)
def test_a_protocol_is_in_the_file(protocol, tmp_path, write_npz):
    images = f"npz:{write_npz(tmp_path / 'tiny.npz', counts=(6, 2, 2), side=40)}"
    root = tmp_path / "f"
    arguments = [*MODEL, "--data", images, "--features", str(root), "--protocol", protocol]
    assert main(arguments) == 0
    features = open_features(next(root.rglob("*.h5")))
    transform = features.key["transform"]
    assert features.notes["protocol"] == f"{protocol}, but size 32"
    by = {"pil": "PIL", "tensor": "tensor"}[PROTOCOLS[protocol].backend]
    assert transform["resize"] == f"{PROTOCOLS[protocol].resize} ({by})"
    assert f"--protocol {protocol}" in features.header.attributes["command"]
    assert main(arguments) == 0  # the same key again, statistics of the data set and all
    assert len(list(root.rglob("*.h5"))) == 1


def test_features_are_those_of_the_plain_pipeline(tmp_path, write_npz):
    """Through the decoding thread and the device: as if each image were prepared by Pillow."""
    path = write_npz(tmp_path / "tiny.npz", counts=(6, 2, 2), side=50)
    root = tmp_path / "f"
    arguments = ["--data", f"npz:{path}", "--features", str(root), "--store", "float32"]
    assert main([*MODEL, *arguments, "--resize", "crop", "--resize-backend", "pil"]) == 0
    features = open_features(next(root.rglob("*.h5")))
    with np.load(path) as file:
        images = np.concatenate([file[f"{s}_images"] for s in ("train", "val", "test")])
    d = describe("test_vit", 32)
    plain = tv.Compose(
        [
            lambda array: Image.fromarray(array).convert("RGB"),
            tv.Resize(round(32 * 256 / 224), tv.InterpolationMode.BICUBIC),
            tv.CenterCrop(32),
            tv.ToTensor(),
            tv.Normalize(d.statistics.mean, d.statistics.std),
        ]
    )
    encoder, _ = load_encoder(d, Weights(None, seed=0))
    expected = encoder(torch.stack([plain(image) for image in images]))["head"]
    found = features.array(-1, "head")
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------- statistics


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_are_those_of_the_train_pixels(channels, tmp_path, write_npz):
    path = write_npz(tmp_path / "tiny.npz", counts=(300, 5, 7), side=9, channels=channels)
    memory = DigestMemory(tmp_path / "digests.json")
    source = find_source(f"npz:{path}", 32, None, None)
    assert recall_statistics(source, memory) is None
    mean, std = dataset_statistics(source, source.open(memory), memory)
    with np.load(path) as file:
        pixels = file["train_images"].reshape(-1, channels) / 255
    np.testing.assert_allclose(mean, np.broadcast_to(pixels.mean(0), 3), atol=5.1e-5)
    np.testing.assert_allclose(std, np.broadcast_to(pixels.std(0), 3), atol=5.1e-5)
    assert recall_statistics(source, memory) == (mean, std)


def test_statistics_of_slices_with_neighbours_are_remembered_apart(tmp_path):
    volumes = np.zeros((4, 6, 6, 6), np.uint8)
    volumes[:, 0] = 255  # an end: with neighbours it counts twice
    labels = np.array([[0], [1], [0], [1]])
    parts = {f"{s}_images": volumes for s in ("train", "val", "test")}
    np.savez(tmp_path / "v.npz", **parts, **{name[:-6] + "labels": labels for name in parts})
    memory = DigestMemory(tmp_path / "digests.json")
    means = []
    for slicing in (None, Slicing(0, neighbours=True)):
        source = find_source(f"npz:{tmp_path / 'v.npz'}", 32, None, None, slicing)
        means.append(dataset_statistics(source, source.open(memory), memory)[0])
    assert means == [(0.1667,) * 3, (0.3333, 0.1667, 0.0)]


def test_black_images_still_have_a_std(tmp_path):
    path = tmp_path / "black.npz"
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = np.zeros((2, 8, 8), np.uint8)
        arrays[f"{split}_labels"] = np.array([[0], [1]])
    np.savez(path, **arrays)
    memory = DigestMemory(tmp_path / "digests.json")
    source = find_source(f"npz:{path}", 32, None, None)
    _, std = dataset_statistics(source, source.open(memory), memory)
    assert min(std) > 0


def test_without_training_images_there_are_none(tmp_path, write_npz, capsys):
    path = write_npz(tmp_path / "tiny.npz", counts=(0, 4, 4), side=8)
    assert main([*MODEL, "--data", f"npz:{path}", "--protocol", "huix2024"]) == 1
    assert "tiny has no training images, and mean and std" in capsys.readouterr().err
    assert main([*MODEL, "--data", f"npz:{path}", "--protocol", "huix2024", "--mean", "0.5",
                 "--std", "0.2"]) == 0  # fmt: skip


def test_a_user_s_file_named_like_a_published_set_has_its_own_statistics(tmp_path, write_npz):
    source = find_source(f"npz:{write_npz(tmp_path / 'chexpert.npz')}", 32, None, None)
    memory = DigestMemory(tmp_path / "digests.json")
    assert recall_statistics(source, memory) is None
    mean, _ = dataset_statistics(source, source.open(memory), memory)
    assert mean != DATASET_STATISTICS["chexpert"][0]
