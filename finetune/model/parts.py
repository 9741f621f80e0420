"""Where in an encoder each parameter works: found by running it once, not by its name.

The question has one answer for every architecture: a parameter belongs to the first layer whose
output depends on it. The graph that autograd keeps of one forward pass says which these are. It
also says which parameters the head's input doesn't depend on at all (the projection of a CLIP whose
class token is read): these don't train, and DDP would wait for their gradients.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from finetune.model.reading import Reader

STEM = -1  # before the first layer: patch embedding, positions, class token


@dataclass(frozen=True)
class Parts:
    """Parameters and modules of an encoder by layer.

    ``STEM`` is what comes before layer 0, ``n_layers`` what comes after the last one. Where layer 0
    is no block with parameters of its own but the end of a stem (ResNet's first activation), the
    stem is layer 0.
    """

    n_layers: int
    known: bool  # False: no module's output is a layer, and all parameters stand at layer 0
    parameters: dict[str, int]  # only those that the head's input depends on
    modules: dict[str, int]  # those without children, where they run
    shape: tuple[int, ...]  # of what the head sees of one image: (D,), or (T, D)


def find_parts(reader: Reader, size: int) -> Parts:
    """Run an encoder on one image and see what depends on what.

    Args:
        reader: of an encoder on any device; the meta device is enough.
        size: side of the image, pixels.
    """
    encoder, anatomy = reader.encoder, reader.anatomy
    taps = [tap.module for tap in anatomy.taps]
    trained = {name: p.requires_grad for name, p in encoder.named_parameters()}
    encoder.requires_grad_(True).eval()
    ends: list[Any] = []  # autograd's node of each layer's output, as far as they have run
    modules: dict[str, int] = {}

    def end(module: object, inputs: object, output: Any) -> None:
        ends.append((output[0] if isinstance(output, tuple) else output).grad_fn)

    def start(name: str) -> Callable[..., None]:
        def hook(module: object, inputs: object) -> None:
            modules.setdefault(name, len(ends))

        return hook

    parameter = next(encoder.parameters())
    images = torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype)
    with ExitStack() as stack:
        for name in taps:
            hook = encoder.get_submodule(name).register_forward_hook(end)
            stack.callback(hook.remove)
        for name, module in encoder.named_modules():
            if not any(True for _ in module.children()):
                stack.callback(module.register_forward_pre_hook(start(name)).remove)
        with torch.enable_grad():
            seen = reader(images)
    parts = _depths(encoder, ends, seen)
    for name, p in encoder.named_parameters():
        p.requires_grad_(trained[name])
    if taps and any(True for _ in encoder.get_submodule(taps[0]).parameters()):
        for found in (parts, modules):
            for name, layer in found.items():
                if layer == 0 and not name.startswith(f"{taps[0]}."):
                    found[name] = STEM
    return Parts(anatomy.n_layers, bool(taps), parts, modules, tuple(seen.shape[1:]))


def _depths(encoder: nn.Module, ends: list[Any], seen: Tensor) -> dict[str, int]:
    """The first layer that each parameter reaches, of those that reach what the head sees."""
    names = {id(p): name for name, p in encoder.named_parameters()}
    needed = {id(p) for p in _leaves(seen.grad_fn, set())}
    parts: dict[str, int] = {}
    visited: set[Any] = set()
    # Without layers, what the head sees stands for the only one.
    for layer, node in enumerate([*ends, seen.grad_fn]):
        for leaf in _leaves(node, visited):
            if id(leaf) in needed and id(leaf) in names:
                parts.setdefault(names[id(leaf)], layer)
    return parts


def _leaves(node: Any, visited: set[Any]) -> Iterator[Tensor]:
    """The parameters that an output depends on; ``visited`` nodes are passed over, and added to."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        waiting.extend(before for before, _ in node.next_functions)
