"""What every library's encoders are to the rest of ``extract``: an outline, and a network."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from extract.encoders.anatomy import Anatomy, Statistics
from extract.encoders.weights.published import Place


class Network:
    """A model with its weights, run in the one way that every library's models share.

    Args:
        module: the model; its named modules are tapped.
        norm: its norm behind the last layer, of tokens or of pooled vectors, where it has just one.
    """

    def __init__(self, module: nn.Module, norm: nn.Module | None = None) -> None:
        self.module, self.norm = module, norm

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """One plain forward pass, which runs every tapped module once.

        Args:
            images: (B, 3, size, size), normalised.

        Returns:
            What there is of "head" and "proj", (B, D) each.
        """
        raise NotImplementedError

    def norm_tokens(self, tokens: Tensor) -> Tensor:
        """The encoder's final norm on one block's tokens (norm rule "tokens")."""
        assert self.norm is not None
        return self.norm(tokens)

    def norm_pooled(self, vectors: Tensor) -> Tensor:
        """The encoder's own norm of a pooled vector (norm rule "pooled")."""
        return self.norm_tokens(vectors)

    def norm_stage(self, layer: int, features: Tensor) -> Tensor:
        """The norm of one stage's map (norm rules "each stage", "last stage")."""
        raise NotImplementedError

    @property
    def final_norms(self) -> list[nn.Module]:
        """The encoder's own norms behind its last layer."""
        return [] if self.norm is None else [self.norm]

    def file_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors named as in ``module.state_dict()``, under the names that a file has.

        ``Outline.load`` takes such a file.
        """
        return dict(tensors)

    def maps(self, images: Tensor, last_normed: bool) -> tuple[Mapping[str, Tensor], list[Tensor]]:
        """For models without taps: a forward pass that keeps every map, (B, D, H, W) each."""
        raise NotImplementedError


@contextmanager
def recording(modules: Mapping[str, nn.Module]) -> Iterator[list[tuple[str, Any]]]:
    """Note the name and the output of each of some modules, in the order of running."""
    runs: list[tuple[str, Any]] = []

    def note(name: str, module: nn.Module, inputs: object, output: object) -> None:
        runs.append((name, output))

    handles = [m.register_forward_hook(partial(note, name)) for name, m in modules.items()]
    try:
        yield runs
    finally:
        for handle in handles:
            handle.remove()


Loaded = tuple[Network, list[str]]  # and what was done, in words
Load = Callable[[dict[str, Tensor], str, str | None], Loaded]


@dataclass(frozen=True)
class Outline:
    """What a library knows of one encoder at one input size, before any weight is read."""

    size: int  # side of the input, pixels
    own_size: int  # what the encoder was made for
    arguments: dict[str, Any]  # what the architecture gets besides its name; part of the key
    statistics: Statistics | None  # None: nobody says
    anatomy: Anatomy
    build: Callable[[], Network]  # with random weights
    place: Place | None = None  # of the published weights
    # Tensors by name, the file's name for messages, the layout -> the network, and what was done.
    load: Load | None = None  # None: the weights are made with the network, by somebody's own code
    licence: str = ""
