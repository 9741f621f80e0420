"""One frozen encoder: described without weights, then loaded, then run."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cache import RequestError
from extract.encoders import checkpoints
from extract.encoders.families import Anatomy, TimmModel, study
from extract.encoders.table import Entry, find_entry
from extract.pooling import mean_map, pool_tokens

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # timm's own deprecations, at import
    import timm
    import timm.models._builder as timm_builder

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
class Statistics:
    """What the encoder expects of its input."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str


@dataclass(frozen=True)
class Description:
    """An encoder at one input size, before any weight is read."""

    entry: Entry
    size: int
    arguments: dict[str, Any]  # what create_model gets besides the name
    statistics: Statistics
    anatomy: Anatomy
    config: Any  # timm's PretrainedCfg
    layers: tuple[int, ...]  # to be stored, absolute
    layer_norm: str  # "final" or "none"

    @property
    def norm_rule(self) -> str:
        """How stored layers are normed; "none" also where the family has no rule."""
        return "none" if self.layer_norm == "none" else self.anatomy.norm_rule

    @property
    def has_head(self) -> bool:
        """Whether ``head`` is stored: it belongs to the last layer."""
        return self.anatomy.n_layers - 1 in self.layers

    @property
    def arrays(self) -> dict[str, int]:
        """Name of each stored array -> its width."""
        anatomy = self.anatomy
        arrays = {
            f"layers/{layer:02d}/{pool}": anatomy.width[layer]
            for layer in self.layers
            for pool in anatomy.pools(layer)
        }
        return arrays | ({"head": anatomy.head_width} if self.has_head else {})


def describe(
    name: str, size: int | None, layers: str = "all", layer_norm: str = "final"
) -> Description:
    """What an encoder would give, from its architecture alone.

    Args:
        name: a short name or any timm name.
        size: side of the input, pixels; None means the encoder's own.
        layers: "all", "last4", or a comma-separated list of numbers, negative from the end.
        layer_norm: "final" or "none".

    Raises:
        RequestError: unknown name, a size that the architecture doesn't take, no such layer.
    """
    entry = find_entry(name)
    config = timm.get_pretrained_cfg(entry.encoder)
    if config is None or config.mean is None:
        raise RequestError(f"timm knows no mean and std for {entry.encoder}, and none are guessed")
    own_size = config.input_size[-1]
    size = size or own_size
    arguments = _arguments(entry, config, size)
    try:
        with torch.device("meta"):
            model = _create(entry.encoder, arguments).eval()
        _check_patches(model, size, own_size)
        anatomy = study(model, size)
    except RequestError:
        raise
    except (AssertionError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise RequestError(
            f"{entry.encoder} doesn't take --size {size} ({checkpoints.first_line(error)}); "
            f"its own size is {own_size}"
        ) from error
    except (TypeError, AttributeError) as error:  # a method that timm's other models have
        raise RequestError(
            f"{entry.encoder} isn't built like timm's other encoders "
            f"({checkpoints.first_line(error)}), so it can't be used"
        ) from error
    transform = {"mean": config.mean, "std": config.std, "interpolation": config.interpolation}
    transform |= entry.transform
    return Description(
        entry=entry,
        size=size,
        arguments=arguments,
        statistics=Statistics(
            tuple(transform["mean"]), tuple(transform["std"]), transform["interpolation"]
        ),
        anatomy=anatomy,
        config=config,
        layers=choose_layers(layers, anatomy.n_layers),
        layer_norm=layer_norm,
    )


def _arguments(entry: Entry, config: Any, size: int) -> dict[str, Any]:
    # SAM resizes its position tables on the fly but can't load them at another img_size.
    takes_size = config.fixed_input_size and not entry.encoder.startswith("samvit")
    return {"img_size": size} if takes_size else {}


def _create(encoder: str, arguments: dict[str, Any], **options: Any) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # num_classes 0: a classifier of some other data set is no part of the features.
        return timm.create_model(encoder, num_classes=0, **arguments, **options)


def _check_patches(model: nn.Module, size: int, own_size: int) -> None:
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    side = patch[0] if isinstance(patch, Sequence) else patch
    if isinstance(side, int) and size % side:
        below = size // side * side
        near = [s for s in (below, below + side) if s]
        raise RequestError(
            f"--size {size} isn't a multiple of the patch size {side} of {type(model).__name__}; "
            f"nearest valid: {' or '.join(map(str, near))}; its own is {own_size}"
        )


def choose_layers(wish: str, n_layers: int) -> tuple[int, ...]:
    """Turn ``--layers`` into absolute numbers, ascending.

    Args:
        wish: "all", "last4" (or any lastN), or numbers like "0,5,-1".
        n_layers: how many the encoder has.

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
            f"--layers takes all, last4 or numbers like 0,5,-1, not {wish!r}"
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
    """Where an encoder's weights come from: a file, or a seed."""

    path: Path | None
    seed: int | None = None
    to_download: str | None = None  # what must be fetched first


def find_weights(description: Description, wish: str, seed: int, *, download: bool) -> Weights:
    """Resolve ``--weights``.

    Args:
        description: the encoder.
        wish: "pretrained", "random", or a file.
        seed: of random weights.
        download: fetch missing files.

    Raises:
        RequestError: the file is missing or can't be fetched.
    """
    entry = description.entry
    if wish == "random":
        return Weights(None, seed=seed)
    if wish != "pretrained":
        path = Path(wish).expanduser()
        if not path.is_file():
            raise RequestError(
                f"no weight file at {path}; --weights takes pretrained, random or a file"
            )
        return Weights(path)
    if entry.weights_package and entry.weights_module and entry.weights_file:
        return Weights(
            checkpoints.package_file(
                entry.weights_package, entry.weights_module, entry.weights_file
            )
        )
    if description.config.custom_load:
        raise RequestError(
            f"{entry.encoder} has weights in a format of its own; use --weights FILE"
        )
    path = checkpoints.hub_file(description.config, download=download)
    return Weights(path, to_download=None if path else str(description.config.hf_hub_id))


def load_encoder(description: Description, weights: Weights) -> tuple[Encoder, str]:
    """Build the model with its weights, on the CPU in float32.

    Returns:
        The encoder and the SHA-256 of its weights as read.

    Raises:
        RequestError: the weights don't fit.
    """
    entry = description.entry
    if weights.path is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(weights.seed or 0)
            model = _create(entry.encoder, description.arguments)
        digest = checkpoints.tensors_digest(model.state_dict())
        return Encoder(description, model.eval()), digest
    tensors = checkpoints.read_checkpoint(weights.path)
    digest = checkpoints.tensors_digest(tensors)
    said: list[str] = []

    def load(model: nn.Module, pretrained_cfg: Any = None, **options: Any) -> None:
        classifier = description.config.classifier or ()
        said.extend(
            checkpoints.load_strictly(
                model,
                tensors,
                source=str(weights.path),
                classifier=(classifier,) if isinstance(classifier, str) else tuple(classifier),
                filter_fn=options.get("filter_fn"),
                # The rule is for the package's own file, not for a user's.
                key_rule=entry.key_rule if _is_packaged(entry, weights.path) else None,
            )
        )

    with _loading_by(load):
        model = _create(entry.encoder, description.arguments, pretrained=True)
    return Encoder(description, model.eval(), said=tuple(said)), digest


def _is_packaged(entry: Entry, path: Path | None) -> bool:
    return (
        entry.weights_file is not None
        and path is not None
        and (path.as_posix().endswith(entry.weights_file))
    )


@contextlib.contextmanager
def _loading_by(load: Callable[..., None]) -> Iterator[None]:
    """Let timm build a pretrained model, but load the weights by ``load``.

    timm hands its loader the architecture's own key filter, which is nowhere else to be had: it
    is an argument inside each architecture's builder. Only strictness is ours.
    """
    called = []

    def note_and_load(*arguments: Any, **options: Any) -> None:
        called.append(True)
        load(*arguments, **options)

    original = timm_builder.load_pretrained
    timm_builder.load_pretrained = note_and_load
    try:
        yield
    finally:
        timm_builder.load_pretrained = original
    if not called:
        raise RequestError(
            f"this timm ({timm.__version__}) builds pretrained models in a way that medprobe "
            "doesn't know; install the version named in pyproject.toml"
        )


# ---------------------------------------------------------------------------- running


class Encoder:
    """A frozen timm model and the taps on its layers. Always in eval mode.

    Args:
        description: what it is.
        model: with its weights; it is put into eval mode and stays there.
        said: what loading did, in words.
    """

    def __init__(
        self, description: Description, model: nn.Module, said: tuple[str, ...] = ()
    ) -> None:
        self.description = description
        self.said = said
        self.model: TimmModel = model.requires_grad_(False).eval()
        self._pooled: dict[str, Tensor] = {}
        modules = dict(model.named_modules())
        for layer, tap in enumerate(description.anatomy.taps):
            if layer in description.layers:
                hook = partial(self._take, layer, tap.layout)
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
            Name of each stored array -> (B, D) float32, in the order of ``description.arrays``.
        """
        assert not self.model.training
        self._pooled = {}
        images = images.to(self.dtype)
        if self.description.anatomy.taps:
            final = self.model.forward_features(images)
        else:
            last_normed = self.description.norm_rule == "last stage"
            final, maps = self.model.forward_intermediates(images, norm=last_normed)
            for layer in self.description.layers:
                self._pooled[f"layers/{layer:02d}/mean"] = mean_map(maps[layer], "BDHW")
        if self.description.has_head:
            head = self.model.forward_head(final, pre_logits=True)
            self._pooled["head"] = head.flatten(1).float()
        pooled, self._pooled = self._pooled, {}
        return {name: pooled[name] for name in self.description.arrays}

    def _take(
        self, layer: int, layout: str, module: nn.Module, inputs: object, output: Tensor
    ) -> None:
        if layout == "tokens":
            self._keep_tokens(layer, output)
        else:
            self._keep_map(layer, layout, output)

    def _keep_tokens(self, layer: int, tokens: Tensor) -> None:
        on_cpu = tokens.device.type == "cpu"
        parts = [self._pool(part) for part in (tokens.split(CPU_IMAGES) if on_cpu else [tokens])]
        for pool in parts[0]:
            vectors = torch.cat([part[pool] for part in parts])
            self._pooled[f"layers/{layer:02d}/{pool}"] = vectors

    def _pool(self, tokens: Tensor) -> dict[str, Tensor]:
        """Norm and pool one block's tokens, as the family has it."""
        anatomy, rule = self.description.anatomy, self.description.norm_rule
        if rule == "tokens":
            tokens = self.model.norm(tokens)
        pooled = pool_tokens(tokens, anatomy.n_prefix, anatomy.has_cls)
        if rule == "pooled":
            for pool, vectors in pooled.items():
                pooled[pool] = self.model.fc_norm(vectors.to(self.dtype)).float()
        return pooled

    def _keep_map(self, layer: int, layout: str, features: Tensor) -> None:
        last = self.description.anatomy.n_layers - 1
        if self.description.norm_rule == "last stage" and layer == last:
            features = self.model.norm(features)
        self._pooled[f"layers/{layer:02d}/mean"] = mean_map(features, layout)


def set_precision(precision: str, device: torch.device) -> None:
    """Switch TF32 and algorithm choice so that a precision means the same thing everywhere.

    Raises:
        RequestError: tf32 without CUDA, where it would silently be fp32.
    """
    if precision == "tf32" and device.type != "cuda":
        raise RequestError(f"--precision tf32 needs a CUDA device, found {device.type}; use fp32")
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    # Trying algorithms out would pick others from run to run, and with them other roundings.
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def choose_device(wish: str) -> torch.device:
    """Turn ``--device`` into a device that is there.

    Args:
        wish: "auto" (CUDA, else Apple's MPS, else the CPU), "cpu", "cuda", "cuda:1", "mps".

    Raises:
        RequestError: the named device isn't there.
    """
    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wish == "auto":
        if n_cuda:
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % n_cuda)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wish)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise RequestError(f"--device takes auto, cpu, cuda, cuda:I or mps, not {wish!r}")
    if device.type == "cuda" and (device.index or 0) >= n_cuda:
        raise RequestError(f"--device {wish}: {n_cuda} CUDA devices are here; use --device cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise RequestError("--device mps: no such device here; use --device cpu")
    return device
