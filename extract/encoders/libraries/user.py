"""A user's own encoder: a function in a file, or an entry point of an installed package.

For ``extract --model my_encoder.py:make_encoder``, with the network in ``my_networks.py`` and its
weights in ``my_weights.pt``, both beside this ``my_encoder.py``:

    from pathlib import Path

    import torch
    from extract import UserEncoder
    from my_networks import VisionTransformer

    def make_encoder(size=224):
        model = VisionTransformer(image_size=size)
        weights = Path(__file__).with_name("my_weights.pt")
        model.load_state_dict(torch.load(weights, weights_only=True))
        return UserEncoder(
            model, size=size, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5),
            layers=[f"blocks.{i}" for i in range(12)], n_prefix=1, has_cls=True, norm="norm",
        )

The function is called once, with ``--size`` if it takes ``size``. It may return a model of timm's
as it is: medprobe knows how to read it, and takes mean and std from its ``pretrained_cfg``. A
package offers its encoders to every user under the entry point group ``medprobe.encoders``.

The features' key holds digests of the weights, and of this file and the modules beside it that it
imports; so neither an edit nor other weights can pass for the same encoder. Other files that the
code reads (a list of layers, say) are known only by what they change in these.
"""

import copy
import inspect
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cache import RequestError
from cache.commands.names import first_line, near_names
from cache.commands.user_code import Function, Wanted, user_code, where
from extract.config import INTERPOLATIONS
from extract.encoders.anatomy import Anatomy, Grid, Statistics, Tap
from extract.encoders.libraries.families import study
from extract.encoders.libraries.timm import TimmNetwork, check_patches
from extract.encoders.outline import Network, Outline, recording
from extract.encoders.pooling import LAYOUTS
from extract.encoders.table.entry import ENTRY_POINTS, Entry

WANTED = Wanted("--model", "function", ENTRY_POINTS)
TOKENS = ("tokens", "BTD")  # layouts; "BTD" has no prefix


@dataclass
class UserEncoder:
    """A frozen network and how to read it.

    Args:
        model: with its weights. ``model(images)`` runs every layer once; where it gives (B, D),
            that is the pool ``head``.
        size: side of the input, pixels, for which it was built.
        mean: of the input's three channels, values in 0..1.
        std: likewise.
        layers: names of the modules whose outputs are the layers, first to last. Of a tuple, the
            first part counts.
        layout: of these outputs: "tokens" (B, T, D) with prefix tokens first, "BTD" without,
            "BDHW" or "BHWD".
        n_prefix: tokens before the patches, class token and registers; for "tokens".
        has_cls: whether the first of them is a class token; for "tokens".
        norm: name of the module that is applied to every layer's tokens; None: raw.
        interpolation: "bicubic", "bilinear" or "nearest".
        grid: rows and columns of the patches, for ``--tokens``; None: as many rows as columns.
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
    grid: tuple[int, int] | None = None


class UserNetwork(Network):
    """What ``make_encoder`` returned."""

    def __init__(self, encoder: UserEncoder) -> None:
        model = encoder.model
        super().__init__(model, model.get_submodule(encoder.norm) if encoder.norm else None)

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        output = self.module(images)
        return {"head": output} if isinstance(output, Tensor) and output.ndim == 2 else {}


def outline(entry: Entry, size: int | None) -> Outline:
    """What a user's encoder gives at a size. Runs the user's code.

    Args:
        entry: ``network`` is "FILE.py:FUNCTION" or the name of an entry point.
        size: side of the input, pixels; None lets the function choose.

    Raises:
        RequestError: the function can't be had or fails, or what it returns can't be read.
    """
    name = entry.network
    with user_code(name, WANTED) as (function, arguments, folder):
        return _read(_call(function, size, name, folder), name, size, arguments, folder)


def _call(function: Function, size: int | None, name: str, folder: Path) -> Any:
    """What the function returns; it may take ``size``, and nothing else that has no default."""
    try:
        parameters = dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        parameters = {}
    own = parameters.pop("size", None)
    options = {"size": size} if own and size is not None else {}
    if own and size is None and own.default is own.empty:
        raise RequestError(f"{name} has no size of its own; give --size, or write size=224 there")
    for parameter in parameters.values():
        some = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.default is parameter.empty and not some:
            raise RequestError(
                f"{name} asks for {parameter.name!r}; it is called with size, or with nothing"
            )
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # a part that stays random is the same in every run
            return function(**options)
    except (Exception, SystemExit) as error:  # the user's code, failing in any way
        raise RequestError(f"{name} fails: {where(error, folder)}") from error


def _read(
    made: Any, name: str, size: int | None, arguments: dict[str, Any], folder: Path
) -> Outline:
    """An outline of what the user's function returned."""
    if isinstance(made, nn.Module) and hasattr(made, "forward_intermediates"):
        return _timm_outline(made, name, size, arguments)
    if not isinstance(made, UserEncoder):
        raise RequestError(
            f"{name} returned a {type(made).__name__}; expected an extract.UserEncoder, or a "
            "model of timm's"
        )
    fault = next(_faults(made, size), None)
    if fault:
        raise RequestError(f"{name}: {fault}")
    # As it will be run. Half precision is --precision's to choose.
    made.model.float().eval()
    network = UserNetwork(made)
    anatomy = _study(made, network, name, folder)
    # In the key, for the code may have read them from a file.
    arguments["read"] = {
        "layers": list(made.layers),
        "layout": made.layout,
        "n_prefix": anatomy.n_prefix,
        "has_cls": anatomy.has_cls,
        "norm": made.norm,
        **({} if made.grid is None else {"grid": list(made.grid)}),
    }
    return Outline(
        size=made.size,
        own_size=made.size,
        arguments=arguments,
        statistics=Statistics(_numbers(made.mean), _numbers(made.std), made.interpolation),
        anatomy=anatomy,
        build=lambda: network,
        licence=made.licence,
    )


# ---------------------------------------------------------------------------- timm's models


def _timm_outline(model: Any, name: str, size: int | None, arguments: dict[str, Any]) -> Outline:
    config = getattr(model, "pretrained_cfg", None)
    if not isinstance(config, Mapping):
        raise RequestError(
            f"{name} returned a {type(model).__name__} that isn't timm's own (it has no "
            "pretrained_cfg); return an extract.UserEncoder of it"
        )
    built = getattr(getattr(model, "patch_embed", None), "img_size", None)
    own_size: int = (built or config["input_size"])[-1]
    side = size or own_size
    try:
        model.float().eval()
        if getattr(model, "num_classes", 0):
            model.reset_classifier(0)  # a classifier is no part of the features
        if side != own_size:
            check_patches(model, side)
        anatomy = study(copy.deepcopy(model).to("meta"), side)
    except Exception as error:  # any model, failing in any way
        raise RequestError(
            f"{name}: the model fails on a picture of {side} px ({first_line(error)}); let the "
            "function take size, or return an extract.UserEncoder"
        ) from error
    statistics = None
    # timm fills a default in where it knows no weights.
    if any(config.get(source) for source in ("url", "hf_hub_id", "file", "state_dict")):
        statistics = Statistics(
            tuple(config["mean"]), tuple(config["std"]), config["interpolation"]
        )
    return Outline(
        size=side,
        own_size=own_size,
        arguments=arguments,
        statistics=statistics,
        anatomy=anatomy,
        build=lambda: TimmNetwork(model),
        licence=config.get("license") or "",
    )


# ---------------------------------------------------------------------------- other models


def _numbers(values: Any) -> tuple[float, ...]:
    """Finite numbers out of a list, an array or a tensor; () where they aren't."""
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()


def _is_grid(grid: Any) -> bool:
    return (
        isinstance(grid, tuple)
        and len(grid) == 2
        and all(isinstance(n, int) and n > 0 for n in grid)
    )


def _faults(made: UserEncoder, size: int | None) -> Iterator[str]:
    """What is wrong with a user's description of an encoder, the most telling first."""
    if not isinstance(made.model, nn.Module) or not any(True for _ in made.model.parameters()):
        yield "model must be a torch module with parameters"
        return
    if not isinstance(made.size, int) or made.size < 1:
        yield f"size is the input's side in pixels, not {made.size!r}"
    if size is not None and made.size != size:
        yield f"--size is {size}, but it was built for {made.size}: let the function take size"
    if (
        len(_numbers(made.mean)) != 3
        or len(_numbers(made.std)) != 3
        or min(_numbers(made.std)) <= 0
    ):
        yield f"mean and std have three numbers each, std above 0; not {made.mean!r}, {made.std!r}"
    if made.interpolation not in INTERPOLATIONS:
        yield f"interpolation is one of {', '.join(INTERPOLATIONS)}, not {made.interpolation!r}"
    if made.layout not in LAYOUTS:
        yield f"layout is one of {', '.join(LAYOUTS)}, not {made.layout!r}"
    if made.grid is not None and not _is_grid(made.grid):
        yield f"grid is (rows, columns) of the patches, not {made.grid!r}"
    if made.grid is not None and made.layout not in TOKENS:
        yield f"grid is for tokens, and layout {made.layout!r} has maps, which show theirs"
    if made.layout == "tokens" and made.has_cls and made.n_prefix < 1:
        yield "has_cls means that n_prefix is 1 or more"
    if made.norm and made.layout not in TOKENS:
        yield f"norm is for tokens, and layout {made.layout!r} has maps; put it into the layers"
    if isinstance(made.layers, str) or not made.layers:
        yield "layers is a list of one or more names of modules"
        return
    if len(set(made.layers)) < len(made.layers):
        yield f"layers has {Counter(made.layers).most_common(1)[0][0]!r} twice"
    if made.norm in made.layers:
        yield f"norm is applied to each layer, so {made.norm!r} can't be a layer itself"
    modules = dict(made.model.named_modules())
    for name in [*made.layers, *([made.norm] if made.norm else [])]:
        if name not in modules:
            every = f"its outermost are {', '.join(n for n, _ in made.model.named_children())}"
            yield f"its model has no module {name!r}; {near_names(str(name), modules, every)}"


def _study(made: UserEncoder, network: UserNetwork, name: str, folder: Path) -> Anatomy:
    """Widths, from one forward pass of a picture and its copy."""
    layers = {layer: made.model.get_submodule(layer) for layer in made.layers}
    picture = torch.linspace(-1, 1, 3 * made.size**2).reshape(1, 3, made.size, made.size)
    pictures = picture.repeat(2, 1, 1, 1).to(next(made.model.parameters()).device)
    try:
        with torch.inference_mode(), recording(layers) as runs:
            vectors = network(pictures)
    except (Exception, SystemExit) as error:  # the user's code, failing in any way
        raise RequestError(
            f"{name}: the model fails on pictures of {made.size} px: {where(error, folder)}"
        ) from error
    counts = Counter(layer for layer, _ in runs)
    for layer in made.layers:
        if not counts[layer]:
            raise RequestError(f"{name}: the forward pass doesn't run its layer {layer!r}")
        if counts[layer] > 1:
            raise RequestError(
                f"{name}: the forward pass runs its layer {layer!r} {counts[layer]} times, so no "
                "output of it is the layer; name modules that run once"
            )
    outputs = {n: output[0] if isinstance(output, tuple) else output for n, output in runs}
    for layer in made.layers:
        fault = _misfit(made, network, outputs[layer])
        if fault:
            raise RequestError(f"{name}: its layer {layer!r} {fault}")
    for what, output in {**outputs, **vectors}.items():
        if not torch.isfinite(output).all():
            raise RequestError(f"{name}: {what!r} should give finite numbers, found inf or nan")
        if not torch.allclose(output[0], output[1], rtol=1e-2, atol=1e-2 * float(output.std())):
            raise RequestError(
                f"{name}: {what!r} differs between a picture and its copy: something random "
                "(dropout?) runs in eval mode"
            )
    tokens = made.layout == "tokens"
    axis = 1 if made.layout == "BDHW" else -1
    # Tokens without prefix are tokens too, and normed like them.
    layout = "tokens" if made.layout in TOKENS else made.layout
    return Anatomy(
        family=type(made.model).__name__,
        norm_rule="tokens" if made.norm else "none",
        width=tuple(outputs[layer].shape[axis] for layer in made.layers),
        head_width=vectors["head"].shape[1] if "head" in vectors else None,
        n_prefix=made.n_prefix if tokens else 0,
        has_cls=made.has_cls and tokens,
        taps=tuple(Tap(layer, layout) for layer in made.layers),
        grids=tuple(_grid(made, outputs[layer]) for layer in made.layers),
        n_parameters=sum(p.numel() for p in made.model.parameters()),
    )


def _grid(made: UserEncoder, output: Tensor) -> Grid | None:
    """Rows and columns of a layer's patches; None: they fill no square, and nobody says."""
    if made.layout not in TOKENS:
        rows, columns = SIDES[made.layout]
        return output.shape[rows], output.shape[columns]
    n_patches = _n_patches(made, output)
    side = math.isqrt(n_patches)
    return made.grid or ((side, side) if side**2 == n_patches else None)


def _n_patches(made: UserEncoder, output: Tensor) -> int:
    return output.shape[1] - (made.n_prefix if made.layout == "tokens" else 0)


SIDES = {"BDHW": (2, 3), "BHWD": (1, 2)}
SHAPES = {"tokens": "(B, T, D)", "BTD": "(B, T, D)", "BDHW": "(B, D, H, W)", "BHWD": "(B, H, W, D)"}


def _misfit(made: UserEncoder, network: UserNetwork, output: Any) -> str | None:
    """Why a layer's output for two square pictures isn't what was said of it."""
    if not isinstance(output, Tensor) or not output.is_floating_point():
        return f"gives a {type(output).__name__}, not a tensor of real numbers"
    shape, sides = tuple(output.shape), SIDES.get(made.layout)
    fits = len(shape) == (4 if sides else 3) and shape[0] == 2
    if not fits or (sides and shape[sides[0]] != shape[sides[1]]):
        return (
            f"gives {shape} for 2 pictures; layout {made.layout!r} means {SHAPES[made.layout]}"
            f"{' with H = W' if sides else ''}"
        )
    if made.layout == "tokens" and shape[1] <= made.n_prefix:
        return f"gives {shape[1]} tokens, and n_prefix says that {made.n_prefix} aren't patches"
    if made.grid is not None and math.prod(made.grid) != _n_patches(made, output):
        return f"gives {_n_patches(made, output)} patches, and grid is {made.grid}"
    if made.norm:
        try:
            with torch.inference_mode():
                normed = network.norm_tokens(output)
        except Exception as error:  # the user's module, failing in any way
            return f"can't be normed by {made.norm!r}: {first_line(error)}"
        if normed.shape != output.shape:
            return f"is {shape}, and {tuple(normed.shape)} after {made.norm!r}"
    return None
