"""Reading weight files: damage is found, parts of a checkpoint are chosen, hostile ones are small."""

import contextlib
import hashlib
import json
import pickle
import random
import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import timm.models._helpers
import torch
from safetensors.torch import save_file
from torch import Tensor

from cache import RequestError, open_features
from extract.cli import main
from extract.encoders.encoder import (
    Weights,
    describe,
    find_weights,
    load_encoder,
    recall_weights_digest,
    weights_digest,
)
from extract.encoders.weights.files import CONTAINERS, check_zip, read_checkpoint
from extract.machine.digests import DigestMemory
from finetune.config import ModelConfig
from finetune.model.classifier import build_classifier
from finetune.training.checkpoints import save_tensors

ELSE = "--weights FILE:KEY takes another"


def tensors(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "a.weight": torch.randn(40, 30, generator=generator),
        "a.bias": torch.randn(40, generator=generator),
    }


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def save(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


# ---------------------------------------------------------------------------- damage


def flip(path: Path, position: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".pth.tar"])
def test_one_flipped_bit_of_a_weight_is_found(tmp_path, suffix):
    whole = tensors()
    path = save(whole, tmp_path / f"w{suffix}")
    assert same(read_checkpoint(path).tensors, whole)
    place = path.read_bytes().index(whole["a.bias"].numpy().tobytes())
    flip(path, place + 3, 6)  # of an exponent
    other = torch.load(path, weights_only=True)["a.bias"]
    assert not torch.equal(other, whole["a.bias"]), "torch itself sees nothing"
    with pytest.raises(RequestError, match=r"data/\d doesn't match its checksum, so the file is"):
        read_checkpoint(path)


def test_flipped_bits_anywhere_never_give_other_weights(tmp_path):
    whole = tensors()
    path = save(whole, tmp_path / "w.pt")
    content = path.read_bytes()
    rng = random.Random(0)
    n_refused = 0
    for _ in range(150):
        path.write_bytes(content)
        flip(path, rng.randrange(len(content)), rng.randrange(8))
        try:
            read = read_checkpoint(path).tensors
        except RequestError:
            n_refused += 1
        else:
            assert same(read, whole)  # a bit of padding, or of what the zip says twice
    assert n_refused > 100


def test_every_reading_of_an_encoder_finds_the_damage(tmp_path):
    """timm's, open_clip's and transformers' encoders and finetune's read through one function."""
    model = timm.create_model("test_vit", num_classes=0)
    path = save(model.state_dict(), tmp_path / "w.pt")
    values = model.state_dict()["patch_embed.proj.weight"]
    flip(path, path.read_bytes().index(values.numpy().tobytes()) + 3, 6)
    description = describe("test_vit", None)
    memory = DigestMemory(tmp_path / ".digests.json")
    readings = [
        lambda: load_encoder(description, Weights(path)),
        lambda: weights_digest(Weights(path), memory),
        lambda: build_classifier(description, Weights(path), ModelConfig(), 2, 0, print),
    ]
    for read in readings:
        with pytest.raises(RequestError, match="doesn't match its checksum"):
            read()


@pytest.mark.posix
def test_a_damaged_file_of_the_hub_s_cache_is_found_by_its_own_name(tmp_path):
    """Safetensors have no checksum; the hub's client names what it keeps by its SHA-256."""
    save_file(tensors(), tmp_path / "w.safetensors")
    content = (tmp_path / "w.safetensors").read_bytes()
    blob = tmp_path / "blobs" / hashlib.sha256(content).hexdigest()
    blob.parent.mkdir()
    blob.write_bytes(content)
    path = tmp_path / "snapshots" / "abc" / "model.safetensors"
    path.parent.mkdir(parents=True)
    path.symlink_to(f"../../blobs/{blob.name}")
    assert same(read_checkpoint(path).tensors, tensors())
    flip(blob, len(content) - 1, 6)
    with pytest.raises(RequestError, match=f"is damaged: the SHA-256 .* isn't {blob.name}; delete"):
        read_checkpoint(path)


def test_a_damaged_encoder_of_finetune_s_is_found(tmp_path):
    path = tmp_path / "encoder.safetensors"
    save_tensors(path, tensors(), {"medprobe_trained": "fine-tuned on x"})
    assert same(read_checkpoint(path).tensors, tensors())
    flip(path, path.stat().st_size - 1, 6)
    with pytest.raises(RequestError, match=r"encoder\.safetensors .*doesn't match its checksum"):
        read_checkpoint(path)


# ---------------------------------------------------------------------------- which weights


def test_of_several_sets_the_one_is_taken_that_timm_takes(tmp_path):
    sets = {name: tensors(i) for i, name in enumerate(CONTAINERS)}
    of_timm = CONTAINERS[:4]
    for _ in range(12):
        rng = random.Random(_)
        names = rng.sample(of_timm, rng.randint(1, 4))
        path = save({name: sets[name] for name in names} | {"epoch": 3}, tmp_path / "w.pt")
        expected = timm.models._helpers.load_state_dict(str(path))
        read = read_checkpoint(path)
        assert same(read.tensors, expected), names
        if len(names) == 1:
            assert read.said == ()
        else:
            (said,) = read.said
            taken = next(name for name in of_timm if name in names)
            assert said.startswith(f"taken from {taken!r}; there is also ")
            assert said.endswith(ELSE)
            assert all(f"{name} (2 tensors)" in said for name in names if name != taken)


def test_what_is_beside_the_weights_is_said(tmp_path):
    path = tmp_path / "w.pt"
    save(
        {"student": tensors(1), "teacher": tensors(2), "dino_loss": {"center": torch.ones(1)}}, path
    )
    read = read_checkpoint(path)
    assert same(read.tensors, tensors(2))
    assert read.said == (
        f"taken from 'teacher'; there is also student (2 tensors), dino_loss (1 tensor): {ELSE}",
    )
    # An optimiser's state isn't weights, and nobody needs to hear of it.
    optimiser = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    save({"model": tensors(3), "optimizer": optimiser, "args": {"lr": 0.1}}, path)
    assert read_checkpoint(path).said == ()
    save({"model": {"params": tensors(4)}}, path)
    assert same(read_checkpoint(path).tensors, tensors(4))


def test_a_part_can_be_chosen(tmp_path):
    path = tmp_path / "w.pt"
    save({"state_dict": {"student": tensors(1), "teacher": tensors(2)}, "ema": tensors(3)}, path)
    for part, seed in [("ema", 3), ("state_dict.student", 1), ("state_dict", 2)]:
        read = read_checkpoint(path, part)
        assert same(read.tensors, tensors(seed)), part
        assert read.said[0] == f"taken from {part!r}, as asked"
    with pytest.raises(
        RequestError, match=r"w\.pt holds nothing under 'raw'; there is also ema \(2 tensors\): --w"
    ):
        read_checkpoint(path, "raw")
    # The beginning of names does as well, in any format.
    flat = {f"{who}.{n}": t for i, who in enumerate("ab") for n, t in tensors(i).items()}
    save_file(flat, tmp_path / "w.safetensors")
    assert same(read_checkpoint(tmp_path / "w.safetensors", "b").tensors, tensors(1))
    with pytest.raises(
        RequestError, match=r"nothing under 'c'; its tensors' names begin with a, b"
    ):
        read_checkpoint(tmp_path / "w.safetensors", "c")


def test_unknown_containers_are_named_not_guessed(tmp_path):
    path = save({"my_ema": tensors(), "epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(
        RequestError, match=rf"holds no tensors; there is also my_ema \(2 tensors\): {ELSE}"
    ):
        read_checkpoint(path)


def test_a_part_is_named_behind_the_file(tmp_path):
    description = describe("test_vit", None)
    path = save({"model": tensors(1), "ema": tensors(2)}, tmp_path / "w.pt")
    weights = find_weights(description, f"{path}:ema", 0, download=False)
    assert weights == Weights(path, part="ema")
    # A file that has the colon in its own name is that file.
    odd = save(tensors(3), tmp_path / "w.pt:ema")
    assert find_weights(description, f"{path}:ema", 0, download=False) == Weights(odd)
    with pytest.raises(RequestError, match=r"no weight file at .*x\.pt:ema; .*FILE:KEY"):
        find_weights(description, f"{tmp_path / 'x.pt'}:ema", 0, download=False)


def test_the_command_says_which_part_it_takes(tmp_path, write_npz, capsys):
    torch.manual_seed(0)
    raw = timm.create_model("test_vit", num_classes=0).state_dict()
    averaged = {name: tensor + 0.01 for name, tensor in raw.items()}
    path = save({"state_dict": raw, "state_dict_ema": averaged}, tmp_path / "w.pt")
    data = write_npz(tmp_path / "x.npz", counts=(4, 2, 2))
    common = ["--model", "test_vit", "--size", "32", "--data", f"npz:{data}", "--store", "float32"]
    made = []
    for wish, words in (
        (f"{path}", f"weights: taken from 'state_dict_ema'; there is also state_dict .*: {ELSE}"),
        (f"{path}:state_dict", "weights: taken from 'state_dict', as asked"),
    ):
        root = tmp_path / f"f{len(made)}"
        assert main([*common, "--weights", wish, "--features", str(root)]) == 0
        out = capsys.readouterr().out
        assert re.search(words, out)
        assert re.search(rf"weights +{re.escape(wish)}\n", out)
        made.append(open_features(next(root.rglob("*.h5"))))
    one, other = made
    assert one.key["weights"] != other.key["weights"]
    assert other.notes["weights"] == "w.pt:state_dict"
    assert not np.allclose(one.array(-1, "head"), other.array(-1, "head"))


def test_each_part_has_a_digest_of_its_own(tmp_path):
    memory = DigestMemory(tmp_path / ".digests.json")
    path = save({"model": tensors(1), "ema": tensors(2)}, tmp_path / "w.pt")
    one, other = Weights(path), Weights(path, part="ema")
    assert recall_weights_digest(one, memory) is None
    assert weights_digest(one, memory) != weights_digest(other, memory)
    assert recall_weights_digest(one, memory) == weights_digest(one, memory)
    assert recall_weights_digest(other, memory) == weights_digest(other, memory)


# ---------------------------------------------------------------------------- shards


def write_shards(folder: Path, seed: int = 0) -> Path:
    """Two shards and their index, as huggingface_hub's own splitting writes them."""
    from huggingface_hub import save_torch_state_dict

    folder.mkdir(exist_ok=True)
    save_torch_state_dict(tensors(seed), folder, max_shard_size=4_000)
    assert len(list(folder.glob("model-0000?-of-00002.safetensors"))) == 2
    return folder / "model.safetensors.index.json"


def test_a_folder_of_shards_is_read(tmp_path):
    index = write_shards(tmp_path / "m")
    description = describe("test_vit", None)
    for wish in (tmp_path / "m", index):
        weights = find_weights(description, str(wish), 0, download=False)
        assert weights == Weights(index)
    assert same(read_checkpoint(index).tensors, tensors())


def test_a_changed_shard_is_noticed_though_its_index_is_the_same(tmp_path):
    index = write_shards(tmp_path / "m")
    memory = DigestMemory(tmp_path / ".digests.json")
    before = weights_digest(Weights(index), memory)
    assert recall_weights_digest(Weights(index), memory) == before
    text = index.read_bytes()
    write_shards(tmp_path / "m", seed=1)
    assert index.read_bytes() == text
    assert weights_digest(Weights(index), memory) != before


def test_shards_that_do_not_fit_their_index_are_refused(tmp_path):
    index = write_shards(tmp_path / "m")
    content = json.loads(index.read_text())
    gone = tmp_path / "m" / content["weight_map"]["a.bias"]
    whole = gone.read_bytes()
    gone.unlink()
    with pytest.raises(RequestError, match=rf"names {gone.name}, which isn't beside it"):
        read_checkpoint(index)
    gone.write_bytes(whole)
    content["weight_map"]["more"] = gone.name
    index.write_text(json.dumps(content))
    with pytest.raises(RequestError, match=r"its shards lack 1 tensors \(more, "):
        read_checkpoint(index)
    for bad in ("../secret.safetensors", "/etc/passwd", 3, "", ".."):
        index.write_text(json.dumps({"weight_map": {"a": bad}}))
        with pytest.raises(RequestError, match=r"which isn't a safetensors file beside it"):
            read_checkpoint(index)
    for text in ("{}", "[]", "x", "[" * 100_000, '{"weight_map": 3}', '{"weight_map": {"a": []}}'):
        index.write_text(text)
        with pytest.raises(RequestError, match="isn't an index of safetensors files"):
            read_checkpoint(index)


# ---------------------------------------------------------------------------- hostile files


def rewrite(
    source: Path, path: Path, edit: Callable[[str, bytes], bytes], called: str = "data.pkl"
) -> Path:
    """A zip anew, with valid checksums."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.infolist():
            name = member.filename.replace("data.pkl", called)
            new.writestr(name, edit(member.filename, old.read(member)))
    return path


def long(n: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", n)


def of_torch(path: Path) -> Path:
    return save({"a": torch.arange(100.0), "b": torch.ones(7)}, path)


def zip_bomb(path: Path) -> Path:
    """100 MB of zeros in 100 kB, written without ever having them."""
    with zipfile.ZipFile(of_torch(path.with_suffix(".a"))) as old:
        content = {member.filename: old.read(member) for member in old.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, data in content.items():
            with new.open(name, "w") as member:
                for part in [data] if not name.endswith("data/0") else [bytes(1 << 20)] * 100:
                    member.write(part)
    return path


def beyond(n: int) -> Callable[[Path], Path]:
    """A tensor of n numbers over a storage of 100, which says that it has n."""

    def edit(name: str, content: bytes) -> bytes:
        if not name.endswith("data.pkl"):
            return content
        assert content.count(b"K\x64") == 2
        return content.replace(b"K\x64", long(n))

    return lambda path: rewrite(of_torch(path.with_suffix(".a")), path, edit)


def of_old_torch(path: Path) -> Path:
    """The format before zip, with a storage of 2^36 numbers."""
    torch.save({"a": torch.arange(100.0)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"K\x64", long(1 << 36)))
    return path


def calls(text: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.write_bytes(b"\x80\x02" + text)
        return path

    return write


def in_zip(text: bytes, called: str = "data.pkl") -> Callable[[Path], Path]:
    def edit(name: str, content: bytes) -> bytes:
        return b"\x80\x02" + text if name.endswith("data.pkl") else content

    return lambda path: rewrite(of_torch(path.with_suffix(".a")), path, edit, called)


def holds_itself(path: Path) -> Path:
    content: dict[str, Any] = {}
    content["model"] = content
    return save(content, path)


def wide(path: Path) -> Path:
    """A safetensors header that declares 4 TB."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}})
    path = path.with_suffix(".safetensors")
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(400))
    return path


def hexes(n: int) -> bytes:
    """16 bytes, doubled n times: hex of hex of hex."""

    def words(text: bytes) -> bytes:
        return b"X" + struct.pack("<i", len(text)) + text

    text = b"c_codecs\nencode\nq\x00" + words(b"a" * 16) + words(b"latin1") + b"\x86R"
    return text + (b"q\x01h\x00h\x01" + words(b"hex") + b"\x86R") * n + b"."


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a zip bomb": (zip_bomb, "it would unpack to .* bytes, more than it has"),
    "an expanded tensor of 4 TB": (
        lambda path: save({"a": torch.zeros(1).expand(1 << 40)}, path),
        r"claims 4_398_046_511_104 bytes of weights \(a is \(1099511627776,\)",
    ),
    "a thousand expanded ones": (
        lambda path: save({f"a{i}": torch.zeros(1).expand(1 << 24) for i in range(1000)}, path),
        r"claims 67_108_864_000 bytes",
    ),
    "a shape beyond the file": (beyond(1_000_000), "isn't a readable weight file: record size"),
    "a shape of 4 TB": (beyond(1 << 40), "isn't a readable weight file: record size"),
    "an old file of 256 GB": (of_old_torch, "isn't a readable weight file"),
    "a byte array of 1 TB": (
        calls(b"cbuiltins\nbytearray\n" + long(1 << 40) + b"\x85R."), "pickled code is never run",
    ),
    "a byte array in a zip": (
        in_zip(b"cbuiltins\nbytearray\n" + long(1 << 40) + b"\x85R."), "pickled code is never run",
    ),
    "a byte array in a zip, by a name that torch finds all the same": (
        in_zip(b"cbuiltins\nbytearray\n" + long(1 << 40) + b"\x85R.", "DATA.pkl"),
        "pickled code is never run",
    ),
    "hex of hex of hex": (calls(hexes(36)), "pickled code is never run"),
    "a dictionary that holds itself": (holds_itself, "holds no tensors"),
    "a header that declares 4 TB": (wide, "isn't a readable weight file"),
}  # fmt: skip


@contextlib.contextmanager
def peak_memory() -> Iterator[Callable[[], int]]:
    """How many bytes more than at the start the process had at any moment."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        pytest.skip("no /proc/self/clear_refs, by which the peak can be set back")

    def peak() -> int:
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) << 10

    reset.write_text("5")
    before = peak()
    yield lambda: peak() - before


def test_the_peak_of_memory_is_seen():
    with peak_memory() as peak:
        assert torch.ones(32 << 20).sum() > 0
        assert peak() > 100 << 20


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_are_one_line_and_take_no_memory(tmp_path, what):
    make, match = HOSTILE[what]
    path = make(tmp_path / "w.pt")
    assert path.stat().st_size < 1_000_000
    of_torch(tmp_path / "other.pt")
    read_checkpoint(tmp_path / "other.pt")  # whatever is imported late
    with peak_memory() as peak, pytest.raises(RequestError, match=match) as caught:
        read_checkpoint(path)
    assert peak() < 64 << 20
    assert "\n" not in str(caught.value)


def test_what_is_normal_in_a_file_is_no_bomb(tmp_path):
    """Tied weights under several names, a view of a part, whatever torch can save compactly."""
    whole = torch.randn(64, 64)
    content = {"a": whole, "b": whole, "c": whole.t(), "d": whole[3], "e": torch.tensor(1.0)}
    assert same(read_checkpoint(save(content, tmp_path / "w.pt")).tensors, content)
    old = tmp_path / "old.pth"
    torch.save(content, old, _use_new_zipfile_serialization=False)
    assert same(read_checkpoint(old).tensors, content)


def test_a_trained_state_is_read_by_the_same_check(tmp_path):
    path = of_torch(tmp_path / "last.pt")
    check_zip(path)
    flip(path, path.read_bytes().index(torch.arange(100.0).numpy().tobytes()) + 7, 6)
    with pytest.raises(ValueError, match="doesn't match its checksum"):
        check_zip(path)


def test_the_pickles_here_would_do_what_they_say():
    """Else they could be refused for being no pickles at all."""
    assert pickle.loads(b"\x80\x02cbuiltins\nbytearray\n" + long(9) + b"\x85R.") == bytearray(9)
    assert len(pickle.loads(b"\x80\x02" + hexes(5))) == 16 << 5
