"""The settings of heads on masks: the probe's, as ``finetune`` is asked for them. No torch here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from cache.errors import RequestError
from finetune.config import MAP_HEADS, MasksConfig, Request
from probe.kinds.decoder import Decoder
from probe.protocols import Followed, find_preset, follow, settings_of
from probe.solvers.decoders import N_LAYERS

# Names of what is typed -> a Decoder's fields.
SETTINGS = {
    **{name: name for name in ("head", "optimiser", "weight_decay", "batch_size", "iterations")},
    **{name: name for name in ("epochs", "warmup", "seeds")},
    **{f.name: f.name for f in fields(MasksConfig)},
    "head_lr": "lrs",
}

LAST = "cut_after"  # of what is typed: the last layer that is seen


def layers_seen(request: Request, kind: Decoder, name: str, n_layers: int) -> str:
    """The layers whose tokens a head sees, in words of ``extract --tokens``.

    Args:
        request: what is asked.
        kind: the head.
        name: of the encoder.
        n_layers: that it has.

    Raises:
        RequestError: the last that is named isn't one of them.
    """
    last = request.given.get(LAST, n_layers - 1)
    if last >= n_layers:
        raise RequestError(f"--cut-after {last}: {name} has layers 0 to {n_layers - 1}")
    first = max(last - N_LAYERS[kind.head] + 1, 0)
    return ",".join(map(str, range(first, last + 1)))


def is_of_masks(request: Request) -> bool:
    """Whether masks are to be learned from, as far as the words say it."""
    own = {f.name for f in fields(MasksConfig)}
    is_named = request.overlay.masks is not None or bool(own & request.given.keys())
    return is_named or request.given.get("head") in MAP_HEADS


def settle_decoder(request: Request) -> tuple[Decoder, Followed | None]:
    """The head's settings: flags first, then the protocol's, then the probe's defaults.

    Raises:
        RequestError: a flag that heads on masks have no use for, or settings that can't be.
    """
    if request.mode not in ("head", None) or (request.mode is None and "head" not in request.given):
        raise RequestError(
            "masks are learned from by a head on the frozen encoder: --mode head --head unet, ms or "
            "linear"
        )
    if request.given.get("head") == "deit":
        raise RequestError("--head deit is of classes; masks take --head linear, ms or unet")
    if request.few_shot or request.init_head_from:
        raise RequestError(
            "--episodes-like and --init-head-from are of classes; few shots of masks are "
            "`probe --kind decoder --shots` on a token file"
        )
    given = {name: value for name, value in request.given.items() if name != LAST}
    for name in given.keys() - SETTINGS.keys():
        flag = name.replace("_", "-")
        raise RequestError(
            f"--{flag} isn't of heads on masks, which --mode head --head trains; leave it out"
        )
    if request.per_patient:
        raise RequestError("--aggregate patient is of classes; leave it out")
    typed = {SETTINGS[name]: value for name, value in given.items()}
    if "lrs" in typed:
        typed["lrs"] = (typed["lrs"],)
    if {"iterations", "epochs"} & typed.keys():
        typed = {"iterations": None, "epochs": None, **typed}
    if not request.protocol:
        return Decoder(**typed), None
    _, preset = find_preset(request.protocol, Decoder.name, request.as_published)
    base = settings_of(preset, request.as_published)
    kind, usual = Decoder(**{**base, **typed}), Decoder(**base)
    changed = {
        f.name: value
        for f in fields(usual)
        if (value := getattr(kind, f.name)) != getattr(usual, f.name)
        and value not in preset.also.get(f.name, ())
    }
    return kind, follow(request.protocol, preset, request.as_published, changed)


def describe_decoder(request: Request, label: str) -> Iterator[str]:
    """What will be trained, in lines to print.

    Raises:
        RequestError: see ``settle_decoder``.
    """
    kind, followed = settle_decoder(request)
    length = f"{kind.epochs} epochs" if kind.epochs else f"{kind.iterations:_} iterations"
    rates = ", ".join(f"{rate:g}" for rate in kind.lrs)
    yield f"{label} · {kind.head} head on masks"
    yield (
        f"  training   {length} of {kind.batch_size} · {kind.optimiser} · {kind.loss} · head lr {rates} · "
        "the encoder runs in every step"
    )
    yield "  choosing   " + (f"on val, by {kind.choose_by}" if len(kind.lrs) > 1 else "nothing")
    if followed:
        yield f"  protocol   {followed}"
        yield from (f"             {line}" for line in followed.differs)
