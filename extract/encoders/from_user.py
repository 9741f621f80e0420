"""A user's own encoder: a function in a file, or an entry point of an installed package.

    # my_encoder.py, used by `extract --model my_encoder.py:make_encoder`
    import torch
    from extract import UserEncoder
    from my_networks import VisionTransformer

    def make_encoder(size):
        model = VisionTransformer(image_size=size or 224)
        model.load_state_dict(torch.load("my_weights.pt", weights_only=True))
        return UserEncoder(
            model, size=size or 224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
            layers=[f"blocks.{i}" for i in range(12)], n_prefix=1, has_cls=True, norm="norm",
        )

A model of timm's may be returned as it is: medprobe knows how to read it. A package offers its
encoders to every user under the entry point group ``medprobe.encoders``.
"""

import copy
import hashlib
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cache import RequestError
from extract.encoders import checkpoints
from extract.encoders.anatomy import Anatomy, Statistics, Tap
from extract.encoders.families import study
from extract.encoders.from_timm import TimmNetwork
from extract.encoders.outline import Network, Outline
from extract.encoders.table import ENTRY_POINTS, Entry
from extract.pooling import LAYOUTS


@dataclass
class UserEncoder:
    """A frozen network and how to read it.

    Args:
        model: with its weights. ``model(images)`` runs every layer once; where it gives (B, D),
            that is the pool ``head``.
        size: side of the input, pixels, for which it was built.
        mean: of the input's channels, values in 0..1.
        std: likewise.
        layers: names of the modules whose outputs are the layers, first to last.
        layout: of these outputs: "tokens" (B, T, D) with prefix tokens first, "BTD" without,
            "BDHW" or "BHWD".
        n_prefix: tokens before the patches, class token and registers; for "tokens".
        has_cls: whether the first of them is a class token.
        norm: name of the module that is applied to every layer's tokens; None: raw.
        interpolation: "bicubic", "bilinear" or "nearest".
        licence: of the weights.
    """

    model: nn.Module
    size: int
    mean: Sequence[float]
    std: Sequence[float]
    layers: Sequence[str]
    layout: str = "tokens"
    n_prefix: int = 1
    has_cls: bool = True
    norm: str | None = None
    interpolation: str = "bicubic"
    licence: str = ""


class UserNetwork(Network):
    """What ``make_encoder`` returned."""

    def __init__(self, encoder: UserEncoder) -> None:
        super().__init__(encoder.model)
        self.norm = encoder.model.get_submodule(encoder.norm) if encoder.norm else None

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        output = self.module(images)
        return {"head": output} if isinstance(output, Tensor) and output.ndim == 2 else {}

    def norm_tokens(self, tokens: Tensor) -> Tensor:
        assert self.norm is not None
        return self.norm(tokens)


def outline(entry: Entry, size: int | None) -> Outline:
    """What a user's encoder gives at a size. Runs the user's code.

    Args:
        entry: ``encoder`` is "FILE.py:FUNCTION" or the name of an entry point.
        size: side of the input, pixels; None lets the function choose.

    Raises:
        RequestError: the function can't be had or fails, or what it returns can't be read.
    """
    function, arguments = _find_function(entry)
    made = _call(function, size, entry.encoder)
    if isinstance(made, nn.Module) and hasattr(made, "forward_intermediates"):
        return _timm_outline(entry, made, size, arguments)
    if not isinstance(made, UserEncoder):
        raise RequestError(
            f"{entry.encoder} returned a {type(made).__name__}; expected a "
            "extract.UserEncoder, or a model of timm's"
        )
    _check(made, entry.encoder, size)
    network = UserNetwork(made)
    return Outline(
        size=made.size,
        own_size=made.size,
        arguments=arguments,
        statistics=Statistics(tuple(made.mean), tuple(made.std), made.interpolation),
        anatomy=_study(made, network, entry.encoder),
        place=None,
        build=lambda: network,
        load=None,
        licence=made.licence,
    )


def _timm_outline(entry: Entry, model: Any, size: int | None, arguments: dict[str, Any]) -> Outline:
    config = model.pretrained_cfg
    own_size = config["input_size"][-1]
    if getattr(model, "num_classes", 0):
        model.reset_classifier(0)  # a classifier is no part of the features
    return Outline(
        size=size or own_size,
        own_size=own_size,
        arguments=arguments,
        statistics=Statistics(tuple(config["mean"]), tuple(config["std"]), config["interpolation"]),
        anatomy=_study_timm(model.eval(), size or own_size, entry.encoder),
        place=None,
        build=lambda: TimmNetwork(model),
        load=None,
        licence=config.get("license") or "",
    )


def _study_timm(model: Any, size: int, name: str) -> Anatomy:
    try:
        return study(copy.deepcopy(model).to("meta"), size)
    except (AssertionError, ValueError, RuntimeError) as error:
        raise RequestError(
            f"{name} doesn't take --size {size} ({checkpoints.first_line(error)})"
        ) from error


def _find_function(entry: Entry) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function, and what of it belongs into the key."""
    name = entry.network
    path, _, attribute = name.rpartition(":")
    if path.endswith(".py"):
        file = Path(path).expanduser()
        if not file.is_file():
            raise RequestError(f"no file at {file}; --model takes FILE.py:FUNCTION")
        module = _import_file(file, name)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        arguments = {"function": attribute, "code": f"sha256:{digest}"}
        return _function(module, attribute, name), arguments
    points = importlib.metadata.entry_points(group=ENTRY_POINTS, name=name)
    for point in points:
        distribution = point.dist
        version = f"{distribution.name} {distribution.version}" if distribution else "unknown"
        try:
            return point.load(), {"function": point.value, "distribution": version}
        except Exception as error:  # somebody's package, failing in any way
            raise RequestError(
                f"the entry point {name} of {version} fails: {checkpoints.first_line(error)}"
            ) from error
    raise RequestError(f"no entry point {name!r} in the group {ENTRY_POINTS}")


def _import_file(file: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"medprobe_user_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Imports next to the file work, as if Python had been started there.
    sys.path.insert(0, str(file.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's code, failing in any way
        raise RequestError(f"{name}: {file.name} fails: {_where(error, file)}") from error
    finally:
        sys.path.pop(0)
    return module


def _function(module: Any, attribute: str, name: str) -> Callable[..., Any]:
    function = getattr(module, attribute, None)
    if not callable(function):
        raise RequestError(f"{name}: no function {attribute!r} in this file")
    return function


def _call(function: Callable[..., Any], size: int | None, name: str) -> Any:
    try:
        takes_size = len(inspect.signature(function).parameters) > 0
    except (TypeError, ValueError):
        takes_size = True
    try:
        return function(size) if takes_size else function()
    except Exception as error:  # the user's code, failing in any way
        file = Path(inspect.getsourcefile(function) or "")
        raise RequestError(f"{name} fails: {_where(error, file)}") from error


def _where(error: BaseException, file: Path) -> str:
    """An exception in one line, with the line of the user's file it came from."""
    lines = []
    trace = error.__traceback__
    while trace:
        if Path(trace.tb_frame.f_code.co_filename).name == file.name:
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    at = f" (line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {checkpoints.first_line(error)}{at}"


def _check(made: UserEncoder, name: str, size: int | None) -> None:
    modules = dict(made.model.named_modules())
    wanted = [*made.layers, *([made.norm] if made.norm else [])]
    missing = [layer for layer in wanted if layer not in modules]
    faults = []
    if not made.layers:
        faults.append("layers is empty")
    if missing:
        faults.append(f"its model has no module {missing[0]!r}")
    if made.layout not in LAYOUTS:
        faults.append(f"layout must be one of {LAYOUTS}, not {made.layout!r}")
    if made.has_cls and made.n_prefix < 1:
        faults.append("has_cls needs n_prefix of 1 or more")
    if size is not None and made.size != size:
        faults.append(f"--size is {size}, but it was built for {made.size}")
    if len(made.mean) != 3 or len(made.std) != 3:
        faults.append("mean and std have three numbers each")
    if faults:
        raise RequestError(f"{name}: {'; '.join(faults)}")


def _study(made: UserEncoder, network: UserNetwork, name: str) -> Anatomy:
    """Widths, from one forward pass of a black picture."""
    shapes: dict[str, tuple[int, ...]] = {}

    def note(layer: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object, output: Any) -> None:
            output = output[0] if isinstance(output, tuple) else output
            shapes[layer] = tuple(output.shape)

        return hook

    handles = [
        made.model.get_submodule(layer).register_forward_hook(note(layer)) for layer in made.layers
    ]
    first = next(made.model.parameters(), torch.zeros(1))
    picture = torch.zeros(1, 3, made.size, made.size, device=first.device, dtype=first.dtype)
    made.model.eval()
    try:
        with torch.inference_mode():
            vectors = network(picture)
    except Exception as error:  # the user's code, failing in any way
        raise RequestError(
            f"{name}: the model fails on a picture of {made.size} px: "
            f"{checkpoints.first_line(error)}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    silent = [layer for layer in made.layers if layer not in shapes]
    if silent:
        raise RequestError(f"{name}: the forward pass doesn't run its layer {silent[0]!r}")
    axis = 1 if made.layout == "BDHW" else -1
    tokens = made.layout == "tokens"
    return Anatomy(
        family=type(made.model).__name__,
        norm_rule="tokens" if made.norm else "none",
        known=True,
        n_layers=len(made.layers),
        width=tuple(shapes[layer][axis] for layer in made.layers),
        head_width=vectors["head"].shape[1] if "head" in vectors else None,
        n_prefix=made.n_prefix if tokens else 0,
        has_cls=made.has_cls and tokens,
        taps=tuple(Tap(layer, made.layout) for layer in made.layers),
        n_parameters=sum(p.numel() for p in made.model.parameters()),
    )
