"""What training code puts around an encoder's names, taken off by named rules.

A rule applies only where everything then fits: the model is filled whole, and every tensor under
the rule's prefix belongs to it. What lies beside the prefix (heads, queues) is dropped by name and
counted. Where two rules would fit, nobody guesses: the user chooses.
"""

import re
from collections.abc import Callable, Iterator
from typing import TypeVar

from cache import RequestError
from extract.encoders.weights.tensor_names import MODULE, Misfit, Tensors, counted, group

# Modules around modules, at any depth: torch.compile (torch/_dynamo/eval_frame.py), FSDP
# (torch/distributed/fsdp/_common_utils.py: FSDP_WRAPPED_MODULE) and activation checkpoints
# (torch/distributed/algorithms/_checkpoint/checkpoint_wrapper.py: _CHECKPOINT_WRAPPED_MODULE).
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
# What the encoder is called inside a larger module; one may stand in another.
PREFIXES = (
    MODULE,  # torch.nn.DataParallel
    "base_model.model.",  # PEFT, merged; before "model."
    "model.",  # Lightning's usual
    "backbone.",
    "encoder.",
    "net.",
    "teacher.",  # self-distillation: what is evaluated; "student." isn't
)
MAX_DEPTH = 4
# DINOv2's blocks in chunks: the second number is the block's own (see the layout "dinov2").
CHUNKED = re.compile(r"blocks\.\d+\.(\d+\.)")

T = TypeVar("T")


def unwrap(
    tensors: Tensors, attempt: Callable[[Tensors], tuple[T, list[str]]], source: str
) -> tuple[T, list[str]]:
    """Fit a file's tensors as they are, or else under the one wrapping where all fit.

    Args:
        tensors: as ``files.read_checkpoint`` gives them.
        attempt: fits tensors strictly; gives what they made and what was done, in words.
        source: the file, for messages.

    Returns:
        What ``attempt`` made of them, and what was done, in words.

    Raises:
        Misfit: they fit in no way; of all attempts the one that came nearest is told.
        RequestError: they fit in two ways.
    """
    tensors, said = _without_wrappers(tensors)
    fits: dict[str, tuple[T, list[str]]] = {}
    errors: list[Misfit] = []
    for prefix in ("", *_prefixes(tensors)):
        if any(prefix.startswith(shorter) for shorter in fits):
            continue  # it fits without going further
        inside = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        beside = [group(n, prefix) for n in tensors if not n.startswith(prefix)]
        rules = [f"strip {prefix!r}"] if prefix else []
        for candidate, words in ((inside, rules), (_unchunked(inside), [*rules, "join chunks"])):
            if candidate is None:
                continue
            try:
                made, more = attempt(candidate)
            except Misfit as error:
                errors.append(error)
                continue
            words = [f"names mapped by the rule {rule!r}" for rule in words]
            dropped = [f"dropped: {counted(beside)}"] if beside else []
            fits[prefix] = made, [*said, *words, *dropped, *more]
            break
    if not fits:
        raise max(errors, key=lambda error: error.n_fitting)  # the first of equals: the plain one
    if len(fits) > 1:
        ways = [prefix.removesuffix(".") for prefix in fits]
        raise RequestError(
            f"{source} holds {len(fits)} encoders that fit: {', '.join(ways)}; choose one with "
            f"--weights FILE:{ways[0]}"
        )
    return next(iter(fits.values()))


def _without_wrappers(tensors: Tensors) -> tuple[Tensors, list[str]]:
    """Wrappers of torch's own are no part of any name; two that become one are left alone."""
    said: list[str] = []
    for wrapper in WRAPPERS:
        names = {n: re.sub(rf"(^|\.){re.escape(wrapper)}", r"\1", n) for n in tensors}
        if names.keys() != set(names.values()) and len(set(names.values())) == len(names):
            tensors = {names[name]: tensor for name, tensor in tensors.items()}
            said.append(f"names mapped by the rule {f'strip {wrapper!r}'!r}")
    return tensors, said


def _prefixes(tensors: Tensors) -> Iterator[str]:
    """Every chain of PREFIXES with which a name begins, shorter ones first."""
    found: dict[str, None] = {}
    for name in tensors:
        chain = ""
        for _ in range(MAX_DEPTH):
            rest = name[len(chain) :]
            step = next((prefix for prefix in PREFIXES if rest.startswith(prefix)), None)
            if step is None:
                break
            chain += step
            found.setdefault(chain)
    yield from sorted(found, key=len)


def _unchunked(tensors: Tensors) -> Tensors | None:
    """Blocks out of their chunks; None where they are in none."""
    blocks = [name for name in tensors if name.startswith("blocks.")]
    if not blocks or not all(CHUNKED.match(name) for name in blocks):
        return None
    names = {name: CHUNKED.sub(r"blocks.\1", name, count=1) for name in tensors}
    if len(set(names.values())) < len(names):
        return None
    return {names[name]: tensor for name, tensor in tensors.items()}
