"""Names that users type, and configurations that others publish: to one encoder, or one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch import Tensor

from cache import RequestError, open_features
from extract.cli import main
from extract.config import ExtractConfig
from extract.encoders.anatomy import Statistics
from extract.encoders.encoder import describe, find_weights, load_encoder
from extract.encoders.resolve import find_entry
from extract.encoders.weights import published as weights
from extract.encoders.weights.published import OPEN_CLIP, SAFE, Hub, Local
from extract.key import make_transform
from extract.plan import make_plan

HALF = Statistics((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic")
TIMM = {
    "architecture": "test_vit",
    "num_classes": 7,
    "pretrained_cfg": {
        "input_size": [3, 64, 64],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bilinear",
        "license": "mit",
        "fixed_input_size": True,
    },
    "model_args": {"img_size": 64, "init_values": 0.1, "num_classes": 7, "in_chans": 3},
}
OPEN_CLIP_CONFIG = {
    "model_cfg": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2},
        "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bicubic"},
}
TRANSFORMERS = {
    "model_type": "vit",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
PREPROCESSOR = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}

Files = dict[str, Any]  # name -> content: JSON, or text as it is
Put = Callable[[Files], str]


def write(folder: Path, files: Files) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Puts files of Org/Name into the hub's cache; gives its name for --model."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def put(files, commit="abc", branch="main"):
        kept = tmp_path / "hub" / "models--Org--Name"
        write(kept / "snapshots" / commit, files)
        write(kept / "refs", {branch: commit})
        return "hf-hub:Org/Name"

    return put


@pytest.fixture
def local(tmp_path):
    """Puts files into a folder; gives its name for --model."""
    return lambda files: f"local-dir:{write(tmp_path / 'secret' / 'my model', files)}"


@pytest.fixture(params=["hub", "local"])
def published(request):
    """Either of the two, which read the same files."""
    return request.getfixturevalue(request.param)


def changed(config: Files, **changes: Any) -> Files:
    """A copy, with some values of its sections replaced; None takes one away."""
    copy = json.loads(json.dumps(config))
    for path, value in changes.items():
        *sections, name = path.split("__")
        section = copy
        for part in sections:
            section = section[part]
        section[name] = value
    return copy


# ---------------------------------------------------------------------------- by library


def test_a_published_timm_model(published):
    entry = find_entry(published({"config.json": TIMM}))
    assert (entry.library, entry.network, entry.size) == ("timm", "test_vit", 64)
    assert entry.arguments == {"img_size": 64, "init_values": 0.1}
    assert entry.statistics == Statistics(HALF.mean, HALF.std, "bilinear")
    assert entry.pretraining.licence == "mit"
    d = describe(published({"config.json": TIMM}), None)
    assert d.size == 64
    assert d.arguments == {"img_size": 64, "init_values": 0.1}
    assert d.anatomy.head_width == 64


def test_an_old_timm_configuration_is_one_flat_object(published):
    flat = {"architecture": "resnet18", "input_size": [3, 96, 96], "mean": [0.5] * 3}
    entry = find_entry(published({"config.json": {**flat, "std": [0.5] * 3}}))
    assert (entry.network, entry.size, entry.statistics) == ("resnet18", 96, HALF)


def test_a_published_open_clip_model(published):
    entry = find_entry(published({"open_clip_config.json": OPEN_CLIP_CONFIG}))
    assert entry.library == "open_clip"
    assert entry.config == OPEN_CLIP_CONFIG["model_cfg"]
    assert entry.statistics == Statistics((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bicubic")
    assert describe(published({}), None).anatomy.proj_width == 24


def test_a_published_transformers_model(published):
    files = {"config.json": TRANSFORMERS, "preprocessor_config.json": PREPROCESSOR}
    entry = find_entry(published(files))
    assert entry.library == "transformers"
    assert entry.statistics == Statistics(HALF.mean, HALF.std, "bilinear")
    assert describe(published(files), None).anatomy.n_layers == 2


def test_a_hubs_name_may_be_meant_for_transformers(hub):
    """Of a repository that open_clip and transformers can read."""
    files = {"config.json": TRANSFORMERS, "open_clip_config.json": OPEN_CLIP_CONFIG}
    name = hub(files).removeprefix("hf-hub:")
    assert find_entry(f"hf-hub:{name}").library == "open_clip"  # it brings the texts
    entry = find_entry(f"transformers:{name}")
    assert (entry.library, entry.name) == ("transformers", f"transformers:{name}")


def test_hf_hub_is_timms_word_where_timm_and_open_clip_can_read_it(published):
    files = {"config.json": TIMM, "open_clip_config.json": OPEN_CLIP_CONFIG}
    assert find_entry(published(files)).library == "timm"


def test_weights_are_those_beside_the_configuration(hub, local, tmp_path):
    assert find_entry(hub({"config.json": TIMM})).weights == Hub("Org/Name", SAFE)
    assert find_entry(local({"config.json": TIMM})).weights == Local(
        tmp_path / "secret" / "my model" / "model.safetensors"
    )
    (tmp_path / "secret" / "my model" / "pytorch_model.bin").touch()
    place = find_entry(local({})).weights
    assert isinstance(place, Local)
    assert place.path.name == "pytorch_model.bin"
    name = hub({"open_clip_config.json": OPEN_CLIP_CONFIG, "config.json": {}})
    assert find_entry(name).weights == Hub("Org/Name", OPEN_CLIP)


@pytest.mark.posix
def test_names_hold_no_path(local, tmp_path, monkeypatch):
    name = local({"config.json": TIMM})
    entry = find_entry(name)
    assert (entry.name, entry.encoder) == ("local-dir:my model",) * 2
    assert find_entry(f"{name}/").name == "local-dir:my model"
    monkeypatch.chdir(name.removeprefix("local-dir:"))
    assert find_entry("local-dir:.").name == "local-dir:my model"
    (tmp_path / "link").symlink_to(tmp_path / "secret" / "my model")
    assert find_entry(f"local-dir:{tmp_path / 'link'}").name == "local-dir:link"  # as typed
    monkeypatch.setenv("HOME", str(tmp_path / "secret"))
    assert find_entry("local-dir:~/my model").name == "local-dir:my model"


def test_a_revision_is_part_of_the_name(hub):
    hub({"config.json": TIMM})
    other = changed(TIMM, pretrained_cfg__input_size=[3, 32, 32], model_args={})
    hub({"config.json": other}, commit="f" * 40, branch="v2")
    assert find_entry("hf-hub:Org/Name").size == 64
    for revision in ("v2", "f" * 40):
        entry = find_entry(f"hf-hub:Org/Name@{revision}")
        assert entry.size == 32
        assert entry.name == entry.encoder == f"hf-hub:Org/Name@{revision}"
        assert entry.weights == Hub("Org/Name", SAFE, revision=revision)
    with pytest.raises(RequestError, match=r"Org/Name@v3/config\.json isn't in the hub's cache"):
        find_entry("hf-hub:Org/Name@v3")
    with pytest.raises(RequestError, match="expected a revision after the @"):
        find_entry("hf-hub:Org/Name@")


# ---------------------------------------------------------------------------- what can't be had


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("hf-hub:Org", "expected OWNER/NAME after the colon"),
        ("hf-hub:Org/Name/more", "Repo id must be in the form"),
        ("hf-hub:../..", "--model hf-hub:../..: "),
        ("hf-hub:Org/..", "--model hf-hub:Org/..: "),
        ("transformers:", "--model transformers:: "),
        ("hf-hub:Org/na me", "Repo id must use alphanumeric chars"),
        ("hf-hub:org/name", "org/name/config.json isn't in the hub's cache and the network"),
        ("local-dir:/nowhere/at/all", "no folder at /nowhere/at/all"),
        ("mine.py", "name its function too, as in mine.py:make_encoder"),
        ("timm/resnet18.a1_in1k", "named hf-hub:timm/resnet18.a1_in1k"),
    ],
)
def test_names_that_lead_nowhere(hub, typed, message):
    hub({"config.json": TIMM})
    with pytest.raises(RequestError) as caught:
        find_entry(typed)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_configuration(local):
    with pytest.raises(RequestError, match=r"no config\.json or open_clip_config\.json in .*model"):
        find_entry(local({"model.safetensors": ""}))


def test_online_a_repository_without_configuration(hub, monkeypatch):
    from huggingface_hub.errors import RemoteEntryNotFoundError

    asked = []

    def download(repository, file, *, revision):
        asked.append(file)
        raise RemoteEntryNotFoundError("404", response=Mock())

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(weights, "why_unreachable", lambda address: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(RequestError, match=r"Org/Name/config\.json isn't there, so nobody knows"):
        find_entry("hf-hub:Org/Name")
    assert asked == ["config.json", "open_clip_config.json"]


def test_online_a_configuration_is_fetched(hub, monkeypatch, tmp_path):
    from huggingface_hub.errors import RemoteEntryNotFoundError

    folder = write(tmp_path / "far", {"config.json": TRANSFORMERS})

    def download(repository, file, *, revision):
        if not (folder / file).exists():
            raise RemoteEntryNotFoundError("404", response=Mock())
        return str(folder / file)

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(weights, "why_unreachable", lambda address: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    entry = find_entry("hf-hub:Org/Name")
    assert (entry.library, entry.statistics) == ("transformers", None)


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", '"text"', "null", "\x00", "[" * 100_000])
def test_a_configuration_that_is_no_json_object(published, content):
    with pytest.raises(RequestError, match=r"config\.json (isn't readable JSON|holds a)") as caught:
        find_entry(published({"config.json": content}))
    assert "\n" not in str(caught.value)


def test_a_configuration_in_another_encoding(local):
    folder = Path(local({"config.json": TIMM}).removeprefix("local-dir:"))
    (folder / "config.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(RequestError, match=r"config\.json isn't readable JSON"):
        find_entry(f"local-dir:{folder}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "no_such_net"}, "timm .* has no architecture 'no_such_net'"),
        ({"architecture": "test_vitt"}, "near names: test_vit"),
        ({"architecture": 3}, "has no architecture 3"),
        ({"architecture": None}, "has no architecture None"),
        ({"architecture": ["test_vit"]}, "has no architecture"),
        # timm would read, or fetch, another configuration.
        ({"architecture": "hf-hub:Evil/Name"}, "has no architecture 'hf-hub:Evil/Name'"),
        ({"architecture": "local-dir:/tmp"}, "has no architecture 'local-dir:/tmp'"),
        ({"architecture": "test_vit.r160_in1k"}, "has no architecture 'test_vit.r160_in1k'"),
        ({"pretrained_cfg": [1]}, "pretrained_cfg is \\[1\\], not a JSON object"),
        ({"model_args": "x"}, "model_args is 'x', not a JSON object"),
        ({"pretrained_cfg__mean": [0.5, 0.5]}, "mean is \\[0.5, 0.5\\]; expected three numbers"),
        ({"pretrained_cfg__mean": "0.5"}, "mean is '0.5'; expected three numbers"),
        ({"pretrained_cfg__mean": [1, 2, "3"]}, "mean is .*; expected three numbers"),
        ({"pretrained_cfg__std": [0.5, 0, 0.5]}, "std is \\[0.5, 0, 0.5\\]; expected three"),
        ({"model_args__img_size": [64, 32]}, "takes images of 64 x 32 px"),
        ({"model_args__img_size": "large"}, "its size is \\['large'\\]"),
        ({"model_args__img_size": -64}, "its size is \\[-64\\]"),
        ({"model_args__in_chans": 1}, "takes images of 1 channels, not of 3"),
        (
            {"pretrained_cfg__input_size": [1, 64, 64], "model_args": {}},
            "takes images of 1 channels, not of 3",
        ),
        ({"pretrained_cfg__input_size": 64, "model_args": {}}, "its size is 64"),
    ],
)
def test_a_timm_configuration_that_cannot_be_used(published, changes, message):
    with pytest.raises(RequestError, match=message) as caught:
        find_entry(published({"config.json": changed(TIMM, **changes)}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "argument",
    [
        {"checkpoint_path": "/tmp/pickle.pth"},
        {"pretrained": True},
        {"pretrained_cfg": {"url": "http://127.0.0.1/x.pth"}},
        {"pretrained_cfg_overlay": {"file": "/tmp/pickle.pth"}},
        {"pretrained_custom_load": "hf"},
        {"pretrained_filter_fn": "os.system"},
        {"cache_dir": "/tmp"},
        {"features_only": True},
        {"feature_cfg": {"feature_cls": "x"}},
        {"scriptable": True},
        {"exportable": True},
        {"kwargs_filter": ["depth"]},
        {"device": "cuda"},
        {"dtype": "float16"},
        {"self": 1},
        {"kwargs": 1},
        {"use_naflex": True},
        {"mlp_layer": "torch.nn.Module"},  # what the table may say, a file may not
        {"norm_layer": {"name": "x"}},
        {"depth": [[{"a": 1}]]},
    ],
    ids=lambda argument: next(iter(argument)),
)
def test_only_plain_arguments_of_the_architecture_pass(published, argument):
    config = changed(TIMM, model_args=argument)
    with pytest.raises(RequestError, match=f"model_args has '?{next(iter(argument))}"):
        find_entry(published({"config.json": config}))


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        ("test_vit", {"reg_tokens": 4, "dynamic_img_size": True, "act_layer": "gelu_tanh"}),
        ("test_vit2", {"qk_norm": True, "global_pool": "avg"}),
        ("eva02_tiny_patch14_224", {"num_reg_tokens": 2, "depth": 2, "img_size": [28, 28]}),
        ("swin_tiny_patch4_window7_224", {"window_size": 7, "strict_img_size": False}),
        ("resnet18", {"stem_type": "deep", "global_pool": "avg"}),
        ("convnext_atto", {"drop_path_rate": 0.1, "depths": [1, 1, 1, 1]}),
        ("test_vit", {"init_values": None}),  # as timm, which drops those
    ],
)
def test_arguments_of_other_architectures_pass(local, architecture, arguments):
    config = {"architecture": architecture, "model_args": arguments}
    d = describe(local({"config.json": config}), None)
    given = {n: v for n, v in arguments.items() if v is not None and n != "img_size"}
    assert given.items() <= d.arguments.items()


@pytest.mark.parametrize(
    ("model_args", "published_cfg", "size"),
    [
        ({"img_size": 48}, {"input_size": [3, 64, 64], "fixed_input_size": True}, 48),
        # Positions are resampled on the fly: the input's size is the later word.
        ({"img_size": 48}, {"input_size": [3, 64, 64], "fixed_input_size": False}, 64),
        ({"img_size": [48, 48]}, {}, 48),
        ({}, {"input_size": [3, 32, 32]}, 32),
        ({}, {}, None),
    ],
)
def test_the_size_is_the_one_timm_takes(local, model_args, published_cfg, size):
    config = {"architecture": "test_vit", "model_args": model_args, "pretrained_cfg": published_cfg}
    assert find_entry(local({"config.json": config})).size == size


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_cfg": 3}, "model_cfg is 3, not a JSON object"),
        ({"model_cfg": {}}, "describes no image tower"),
        ({"model_cfg__embed_dim": "24"}, "describes no image tower"),
        ({"model_cfg__vision_cfg": [1]}, "vision_cfg is \\[1\\], not a JSON object"),
        ({"model_cfg__vision_cfg__exec": 1}, "open_clip's image towers have no exec"),
        (
            {"model_cfg__vision_cfg__timm_model_name": "hf-hub:Evil/Name"},
            "has no architecture 'hf-hub:Evil/Name'",
        ),
        ({"preprocess_cfg": [1]}, "preprocess_cfg is \\[1\\], not a JSON object"),
        ({"preprocess_cfg__mean": [1]}, "mean is \\[1\\]; expected three numbers"),
    ],
)
def test_an_open_clip_configuration_that_cannot_be_used(published, changes, message):
    config = changed(OPEN_CLIP_CONFIG, **changes)
    with pytest.raises(RequestError, match=message):
        find_entry(published({"open_clip_config.json": config}))


def test_a_configuration_of_neither_library(published):
    with pytest.raises(RequestError, match="neither a timm architecture nor a model type"):
        find_entry(published({"config.json": {"hidden_size": 3}}))


def test_reading_a_hostile_configuration_reaches_nothing(published, monkeypatch):
    """Neither the network nor any pickle, whatever the configuration asks for."""

    def forbidden(*arguments, **options):
        raise AssertionError(f"reached {arguments}")

    monkeypatch.setattr("socket.socket.connect", forbidden)
    monkeypatch.setattr("torch.load", forbidden)
    monkeypatch.setattr("timm.models._builder.load_pretrained", forbidden)
    hostile = {"url": "http://127.0.0.1:9/x.pth", "hf_hub_id": "Evil/Name", "custom_load": "hf"}
    hostile |= {"file": "/tmp/pickle.pth", "state_dict": "x", "source": "file"}
    config = changed(TIMM, pretrained_cfg={**TIMM["pretrained_cfg"], **hostile})
    d = describe(published({"config.json": config}), None)
    place = d.outline.place
    assert isinstance(place, Hub | Local)
    assert "Evil" not in str(place)
    assert "pickle.pth" not in str(place)


# ---------------------------------------------------------------------------- mean and std


@pytest.mark.parametrize(
    ("preprocessor", "expected"),
    [
        ({"image_mean": 0.5, "image_std": 0.5}, HALF),
        ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3}, HALF),
        ({**PREPROCESSOR, "resample": 0}, Statistics(HALF.mean, HALF.std, "nearest")),
        ({**PREPROCESSOR, "resample": "bilinear"}, Statistics(HALF.mean, HALF.std, "bilinear")),
        ({"do_normalize": False}, Statistics((0, 0, 0), (1, 1, 1))),
        ({**PREPROCESSOR, "resample": 3, "rescale_factor": 0.00392156862745098}, HALF),
        # (x / 127.5 - 1) / 1 is (x / 255 - 0.5) / 0.5
        ({"image_mean": 1, "image_std": 1, "rescale_factor": 1 / 127.5}, HALF),
        ({"image_mean": 127.5, "image_std": 127.5, "do_rescale": False}, HALF),
        ({"resample": 3}, None),
        ({}, None),
    ],
)
def test_statistics_of_preprocessors(published, preprocessor, expected):
    files = {"config.json": TRANSFORMERS, "preprocessor_config.json": preprocessor}
    found = find_entry(published(files)).statistics
    if expected is None or found is None:
        assert found == expected
        return
    assert found.mean == pytest.approx(expected.mean)
    assert found.std == pytest.approx(expected.std)
    assert found.interpolation == expected.interpolation


def test_a_newer_release_keeps_the_preprocessor_one_level_deeper(published):
    files = {
        "config.json": TRANSFORMERS,
        "processor_config.json": {"image_processor": PREPROCESSOR, "processor_class": "X"},
    }
    assert find_entry(published(files)).statistics == Statistics(HALF.mean, HALF.std, "bilinear")


@pytest.mark.parametrize("factor", [0, -1, "1/255", None])
def test_a_factor_that_cannot_be(published, factor):
    files = {
        "config.json": TRANSFORMERS,
        "preprocessor_config.json": {**PREPROCESSOR, "rescale_factor": factor},
    }
    with pytest.raises(RequestError, match="rescale_factor is"):
        find_entry(published(files))


def test_an_interpolation_that_medprobe_lacks_is_refused_unless_another_is_named(local):
    files = {
        "config.json": TRANSFORMERS,
        "preprocessor_config.json": {**PREPROCESSOR, "resample": 1},
    }
    model = local(files)
    common = {"models": (model,), "data": ("breastmnist",), "weights": "random"}
    with pytest.raises(RequestError, match="interpolation 'lanczos' is unknown; medprobe has"):
        make_plan(ExtractConfig(**common))
    assert make_plan(ExtractConfig(**common, interpolation="bicubic")).jobs


# ---------------------------------------------------------------------------- from end to end


@pytest.fixture
def timm_folder(tmp_path):
    """A classifier as timm saves it, made by other than the default arguments."""
    torch.manual_seed(3)
    arguments = {"img_size": 48, "init_values": 0.3, "reg_tokens": 2}
    model = timm.create_model("test_vit", num_classes=5, **arguments)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    folder = tmp_path / "secret" / "my model"
    save_for_hf(model, str(folder), model_args=arguments, safe_serialization=True)
    return folder


def timms_own(folder: Path, images: Tensor, **options: Any) -> tuple[Tensor, list[Any]]:
    """head and layers by timm alone, from the same folder."""
    model: Any = timm.create_model(f"local-dir:{folder}", pretrained=True, **options).eval()
    with torch.inference_mode():
        final, layers = model.forward_intermediates(images, norm=True, return_prefix_tokens=True)
        return model.forward_head(final, pre_logits=True), layers


@pytest.mark.parametrize("size", [48, 32])
@pytest.mark.parametrize("file", SAFE[:2])  # shards: test_files.py
def test_a_folder_of_timms_gives_timms_features(timm_folder, size, file):
    if file != SAFE[0]:
        (timm_folder / SAFE[0]).unlink()
        arguments = {"img_size": 48, "init_values": 0.3}
        model = timm.create_model("test_vit", num_classes=5, **arguments)
        save_for_hf(model, str(timm_folder), model_args=arguments, safe_serialization=False)
    d = describe(f"local-dir:{timm_folder}", size)
    found = find_weights(d, "pretrained", 0, download=True)
    assert found.path
    assert found.path.name == file
    encoder, _ = load_encoder(d, found)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    stored = encoder(images)
    head, layers = timms_own(timm_folder, images, **({} if size == 48 else {"img_size": size}))
    torch.testing.assert_close(stored["head"], head, rtol=1e-4, atol=1e-5)
    for i, (patches, prefix) in enumerate(layers):
        torch.testing.assert_close(
            stored[f"layers/{i:02d}/mean"], patches.mean(dim=(2, 3)), rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(
            stored[f"layers/{i:02d}/cls"], prefix[:, 0], rtol=1e-4, atol=1e-5
        )


def test_the_command_takes_a_folder(timm_folder, tmp_path, write_npz):
    data = write_npz(tmp_path / "x.npz", counts=(5, 2, 2), side=48, channels=3)
    root = tmp_path / "features"
    command = ["--model", f"local-dir:{timm_folder}", "--size", "48", "--data", f"npz:{data}"]
    assert main([*command, "--store", "float32", "--features", str(root)]) == 0
    (path,) = root.rglob("*.h5")
    assert path.name.startswith("local-dir-my-model_48_")
    features = open_features(path)
    assert (features.model, features.header.attributes["encoder"]) == ("local-dir:my model",) * 2
    assert "secret" not in json.dumps(features.key)
    with np.load(data) as file:
        pixels = np.concatenate([file[f"{split}_images"] for split in ("train", "val", "test")])
    plan = make_plan(ExtractConfig(models=(f"local-dir:{timm_folder}",), data=(f"npz:{data}",)))
    transform = make_transform(48, plan.jobs[0].preprocessing, 3)
    head, _ = timms_own(timm_folder, transform(torch.from_numpy(pixels)))
    np.testing.assert_allclose(features.array(-1, "head"), head.numpy(), rtol=1e-4, atol=1e-5)


def test_a_folder_without_weights_is_one_line(local, tmp_path, write_npz, capsys):
    data = f"npz:{write_npz(tmp_path / 'x.npz')}"
    command = ["--model", local({"config.json": TIMM}), "--data", data, "--dry-run"]
    assert main(command) == 1
    text = capsys.readouterr().err
    assert "no weight file at " in text
    assert "my model/model.safetensors" in text
    assert text.count("\n") == 1
    assert main([*command, "--weights", "random"]) == 0


def test_a_folder_with_weights_of_another_model_is_one_line(local, tmp_path, write_npz, capsys):
    name = local({"config.json": TIMM})
    model = timm.create_model("test_vit2")
    save_file(model.state_dict(), Path(name.removeprefix("local-dir:")) / "model.safetensors")
    data = write_npz(tmp_path / "x.npz", counts=(3, 1, 1))
    assert main(["--model", name, "--data", f"npz:{data}"]) == 1
    text = capsys.readouterr().err
    assert "doesn't fit VisionTransformer" in text
    assert text.count("\n") == 1


def test_the_same_name_without_its_cache_asks_for_the_network(hub, capsys, write_npz, tmp_path):
    """The configuration is here, the weights aren't: the plan stands, the run says what to fetch."""
    name = hub({"config.json": TIMM})
    data = write_npz(tmp_path / "x.npz", counts=(3, 1, 1))
    assert main(["--model", name, "--data", f"npz:{data}"]) == 1
    assert "Org/Name/model.safetensors isn't in the hub's cache" in capsys.readouterr().err
