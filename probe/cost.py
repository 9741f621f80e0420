"""What an answer takes: parameters, times, bytes; where nobody has counted or measured it, None."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cache.errors import CacheError
from probe.places import Place
from probe.solvers.head import Head

if TYPE_CHECKING:
    from cache.features import Features  # h5py: a table of rows shouldn't wait for it

PRECISE = 6  # digits of a time


@dataclass(frozen=True)
class Cost:
    """What an answer takes. Times vary: two rows of one question may differ in them."""

    parameters: int | None = None  # of the encoder; of a training with its adapters and its head
    trained_parameters: int | None = None  # of these; of a probe those of its head
    # As the features were extracted: reading, preparing and storing included, by one process.
    images_per_second: float | None = None
    # The forward pass alone, on ``device`` at ``precision``, in the mean over batches.
    inference_seconds_per_image: float | None = None
    training_seconds: float | None = None  # to the tested weights, val checks apart; of a training
    bytes_per_image: int | None = None  # of the features that the answer is made from, as stored
    device: str | None = None  # that the times are of, "cuda (NVIDIA H200)"
    precision: str | None = None  # of the forward pass


UNKNOWN = Cost()


def cost_of(files: Sequence[Features], places: Sequence[Place], head: Head | None) -> Cost:
    """What a probe's answer takes, as far as its feature files know; of random weights nothing.

    Args:
        files: the file; or those of several encoders side by side, which run one after the other.
        places: whose features are seen.
        head: the linear model, if it is one; of episodes E at once.
    """
    seen = [(f, [p for p in places if p.file == i]) for i, f in enumerate(files)]
    each = [_cost_of(features, own) for features, own in seen if own]
    n_heads = math.prod(head.weights.shape[:-2]) if head else 1
    trained = (head.weights.size + head.intercept.size) // n_heads if head else None
    if any(cost is UNKNOWN for cost in each):
        return UNKNOWN
    if len(each) == 1:
        return replace(each[0], trained_parameters=trained)
    of_devices = {(cost.device, cost.precision) for cost in each}
    device, precision = of_devices.pop() if len(of_devices) == 1 else (None, None)
    per_second = [cost.images_per_second for cost in each]
    forward = [cost.inference_seconds_per_image for cost in each]
    is_alike = device is not None  # times of different devices have no sum
    return Cost(
        parameters=_total(cost.parameters for cost in each),
        trained_parameters=trained,
        images_per_second=precise(1 / sum(1 / n for n in per_second if n))
        if is_alike and all(per_second)
        else None,
        inference_seconds_per_image=precise(sum(n for n in forward if n))
        if is_alike and all(forward)
        else None,
        bytes_per_image=_total(cost.bytes_per_image for cost in each),
        device=device,
        precision=precision,
    )


def _total(values: Iterable[int | None]) -> int | None:
    known = list(values)
    return None if None in known else sum(filter(None, known))


def _cost_of(features: Features, places: Sequence[Place]) -> Cost:
    if features.notes.get("random_weights"):  # a control: nobody would use it
        return UNKNOWN
    try:
        said = features.cost
    except (CacheError, OSError):  # it has no checksum, and no number depends on it
        said = {}
    n_images, forward = _number(said, "images"), _number(said, "forward_seconds")
    per_second, parameters = _number(said, "images_per_s"), _number(said, "parameters")
    arrays = {features.array_name(*at) for place in places for at in place.arrays}
    device = said.get("device")
    return Cost(
        parameters=int(parameters) if parameters else None,
        images_per_second=per_second if n_images else None,
        inference_seconds_per_image=precise(forward / n_images) if forward and n_images else None,
        bytes_per_image=sum(features.header.arrays[name].row_bytes for name in arrays),
        device=device if isinstance(device, str) and device.isprintable() else None,
        precision=features.key.get("precision"),
    )


def precise(seconds: float) -> float:
    """A time of few digits."""
    return float(f"{seconds:.{PRECISE}g}")


def _number(said: Mapping[str, Any], name: str) -> float | None:
    """A number above 0 of what a file says; None: it says none."""
    value = said.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if 0 < value < math.inf else None
