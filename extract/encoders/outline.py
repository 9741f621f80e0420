"""What every library's encoders are to the rest of ``extract``: an outline, and a network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from extract.encoders.anatomy import Anatomy, Statistics
from extract.encoders.weights.published import Place


class Network:
    """A model with its weights, run in the one way that every library's models share.

    Args:
        module: the model; its named modules are tapped.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

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
        raise NotImplementedError

    def norm_pooled(self, vectors: Tensor) -> Tensor:
        """The encoder's own norm of a pooled vector (norm rule "pooled")."""
        raise NotImplementedError

    def norm_stage(self, layer: int, features: Tensor) -> Tensor:
        """The norm of one stage's map (norm rules "each stage", "last stage")."""
        raise NotImplementedError

    @property
    def final_norms(self) -> list[nn.Module]:
        """The encoder's own norms behind its last layer."""
        return []

    def file_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors named as in ``module.state_dict()``, under the names that a file has.

        ``Outline.load`` takes such a file.
        """
        return dict(tensors)

    def maps(self, images: Tensor, last_normed: bool) -> tuple[Mapping[str, Tensor], list[Tensor]]:
        """For models without taps: a forward pass that keeps every map, (B, D, H, W) each."""
        raise NotImplementedError


Load = Callable[[dict[str, Tensor], str, str | None], tuple[Network, list[str]]]


@dataclass(frozen=True)
class Outline:
    """What a library knows of one encoder at one input size, before any weight is read."""

    size: int  # side of the input, pixels
    own_size: int  # what the encoder was made for
    arguments: dict[str, Any]  # what the architecture gets besides its name; part of the key
    statistics: Statistics | None  # None: nobody says
    anatomy: Anatomy
    place: Place | None  # of the published weights
    build: Callable[[], Network]  # with random weights
    # Tensors by name, the file's name for messages, the layout -> the network, and what was done.
    load: Load | None  # None: the weights are made with the network, by somebody's own code
    licence: str = ""
