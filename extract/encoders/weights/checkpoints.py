"""Putting weights into models: strictly, and with a digest of what was read.

timm loads non-strictly when a headless model meets a checkpoint with a classifier, so a ResNet's
file "loads" into a ViT and leaves it random. Here a file is read by us (see files.py), its
names are mapped by a named layout (see tensor_names.py) and named rules (see wrappings.py), the
classifier is dropped by name, and what remains must fit the model exactly.
"""

import hashlib
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from cache.commands.names import first_line
from extract.encoders.weights.files import check_plain
from extract.encoders.weights.tensor_names import (
    Misfit,
    apply_layout,
    counted,
    detect_layout,
    group,
    name_faults,
)
from extract.encoders.weights.wrappings import unwrap

COUNTER = "num_batches_tracked"  # of BatchNorm: absent from old files, and of no use in eval mode


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the sorted (name, dtype, shape, bytes) of the tensors, 64 hex digits.

    Strides, storage and device make no difference, only the values do.

    Raises:
        RequestError: a tensor is sparse, quantised or without values.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        check_plain(name, tensors[name])
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
    fit = partial(_fit, model, source, classifier, filter_fn, layout)
    fitting, said = unwrap(tensors, fit, source)
    model.load_state_dict(fitting, strict=True)
    return said


def _fit(
    model: nn.Module,
    source: str,
    classifier: tuple[str, ...],
    filter_fn: Callable[..., dict[str, Tensor]] | None,
    layout: str | None,
    tensors: dict[str, Tensor],
) -> tuple[dict[str, Tensor], list[str]]:
    """The model's whole state from a file's tensors, and what was done.

    Raises:
        Misfit: names, shapes or types don't fit.
    """
    said: list[str] = []
    given = tensors
    layout = layout or detect_layout(tensors)
    if layout is not None:
        tensors, said = apply_layout(layout, tensors, model, source=source)
    tensors = {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}
    if filter_fn is not None:
        try:
            tensors = _filtered(filter_fn, tensors, model)
        except Exception as error:  # another architecture's file can break a filter in any way
            faults = [f"{type(error).__name__}: {first_line(error)}"]
            raise _refusal(source, model, faults, given) from error
    own = model.state_dict()
    modules = tuple(f"{c}." for c in classifier)
    dropped = [name for name in tensors if name.startswith(modules) and name not in own]
    if dropped:
        said.append(f"classifier dropped ({', '.join(dropped)})")
    kept = {name: value for name, value in tensors.items() if name not in dropped}
    faults, n_fitting = compare(kept, own)
    if faults:
        raise _refusal(source, model, faults, given, n_fitting)
    return {n: own[n] for n in own if n not in kept} | kept, said


def _filtered(
    filter_fn: Callable[..., dict[str, Tensor]], tensors: dict[str, Tensor], model: nn.Module
) -> dict[str, Tensor]:
    """Call a filter as timm's ``load_pretrained`` does: some take the tensors alone."""
    try:
        return filter_fn(tensors, model)
    except TypeError as error:
        try:
            return filter_fn(tensors)
        except TypeError:
            raise error from None


def compare(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[list[str], int]:
    """A file's tensors beside a model's, by name.

    Returns:
        Why they don't fit, in words, [] where they do; and how many of the model's do.
    """
    missing = [n for n in own if n not in given and not n.endswith(COUNTER)]
    misfits = [fault for n in own if n in given for fault in _misfit(n, given[n], own[n])]
    faults = misfits[:2] + name_faults(missing, len(own), [n for n in given if n not in own])
    return faults, len(own) - len(missing) - len(misfits)


def _misfit(name: str, given: Tensor, own: Tensor) -> list[str]:
    """Why a file's tensor can't be a model's, in words; [] where it can.

    A number of another kind would be cast without a word: whole numbers, truth values and complex
    numbers aren't trained weights.
    """
    if given.shape != own.shape:
        return [f"{name} is {tuple(given.shape)} instead of {tuple(own.shape)}"]
    if given.is_floating_point() == own.is_floating_point() and not given.is_complex():
        return []
    if name.endswith(COUNTER):
        return []
    return [f"{name} is of {_type(given)} instead of {_type(own)}"]


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _refusal(
    source: str,
    model: nn.Module,
    faults: list[str],
    given: Mapping[str, Tensor],
    n_fitting: int = 0,
) -> Misfit:
    there = counted(group(name, "") for name in given)
    return Misfit(
        f"{source} doesn't fit {type(model).__name__}: {'; '.join(faults)}; it holds {there}; "
        "give the file of this very architecture, or choose the --model it belongs to",
        n_fitting,
    )
