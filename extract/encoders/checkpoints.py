"""Reading weight files: safely, strictly, and with a digest of what was read.

timm loads non-strictly when a headless model meets a checkpoint with a classifier, so a ResNet's
file "loads" into a ViT and leaves it random. Here a file is read by us (no pickled code), its
names are mapped by a named rule, the classifier is dropped by name, and what remains must fit the
model exactly.
"""

import hashlib
import importlib.metadata
import importlib.util
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cache import RequestError
from extract.network import offline, why_unreachable

CONTAINERS = ("state_dict", "model", "model_state_dict")  # sub-dictionaries that trainers write


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a weight file, by name, on the CPU.

    Args:
        path: ``.safetensors``, or a file of ``torch.save``, read with ``weights_only``: pickled
            code never runs.

    Raises:
        RequestError: missing, damaged, holds pickled objects, or holds no tensors.
    """
    if not path.is_file():
        raise RequestError(
            f"no weight file at {path}; --weights takes pretrained, random or a file"
        )
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            with warnings.catch_warnings():
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
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise RequestError(f"{path} holds no tensors; expected a state_dict")
    return tensors


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the sorted (name, dtype, shape, bytes) of the tensors, 64 hex digits."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _strip_module(tensors: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    return {name.removeprefix("module."): value for name, value in tensors.items()}


def _in_order(tensors: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The i-th tensor of the file is the i-th of the model with its classifier."""
    names = list(model.state_dict())
    extra = list(tensors)[len(names) :]  # what a headless model lacks comes last
    names += [f"classifier.{name}" for name in extra]
    return dict(zip(names, tensors.values(), strict=False))  # a short file is refused as missing


KEY_RULES: dict[str, Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]]] = {
    "in order": _in_order,
    "strip 'module.'": _strip_module,  # torch.nn.DataParallel's prefix
}


def load_strictly(
    model: nn.Module,
    tensors: dict[str, Tensor],
    *,
    source: str,
    classifier: tuple[str, ...],
    filter_fn: Callable[..., dict[str, Tensor]] | None,
    key_rule: str | None = None,
) -> list[str]:
    """Put a checkpoint into a headless model, all of it, or refuse.

    Args:
        model: without its classifier.
        tensors: as ``read_checkpoint`` gives them.
        source: the file, for messages.
        classifier: module names of the classifier, which the model lacks on purpose.
        filter_fn: timm's ``checkpoint_filter_fn`` of this architecture: it renames keys of the
            original releases and resamples position embeddings.
        key_rule: one of KEY_RULES.

    Returns:
        What was done, in words, for the user to read.

    Raises:
        RequestError: names or shapes don't fit; the message says which.
    """
    said = []
    if key_rule is None and tensors and all(name.startswith("module.") for name in tensors):
        key_rule = "strip 'module.'"
    if key_rule is not None:
        tensors = KEY_RULES[key_rule](tensors, model)
        said.append(f"names mapped by the rule {key_rule!r}")
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


def first_line(error: BaseException) -> str:
    """The first line of an exception's text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# ---------------------------------------------------------------------------- where files are


def package_file(package: str, module: str, inside: str) -> Path:
    """A file that a pip package brought.

    Raises:
        RequestError: the package isn't installed.
    """
    found = importlib.util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        raise RequestError(f"the package {package} isn't installed: pip install 'medprobe[demo]'")
    return Path(next(iter(found.submodule_search_locations))) / inside


def hub_file(config: Any, *, download: bool) -> Path | None:
    """The weight file of a timm configuration, in the hub's usual cache.

    Args:
        config: timm's ``PretrainedCfg``.
        download: fetch it if it isn't there; otherwise None is returned.

    Raises:
        RequestError: there are no weights of this name, or they can't be had now.
    """
    if not config.hf_hub_id:
        raise RequestError(
            f"timm publishes no weights for {config.architecture}.{config.tag or ''} on the hub; "
            "give a file with --weights FILE, or --weights random"
        )
    from huggingface_hub import try_to_load_from_cache

    names = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors"]
    names += ["pytorch_model.bin"]
    for name in names:
        cached = try_to_load_from_cache(config.hf_hub_id, name)
        if isinstance(cached, str):
            return Path(cached)
    if not download:
        return None
    if offline():
        raise RequestError(
            f"{config.hf_hub_id}/{names[0]} isn't in the hub's cache and HF_HUB_OFFLINE is set; "
            "fetch it once with network, or name the file with --weights FILE"
        )
    return _download(config.hf_hub_id, names)


def _download(repository: str, names: list[str]) -> Path:
    """The first of some files that a hub's repository has."""
    from huggingface_hub import hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    # Asked by us first: the hub's own client would try a silent host for minutes.
    reason = why_unreachable(hf_hub_url(repository, names[0]))
    if reason:
        raise RequestError(
            f"can't reach the hub for {repository}/{names[0]} ({reason}); without network, name a "
            "local file with --weights FILE, or use an encoder whose weights are here "
            "(efficientnet-lite0 comes by pip)"
        )
    try:
        for name in names[:-1]:
            try:
                return Path(hf_hub_download(repository, name))
            except EntryNotFoundError:
                continue
        return Path(hf_hub_download(repository, names[-1]))
    except Exception as error:  # the hub's client has a dozen kinds, of three libraries
        raise RequestError(
            f"can't fetch {repository}/{names[0]} ({first_line(error)}); check the network, "
            "or name a local file with --weights FILE"
        ) from error
