"""One frozen encoder: described without weights, then loaded, then run.

Long because what an encoder would give and what it gives stand together.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from cache import RequestError
from cache.commands.names import NORM2
from cache.format.spec import TOKENS
from extract.encoders.anatomy import Anatomy, Grid, Statistics, Tap
from extract.encoders.outline import Network, Outline
from extract.encoders.outline_memory import OutlineMemory
from extract.encoders.pooling import mean_map, pool_tokens, to_map
from extract.encoders.resolve import find_entry
from extract.encoders.table.entry import Entry
from extract.encoders.weights import checkpoints
from extract.encoders.weights import files as weight_files
from extract.encoders.weights import published as weights
from extract.machine.digests import DigestMemory

DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


# Images whose tokens are normed and pooled at once on a CPU: few enough to stay in its cache. Whole
# batches of 16 (ViT-S, 224 px, two cores) cost 6 to 7 % of the forward pass, pairs nothing.
CPU_IMAGES = 2


@dataclass(frozen=True)
class Description:
    """An encoder at one input size, before any weight is read."""

    typed: str  # what the user called it
    entry: Entry
    outline: Outline
    layers: tuple[int, ...]  # to be stored, absolute
    layer_norm: str  # one of extract.config.LAYER_NORMS
    tokens: bool = False  # whether their patch tokens are stored, and no pools

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process describes it anew: what builds the network can't be sent there."""
        layers = ",".join(map(str, self.layers))
        return describe, (self.typed, self.size, layers, self.layer_norm, None, self.tokens)

    @property
    def size(self) -> int:
        """Side of the input, pixels."""
        return self.outline.size

    @property
    def arguments(self) -> dict[str, Any]:
        """What the architecture gets besides its name."""
        return self.outline.arguments

    @property
    def statistics(self) -> Statistics | None:
        """What the encoder expects of its input; None where nobody says."""
        return self.outline.statistics

    @property
    def anatomy(self) -> Anatomy:
        return self.outline.anatomy

    @property
    def norm_rule(self) -> str:
        """How stored layers are normed; "none" also where the family has no rule."""
        return self.final_rule if self.layer_norm == "final" else self.layer_norm

    @property
    def final_rule(self) -> str:
        """The family's own rule. One that norms the pooled vector alone has no norm for tokens."""
        rule = self.anatomy.norm_rule
        return "none" if self.tokens and rule == "pooled" else rule

    def read(self, layer: int) -> tuple[Tap, str]:
        """Where a layer is tapped, and its own norm rule: one of ``anatomy.NORM_RULES``.

        With "norm2" a layer is half a block further than usual, in the next block: what the norm
        between its attention and its MLP gives. The last one has no next, and is the usual one.
        """
        taps = self.anatomy.taps
        if self.layer_norm != NORM2:
            return taps[layer], self.norm_rule
        if layer == self.anatomy.n_layers - 1:
            return taps[layer], self.final_rule
        block = taps[layer + 1]
        return replace(block, module=f"{block.module}.{self.anatomy.norm2}"), "none"

    @property
    def has_last(self) -> bool:
        """Whether the last layer is stored: ``head`` and ``proj`` belong to it."""
        return self.anatomy.n_layers - 1 in self.layers

    @property
    def grids(self) -> list[Grid]:
        """Rows and columns of patches of each stored layer."""
        return [grid for layer in self.layers if (grid := self.anatomy.grids[layer])]

    @property
    def token_shapes(self) -> list[tuple[int, int, int]]:
        """(h, w, D) of each stored layer."""
        pairs = zip(self.layers, self.grids, strict=True)
        return [(*grid, self.anatomy.width[layer]) for layer, grid in pairs]

    @property
    def arrays(self) -> dict[str, int | tuple[int, ...]]:
        """Name of each stored array -> its width, or of tokens (h, w, D)."""
        anatomy = self.anatomy
        if self.tokens:
            names = (f"layers/{layer:02d}/{TOKENS}" for layer in self.layers)
            return dict(zip(names, self.token_shapes, strict=True))
        arrays: dict[str, int | tuple[int, ...]] = {
            f"layers/{layer:02d}/{pool}": anatomy.width[layer]
            for layer in self.layers
            for pool in anatomy.pools(layer)
        }
        if self.has_last and anatomy.head_width:
            arrays["head"] = anatomy.head_width
        if self.has_last and anatomy.proj_width:
            arrays["proj"] = anatomy.proj_width
        return arrays


def describe(
    name: str,
    size: int | None,
    layers: str = "all",
    layer_norm: str = "final",
    memory: OutlineMemory | None = None,
    tokens: bool = False,
) -> Description:
    """What an encoder would give, from its architecture alone.

    Args:
        name: anything that ``resolve.find_entry`` takes.
        size: side of the input, pixels; None means the encoder's own.
        layers: "all", "last4", or a comma-separated list of numbers, negative from the end.
        layer_norm: "final", "none" or "norm2".
        memory: of outlines made before.
        tokens: the layers' patch tokens, not their pools.

    Raises:
        RequestError: unknown name, a size that the architecture doesn't take, no such layer or norm,
            or tokens that nobody knows the places of.
    """
    entry = find_entry(name)

    def make() -> Outline:
        return _library(entry).outline(entry, size)

    outline = memory.get(entry, size, make) if memory else make()
    if layer_norm == NORM2:
        _check_norm2(name, outline.anatomy)
    chosen = choose_layers(layers, outline.anatomy.n_layers, "--tokens" if tokens else "--layers")
    if tokens and not all(outline.anatomy.grids[layer] for layer in chosen):
        raise RequestError(
            f"--tokens: the patches of {name} fill no square, and nobody says which rows and columns "
            "they are; add grid=(rows, columns) to its extract.UserEncoder"
        )
    return Description(name, entry, outline, chosen, layer_norm, tokens)


def _check_norm2(name: str, anatomy: Anatomy) -> None:
    if why := anatomy.lacks_norm2:
        raise RequestError(
            f"--layer-norm {NORM2} is the norm between attention and MLP of an encoder's blocks, and "
            f"{name}, a {anatomy.family}, {why} (extract/ENCODERS.md says which encoders have it)"
        )


def _library(entry: Entry) -> ModuleType:
    """The module that reads this library's models; imported late, for each takes its time."""
    return importlib.import_module(f"extract.encoders.libraries.{entry.library}")


def choose_layers(wish: str, n_layers: int, flag: str = "--layers") -> tuple[int, ...]:
    """Turn ``--layers`` or ``--tokens`` into absolute numbers, ascending.

    Args:
        wish: "all", "last4" (or any lastN), or numbers like "0,5,-1".
        n_layers: how many the encoder has.
        flag: for messages.

    Raises:
        RequestError: not understood, or out of range.
    """
    if wish == "all":
        return tuple(range(n_layers))
    if wish.startswith("last") and wish[4:].isdecimal() and int(wish[4:]) > 0:
        return tuple(range(max(0, n_layers - int(wish[4:])), n_layers))
    try:
        numbers = [int(part) for part in wish.split(",")]
    except ValueError:
        raise RequestError(
            f"{flag} takes all, last4 or numbers like 0,5,-1, not {wish!r}"
        ) from None
    for number in numbers:
        if not -n_layers <= number < n_layers:
            raise RequestError(
                f"no layer {number}: the encoder has layers 0..{n_layers - 1} "
                f"(-1 is {n_layers - 1})"
            )
    return tuple(sorted({number % n_layers for number in numbers}))


# ---------------------------------------------------------------------------- weights


@dataclass(frozen=True)
class Weights:
    """Where an encoder's weights come from: a file, a seed, or a user's own code."""

    path: Path | None
    seed: int | None = None
    to_download: str | None = None  # what must be fetched first
    part: str = ""  # of the file: --weights FILE:KEY

    @property
    def random(self) -> bool:
        return self.seed is not None

    def named(self, file: object) -> str:
        """FILE, or FILE:KEY."""
        return f"{file}:{self.part}" if self.part else str(file)

    @property
    def words(self) -> str:
        """What they are, for a file's key; their digest follows."""
        if self.random:
            return f"random, seed {self.seed}, sha256"
        return "sha256" if self.path else "made by code, sha256"


def find_weights(description: Description, wish: str, seed: int, *, download: bool) -> Weights:
    """Resolve ``--weights``.

    Args:
        description: the encoder.
        wish: "pretrained", "random", FILE, FILE:KEY or a folder of shards.
        seed: of random weights.
        download: fetch missing files.

    Raises:
        RequestError: the file is missing or can't be fetched.
    """
    outline, name = description.outline, description.entry.encoder
    if outline.load is None:
        if wish != "pretrained":
            raise RequestError(f"--weights {wish}: {name} makes its own weights; change it there")
        return Weights(None)
    if wish == "random":
        return Weights(None, seed=seed)
    if wish != "pretrained":
        return _find_file(wish)
    place = outline.place
    if place is None:
        raise RequestError(
            f"no published weights are known for {name}; give a file with --weights FILE, or "
            "--weights random"
        )
    path = weights.find(place)
    if path is None and (download or not isinstance(place, weights.Hub | weights.Url)):
        path = weights.fetch(place)
        if description.entry.library == "transformers":
            # Beside them: its own configuration, against which the table's is checked on loading.
            _library(description.entry).fetch_published(description.entry)
    return Weights(path, to_download=None if path else str(place))


def _find_file(wish: str) -> Weights:
    """FILE, FILE:KEY, or the folder of a file in shards.

    Raises:
        RequestError: it isn't there.
    """
    for name, part in ((wish, ""), wish.rpartition(":")[::2]):
        path = Path(name).expanduser()
        shards = sorted(path.glob(f"*{weights.INDEX}")) if name and path.is_dir() else []
        if len(shards) == 1:
            path = shards[0]
        if name and path.is_file():
            return Weights(path, part=part)
    raise RequestError(
        f"no weight file at {Path(wish).expanduser()}; --weights takes pretrained, random, FILE, "
        "FILE:KEY (a part of a training checkpoint), or a folder with a .safetensors.index.json"
    )


def weights_digest(weights: Weights, memory: DigestMemory) -> str:
    """SHA-256 of the weights of a file, read where they aren't remembered.

    Raises:
        RequestError: the file can't be read.
    """
    assert weights.path
    return memory.get(_memory_kind(weights), weights.path, lambda path: read_weights(weights)[1])


def recall_weights_digest(weights: Weights, memory: DigestMemory) -> str | None:
    """The same where it is remembered; None: it isn't, or they are in no file."""
    if weights.path is None:
        return None
    return memory.recall(_memory_kind(weights), weights.path)


def _memory_kind(weights: Weights) -> str:
    """What of a file is digested. The number goes up when another part of it is taken."""
    assert weights.path
    return " ".join(filter(None, ("weights 2", weights.part, weight_files.stamp(weights.path))))


def read_weights(weights: Weights) -> tuple[weight_files.Checkpoint, str]:
    """A file's weights, and their SHA-256.

    Raises:
        RequestError: the file can't be read.
    """
    assert weights.path
    checkpoint = weight_files.read_checkpoint(weights.path, weights.part)
    return checkpoint, checkpoints.tensors_digest(checkpoint.tensors)


def load_encoder(description: Description, weights: Weights) -> tuple[Encoder, str]:
    """Build the model with its weights, on the CPU in float32.

    Returns:
        The encoder and the SHA-256 of its weights as read.

    Raises:
        RequestError: the weights don't fit.
    """
    network, digest, said = load_network(description, weights)
    return Encoder(description, network, said=tuple(said)), digest


def load_network(description: Description, weights: Weights) -> tuple[Network, str, list[str]]:
    """The same, not frozen and without taps: what is fine-tuned.

    Returns:
        The network, the SHA-256 of its weights as read, and what loading did, in words.

    Raises:
        RequestError: the weights don't fit.
    """
    outline, entry = description.outline, description.entry
    if weights.path is None or outline.load is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(weights.seed or 0)
            network = outline.build()
        return network, checkpoints.tensors_digest(network.module.state_dict()), []
    checkpoint, digest = read_weights(weights)
    layout = _layout(entry, weights.path)
    network, said = outline.load(checkpoint.tensors, str(weights.path), layout)
    return network, digest, [*checkpoint.said, *said]


def _layout(entry: Entry, path: Path) -> str | None:
    """How the table says that the published file names its tensors.

    Of a user's own file the table knows nothing: its names tell.
    """
    return entry.layout if entry.weights and weights.find(entry.weights) == path else None


# ---------------------------------------------------------------------------- running


class Encoder:
    """A frozen network and the taps on its layers. Always in eval mode.

    Args:
        description: what it is.
        network: with its weights; it is put into eval mode and stays there.
        said: what loading did, in words.
    """

    def __init__(
        self, description: Description, network: Network, said: tuple[str, ...] = ()
    ) -> None:
        self.description = description
        self.said = said
        self.network = network
        self.model: Any = network.module.requires_grad_(False).eval()
        self._kept: dict[str, Tensor] = {}  # of the forward pass that runs
        modules = dict(self.model.named_modules())
        for layer in description.layers if description.anatomy.taps else ():
            tap, rule = description.read(layer)
            hook = partial(self._take, layer, tap.layout, rule)
            modules[tap.module].register_forward_hook(hook)

    def to(self, device: torch.device, precision: str = "fp32") -> Encoder:
        """Move to a device and cast the weights to a precision's type."""
        self.model.to(device=device, dtype=DTYPES[precision])
        return self

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """One forward pass.

        Args:
            images: (B, 3, size, size), normalised, on the encoder's device.

        Returns:
            Name of each stored array -> (B, D) or, of tokens, (B, h, w, D) float32, in the order of
            ``description.arrays``.
        """
        assert not self.model.training
        self._kept = {}
        images, d = images.to(self.dtype), self.description
        if d.anatomy.taps:
            vectors = self.network(images)
        else:
            vectors, maps = self.network.maps(images, d.norm_rule == "last stage")
            for layer in d.layers:
                name = f"layers/{layer:02d}"
                if d.tokens:
                    self._kept[f"{name}/{TOKENS}"] = maps[layer].permute(0, 2, 3, 1).float()
                else:
                    self._kept[f"{name}/mean"] = mean_map(maps[layer], "BDHW")
        self._kept |= {name: vector.float() for name, vector in vectors.items()}
        kept, self._kept = self._kept, {}
        return {name: kept[name] for name in d.arrays}

    def _take(
        self, layer: int, layout: str, rule: str, module: object, inputs: object, output: Any
    ) -> None:
        output = output[0] if isinstance(output, tuple) else output
        in_parts = layout == "tokens" and output.device.type == "cpu"
        network, anatomy = self.network, self.description.anatomy
        parts = [
            {TOKENS: layer_tokens(network, anatomy, rule, layer, part)}
            if self.description.tokens
            else pool_layer(network, anatomy, rule, layer, part, self.dtype)
            for part in (output.split(CPU_IMAGES) if in_parts else [output])
        ]
        for what in parts[0]:
            self._kept[f"layers/{layer:02d}/{what}"] = torch.cat([part[what] for part in parts])


def layer_tokens(
    network: Network, anatomy: Anatomy, rule: str, layer: int, output: Tensor
) -> Tensor:
    """(B, h, w, D) float32 patch tokens of one tapped layer, normed as the family norms tokens.

    Args:
        network: that it came from.
        anatomy: of the network.
        rule: one of ``anatomy.NORM_RULES``; "pooled" leaves them raw.
        layer: its number.
        output: of the tapped module, laid out as its tap says.
    """
    grid = anatomy.grids[layer]
    assert grid is not None, "describe refuses layers without a grid"
    normed = _norm_layer(network, anatomy, rule, layer, output)
    return to_map(normed, anatomy.taps[layer].layout, anatomy.n_prefix, grid)


def pool_layer(
    network: Network, anatomy: Anatomy, rule: str, layer: int, output: Tensor, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Norm and pool one tapped layer's output, as the family has it. Gradients pass.

    Args:
        network: that it came from.
        anatomy: of the network.
        rule: one of ``anatomy.NORM_RULES``.
        layer: its number.
        output: of the tapped module, laid out as its tap says.
        dtype: of the network's parameters.

    Returns:
        Pool -> (B, D) float32.
    """
    layout = anatomy.taps[layer].layout
    output = _norm_layer(network, anatomy, rule, layer, output)
    if layout != "tokens":
        return {"mean": mean_map(output, layout)}
    pooled = pool_tokens(output, anatomy.n_prefix, anatomy.has_cls)
    if rule == "pooled":
        pooled = {p: network.norm_pooled(v.to(dtype)).float() for p, v in pooled.items()}
    return pooled


def _norm_layer(
    network: Network, anatomy: Anatomy, rule: str, layer: int, output: Tensor
) -> Tensor:
    """One layer's output after the norm that its family puts before any pooling."""
    if anatomy.taps[layer].layout == "tokens":
        return network.norm_tokens(output) if rule == "tokens" else output
    if rule == "each stage" or (rule == "last stage" and layer == anatomy.n_layers - 1):
        return network.norm_stage(layer, output)
    return output
