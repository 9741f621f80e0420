"""Reading weight files: safely, strictly, and with a digest of what was read.

timm loads non-strictly when a headless model meets a checkpoint with a classifier, so a ResNet's
file "loads" into a ViT and leaves it random. Here a file is read by us (no pickled code), its
names are mapped by a named layout (see layouts.py), the classifier is dropped by name, and what
remains must fit the model exactly.
"""

import argparse
import hashlib
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.serialization import safe_globals

from cache import RequestError
from cache.names import first_line
from extract.encoders.layouts import LAYOUTS, apply_layout, detect_layout

# Sub-dictionaries that trainers write: the usual ones, and those of particular releases.
CONTAINERS = (
    "state_dict",
    "model",
    "model_state_dict",
    *(layout.container for layout in LAYOUTS.values() if layout.container),
)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a weight file, by name, on the CPU.

    Args:
        path: ``.safetensors``, or a file of ``torch.save``, read with ``weights_only``: pickled
            code never runs.

    Raises:
        RequestError: missing, damaged, holds pickled objects, holds no tensors, or tensors that
            aren't plain ones.
    """
    if not path.is_file():
        raise RequestError(
            f"no weight file at {path}; --weights takes pretrained, random or a file"
        )
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            # DINO's and fairseq's trainers (BiomedGPT, OFA) keep their command line beside the
            # tensors. A Namespace is plain data: unpickling one makes an empty object and sets its
            # attributes, and what these hold passes the same strict reader. Nothing else is added.
            with warnings.catch_warnings(), safe_globals([argparse.Namespace]):
                warnings.simplefilter("ignore")  # about how the file was pickled, years ago
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RequestError(
            f"{path} holds pickled objects or isn't a weight file, and pickled code is never run; "
            "save its state_dict alone (safetensors.torch.save_file) and give that file"
        ) from error
    except Exception as error:  # a garbled pickle can break its reader in any way
        if isinstance(error, OSError) and error.filename:
            raise  # the disk, not the content
        raise RequestError(f"{path} isn't a readable weight file: {first_line(error)}") from error
    for name in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping):
        raise RequestError(f"{path} holds a {type(content).__name__}, not named tensors")
    tensors = {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not tensors:
        raise RequestError(f"{path} holds no tensors; expected a state_dict")
    for name, value in tensors.items():
        _check_plain(name, value, f"{path}: ")
    return tensors


def _check_plain(name: str, tensor: Tensor, where: str = "") -> None:
    """Refuse tensors whose values aren't simply their bytes in a row."""
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


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the sorted (name, dtype, shape, bytes) of the tensors, 64 hex digits.

    Strides, storage and device make no difference, only the values do.

    Raises:
        RequestError: a tensor is sparse, quantised or without values.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        _check_plain(name, tensors[name])
        # A conjugated or negated view keeps its sign in a flag; resolving writes it into the bytes.
        tensor = tensors[name].detach().cpu().resolve_conj().resolve_neg().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        if tensor.numel():
            # As bytes, for numpy has no bfloat16. By strides and not by reshape, which leaves a
            # single number its stride of before, and that can't be viewed as bytes.
            flat = tensor.as_strided((tensor.numel(),), (1,))
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_strictly(
    model: nn.Module,
    tensors: dict[str, Tensor],
    *,
    source: str,
    classifier: tuple[str, ...],
    filter_fn: Callable[..., dict[str, Tensor]] | None,
    layout: str | None = None,
) -> list[str]:
    """Put a checkpoint into a headless model, all of it, or refuse.

    Args:
        model: without its classifier.
        tensors: as ``read_checkpoint`` gives them.
        source: the file, for messages.
        classifier: module names of the classifier, which the model lacks on purpose.
        filter_fn: timm's ``checkpoint_filter_fn`` of this architecture: it renames keys of the
            original releases and resamples position embeddings.
        layout: how the file names its tensors, one of LAYOUTS; None recognises it by its names.

    Returns:
        What was done, in words, for the user to read.

    Raises:
        RequestError: names or shapes don't fit; the message says which.
    """
    said: list[str] = []
    layout = layout or detect_layout(tensors)
    if layout is not None:
        tensors, said = apply_layout(layout, tensors, model, source=source)
    tensors = {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}
    if filter_fn is not None:
        try:
            tensors = filter_fn(tensors, model)
        except Exception as error:  # another architecture's file can break a filter in any way
            raise _refusal(
                source, model, [f"{type(error).__name__}: {first_line(error)}"]
            ) from error
    dropped = [name for name in tensors if name.startswith(tuple(f"{c}." for c in classifier))]
    own = model.state_dict()
    dropped = [name for name in dropped if name not in own]
    if dropped:
        said.append(f"classifier dropped ({', '.join(dropped)})")
    kept = {name: value for name, value in tensors.items() if name not in dropped}
    missing = [n for n in own if n not in kept and not n.endswith("num_batches_tracked")]
    unexpected = [name for name in kept if name not in own]
    misfits = [
        f"{name} is {tuple(kept[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in kept and kept[name].shape != own[name].shape
    ]
    if missing or unexpected or misfits:
        faults = misfits[:2]
        if missing:
            faults.append(f"{len(missing)} of {len(own)} tensors are missing ({_some(missing)})")
        if unexpected:
            faults.append(f"{len(unexpected)} don't belong ({_some(unexpected)})")
        raise _refusal(source, model, faults)
    # BatchNorm's step counter is absent from old files and changes nothing in eval mode.
    counters = {n: own[n] for n in own if n not in kept}
    model.load_state_dict({**counters, **kept}, strict=True)
    return said


def _refusal(source: str, model: nn.Module, faults: list[str]) -> RequestError:
    return RequestError(
        f"{source} doesn't fit {type(model).__name__}: {'; '.join(faults)}; "
        "give the file of this very architecture, or choose the --model it belongs to"
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
