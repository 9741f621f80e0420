"""Reading weight files: no code runs, no damage passes, and memory stays near the file's own size.

``.safetensors``, files of ``torch.save`` (``.pt``, ``.pth``, ``.bin``), and shards named by a
``.safetensors.index.json``, as Hugging Face's libraries write large models. Training checkpoints
hold several sets of weights: which one is taken, and what else is there, is said.
"""

import argparse
import hashlib
import json
import mmap
import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from torch.serialization import safe_globals

from cache import RequestError
from cache.commands.names import first_line
from extract.encoders.weights.published import INDEX, SHARD, shard_names
from extract.encoders.weights.tensor_names import LAYOUTS
from extract.machine.digests import file_sha256

# Sub-dictionaries that trainers write. Averaged weights come before raw ones; the first four are
# those that timm knows, in its order (timm/models/_helpers.py: load_state_dict).
CONTAINERS = (
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "model",
    "model_state_dict",
    "model_state",
    "params_ema",
    "params",
    *(layout.container for layout in LAYOUTS.values() if layout.container),
    "module",
)
CHECKSUM = "medprobe_crc32"  # in the metadata of finetune's safetensors; the format has none
# Values of all tensors together, in bytes, for each byte of the file. Tied weights are counted
# once for each of their names; a tensor that repeats one number (stride 0) can claim terabytes.
MAX_EXPANSION = 8
# What torch's reader would call, and what can ask it for any amount of memory: bytearray(10**12),
# and codecs that double their input ("hex") again and again. State dicts have neither.
BOMBS = (b"bytearray", b"_codecs")
BAD_CHECKSUM = (
    "doesn't match its checksum, so the file is damaged; get it again (or, if it was saved under "
    "torch.serialization.set_crc32_options(False), save it anew)"
)


@dataclass(frozen=True)
class Checkpoint:
    """The weights of a file."""

    tensors: dict[str, Tensor]  # by name, on the CPU
    said: tuple[str, ...] = ()  # which part of the file they are, and what else it holds


def read_checkpoint(path: Path, part: str = "") -> Checkpoint:
    """The tensors of a weight file.

    Args:
        path: ``.safetensors``, its index of shards, or a file of ``torch.save``, read with
            ``weights_only``: pickled code never runs.
        part: a sub-dictionary of a training checkpoint ("teacher", or "a.b" inside another), or
            how the names of the wished tensors begin; "" takes the first of CONTAINERS.

    Raises:
        RequestError: missing, damaged, holds pickled objects, holds no tensors, or tensors that
            aren't plain ones. Old files of ``torch.save`` (before torch 1.6) and safetensors have
            no checksums of their own; those of the hub's cache are named by theirs.
    """
    if not path.is_file():
        raise RequestError(
            f"no weight file at {path}; --weights takes pretrained, random or a file"
        )
    try:
        _check_hub(path)
        content, n_bytes = _read(path)
    except pickle.UnpicklingError as error:
        raise RequestError(
            f"{path} holds pickled objects or isn't a weight file, and pickled code is never run; "
            "save its state_dict alone (safetensors.torch.save_file) and give that file"
        ) from error
    except RequestError:
        raise
    except Exception as error:  # a garbled pickle can break its reader in any way
        if isinstance(error, OSError) and error.filename:
            raise  # the disk, not the content
        raise RequestError(f"{path} isn't a readable weight file: {first_line(error)}") from error
    if not isinstance(content, Mapping):
        raise RequestError(f"{path} holds a {type(content).__name__}, not named tensors")
    said: list[str] = []
    if part:
        content = _pick(content, part, path)
        said.append(f"taken from {part!r}, as asked")
    content = _choose(content, part, said)
    tensors = dict(_named_tensors(content))
    if not tensors:
        raise RequestError(f"{path} holds no tensors{_elsewhere(content)}; expected a state_dict")
    for name, value in tensors.items():
        check_plain(name, value, f"{path}: ")
    claimed = sum(t.numel() * t.element_size() for t in tensors.values())
    if claimed > MAX_EXPANSION * n_bytes:
        largest = max(tensors, key=lambda name: tensors[name].numel())
        raise RequestError(
            f"{path} of {n_bytes:_} bytes claims {claimed:_} bytes of weights ({largest} is "
            f"{tuple(tensors[largest].shape)}, the same numbers again and again); save tensors "
            "that are contiguous"
        )
    return Checkpoint(tensors, tuple(said))


def stamp(path: Path) -> str:
    """Of the files that an index names, what changes when one of them does; "" for other files.

    Raises:
        RequestError: the index can't be read.
    """
    if not path.name.endswith(INDEX):
        return ""
    facts = [(file, (path.parent / file).stat()) for file in shard_names(path)]
    words = [f"{file} {status.st_size} {status.st_mtime_ns}" for file, status in facts]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


# ---------------------------------------------------------------------------- files


def _read(path: Path) -> tuple[Any, int]:
    """What a file holds, and how many bytes it has."""
    if path.name.endswith(INDEX):
        return _read_shards(path)
    n_bytes = path.stat().st_size
    if path.suffix == SHARD:
        return _read_safetensors(path), n_bytes
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\3\4"  # as torch decides
    if is_zip:
        check_zip(path)
    elif n_bytes:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _refuse_bombs(data)
    # DINO's and fairseq's trainers (BiomedGPT, OFA) keep their command line beside the tensors. A
    # Namespace is plain data: unpickling one makes an empty object and sets its attributes, and
    # what these hold passes the same strict reader. Nothing else is added.
    with warnings.catch_warnings(), safe_globals([argparse.Namespace]):
        warnings.simplefilter("ignore")  # about how the file was pickled, years ago
        return torch.load(path, map_location="cpu", weights_only=True), n_bytes


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        wanted = (file.metadata() or {}).get(CHECKSUM)
    if wanted is not None and wanted != tensors_crc32(tensors):
        raise ValueError("it doesn't match its checksum, so the file is damaged; get it again")
    return tensors


def tensors_crc32(tensors: Mapping[str, Tensor]) -> str:
    """CRC-32 of tensors' bytes by name, against a disk's errors: 8 hex digits."""
    crc = 0
    for name in sorted(tensors):
        flat = tensors[name].detach().cpu().contiguous().flatten().view(torch.uint8)
        crc = zlib.crc32(flat.numpy().data, zlib.crc32(name.encode(), crc))
    return f"{crc:08x}"


def check_zip(path: Path) -> None:
    """Check the envelope of ``torch.save`` before torch opens it: its checksums, which torch
    doesn't compare, and that nothing in it unpacks to more than the file has.

    Raises:
        ValueError, zipfile.BadZipFile: it is damaged, or made to fill the memory.
    """
    with zipfile.ZipFile(path) as file:
        members = file.infolist()
        # torch stores without compressing; members may not share bytes either.
        n_bytes = sum(member.file_size for member in members)
        if n_bytes > path.stat().st_size:
            raise ValueError(f"it would unpack to {n_bytes:_} bytes, more than it has")
        if name := file.testzip():
            raise ValueError(f"{name} {BAD_CHECKSUM}")
        for member in members:
            if member.filename.lower().endswith("data.pkl"):  # torch finds it in any case
                _refuse_bombs(file.read(member))


def _refuse_bombs(pickled: bytes | mmap.mmap) -> None:
    for name in BOMBS:
        if pickled.find(name) >= 0:
            raise pickle.UnpicklingError(f"it calls {name.decode()}")


def _check_hub(path: Path) -> None:
    """Compare a file of the hub's cache with its own name there, which is its SHA-256.

    Raises:
        RequestError: it is damaged.
    """
    blob = path.resolve()
    if not path.is_symlink() or not re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return
    if file_sha256(blob) != blob.name:
        raise RequestError(
            f"{path} is damaged: the SHA-256 of what the hub's cache holds isn't {blob.name}; "
            f"delete {blob} and run again with network"
        )


def _read_shards(index: Path) -> tuple[dict[str, Tensor], int]:
    tensors: dict[str, Tensor] = {}
    n_bytes = 0
    for name in shard_names(index):
        path = index.parent / name
        if not path.is_file():
            raise RequestError(f"{index} names {name}, which isn't beside it; get every shard")
        _check_hub(path)
        shard = _read_safetensors(path)
        if twice := sorted(tensors.keys() & shard.keys()):
            raise RequestError(f"{index}: {twice[0]} is in two shards, of which {name} is one")
        tensors |= shard
        n_bytes += path.stat().st_size
    wanted = json.loads(index.read_text(encoding="utf-8"))["weight_map"].keys()
    if missing := sorted(wanted - tensors.keys()):
        raise RequestError(f"{index}: its shards lack {len(missing)} tensors ({missing[0]}, ...)")
    return tensors, n_bytes


# ---------------------------------------------------------------------------- parts of a file


def _choose(content: Mapping[str, Any], part: str, said: list[str]) -> Mapping[str, Any]:
    """Go into the first of CONTAINERS, as deep as there are any."""
    trail = [part] if part else []
    while len(trail) <= len(CONTAINERS):  # a dictionary may hold itself
        name = next((n for n in CONTAINERS if _is_filled(content.get(n))), None)
        if name is None:
            break
        trail.append(name)
        others = _elsewhere(content, name)
        content = content[name]
        if others:
            said.append(f"taken from {'.'.join(trail)!r}{others}")
    return content


def _is_filled(value: Any) -> bool:
    return isinstance(value, Mapping) and len(value) > 0


def _pick(content: Mapping[str, Any], part: str, path: Path) -> Mapping[str, Any]:
    """The sub-dictionary of that name, or the tensors whose names begin with it.

    Raises:
        RequestError: neither is there.
    """
    found = _walk(content, part)
    if isinstance(found, Mapping):
        return found
    prefix = f"{part}."
    inside = _choose(content, "", [])
    under = {n[len(prefix) :]: t for n, t in _named_tensors(inside) if n.startswith(prefix)}
    if under:
        return under
    names = list(dict.fromkeys(name.partition(".")[0] for name, _ in _named_tensors(inside)))
    words = f"; its tensors' names begin with {', '.join(names[:8])}" if names else ""
    raise RequestError(f"{path} holds nothing under {part!r}{_elsewhere(content)}{words}")


def _walk(content: Mapping[str, Any], part: str) -> Any:
    if part in content:
        return content[part]
    name, _, rest = part.partition(".")
    inner = content.get(name)
    return _walk(inner, rest) if rest and isinstance(inner, Mapping) else None


def _elsewhere(content: Mapping[str, Any], taken: str = "") -> str:
    """What other sub-dictionaries hold tensors, in words."""
    others = [
        f"{name} ({n} tensor{'s' * (n > 1)})"
        for name, value in content.items()
        if name != taken and isinstance(value, Mapping)
        if (n := sum(1 for _ in _named_tensors(value)))
    ]
    if not others:
        return ""
    return f"; there is also {', '.join(others)}: --weights FILE:KEY takes another"


def _named_tensors(content: Mapping[Any, Any]) -> Iterator[tuple[str, Tensor]]:
    for name, value in content.items():
        if isinstance(name, str) and isinstance(value, Tensor):
            yield name, value


def check_plain(name: str, tensor: Tensor, where: str = "") -> None:
    """Refuse tensors whose values aren't simply their bytes in a row.

    Raises:
        RequestError: it is sparse, quantised, nested or without values.
    """
    if tensor.is_quantized:
        kind, cure = "quantised", "its dequantize()"
    elif tensor.layout is not torch.strided:
        kind, cure = "sparse", "its to_dense()"
    elif tensor.is_nested:
        kind, cure = "nested", "its parts one by one"
    elif tensor.is_meta:
        kind, cure = "without values (on the meta device)", "it with its values"
    else:
        return
    raise RequestError(f"{where}{name} is {kind}, and only plain tensors are read; save {cure}")
