"""Fingerprints: a few numbers of one fixed picture's features, kept in every file.

The key says what should have made the features. A library whose new version computes something
else under the same name, or weights that came out of a loader changed, leave it as it is; the
features of one picture that never changes tell. Per array 8 numbers are kept: the Euclidean length
and 7 projections onto fixed vectors of signs (Johnson and Lindenstrauss's lemma with the signs of
Achlioptas 2003, https://doi.org/10.1016/S0022-0000(03)00025-4).
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.format.key import key_differences, key_digest

N_PROJECTIONS = 7
N_NUMBERS = 1 + N_PROJECTIONS  # an array: its length, then the projections
N_DIGITS = 7  # that are kept, of each number: about what float32 has

# How far the same computation may move, relative to a vector's length: another device sums in
# another order and rounds elsewhere. Rounding alone, by `drift` on a real ViT-S/14 (mean of every
# layer, against float64): at most 1.3e-6 in float32, 0.017 in bfloat16; on deeper encoders with
# random weights (against float32): at most 0.033 in bfloat16 (EVA-02-L), 0.003 in float16. The rest
# is room for two devices that err in opposite directions.
TOLERANCE = 1e-3
NARROW_TOLERANCE = 5e-2
NARROW = ("tf32", "fp16", "bf16")  # the key's words for precision


def summarise(vectors: Mapping[str, NDArray[np.floating]]) -> dict[str, list[float]]:
    """Summarise the features of the fixed picture.

    A projection adds every component with its sign, so a change of any one of them shows in all
    seven; and the mean square of their changes estimates the squared length of the change.

    Args:
        vectors: name of an array, e.g. "layers/00/cls" -> (D,) float.

    Returns:
        name -> length and projections, N_NUMBERS in all, rounded to N_DIGITS significant digits.

    Raises:
        RequestError: a vector holds NaN or infinity.
    """
    return {name: _summary(name, np.asarray(vector)) for name, vector in vectors.items()}


def _summary(name: str, vector: NDArray[np.floating]) -> list[float]:
    if vector.ndim != 1:
        raise ValueError(f"{name}: expected one vector (D,), found shape {vector.shape}")
    if not np.isfinite(vector).all():
        raise RequestError(
            f"the encoder's output {name} holds NaN or infinity for the picture of the "
            "fingerprint; its arithmetic overflowed: use --precision fp32 (if it is fp32 already, "
            "the weights are at fault)"
        )
    wide = vector.astype(np.float64)
    numbers = [np.linalg.norm(wide), *(wide @ _signs(len(wide)))]
    return [float(f"{number:.{N_DIGITS}g}") for number in numbers]


def _signs(width: int) -> NDArray[np.float64]:
    """(D, N_PROJECTIONS) of -1 and 1: the lowest bits of a fixed stream, one byte a component.

    A hash's output and no generator's: it is the same for ever and everywhere. Not rows of a
    Hadamard matrix: to most of those, adding one number to every component changes nothing.
    """
    stream = np.frombuffer(hashlib.shake_128(b"medprobe").digest(width), np.uint8)
    bits = stream[:, None] >> np.arange(N_PROJECTIONS, dtype=np.uint8) & 1
    return np.where(bits, -1.0, 1.0)


def drift(a: Mapping[str, Sequence[float]], b: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """How far arrays moved between two fingerprints, relative to their lengths.

    Args:
        a: a fingerprint.
        b: another one; arrays that only one of them has are left out.

    Returns:
        name -> the change of the length, or the root mean square change of the projections where
        that is more, over the greater of both lengths; 0 where both are 0. For changes in random
        directions this is the length of the change over the vector's, within a third or so.
    """
    return {name: _moved(a[name], b[name]) for name in a if name in b}


def _moved(a: Sequence[float], b: Sequence[float]) -> float:
    change = np.subtract(a, b)
    length = max(a[0], b[0])
    moved = max(abs(change[0]), float(np.sqrt(np.mean(change[1:] ** 2))))
    return float(moved / length) if length > 0 else 0.0


def tolerance(*keys: Mapping[str, Any]) -> float:
    """How far features made under these keys may drift and still count as the same."""
    narrow = any(key.get("precision") in NARROW for key in keys)
    return NARROW_TOLERANCE if narrow else TOLERANCE


def is_fingerprint(value: Any, arrays: Sequence[str]) -> bool:
    """Whether a value from a file is a fingerprint of some of these arrays."""
    if not isinstance(value, dict) or not value.keys() <= {*arrays}:
        return False
    return all(
        isinstance(numbers, list)
        and len(numbers) == N_NUMBERS
        and all(isinstance(x, int | float) and not isinstance(x, bool) for x in numbers)
        and bool(np.isfinite(numbers).all())
        and numbers[0] >= 0
        for numbers in value.values()
    )


# ---------------------------------------------------------------------------- for people


def short_form(fingerprint: Mapping[str, Sequence[float]]) -> str:
    """A fingerprint at a glance: 8 hex digits, and the length of the head or of the last array."""
    if not fingerprint:
        return ""
    name = "head" if "head" in fingerprint else [*fingerprint][-1]
    return f"{key_digest(fingerprint)[:8]}, length of {name} {fingerprint[name][0]:g}"


def describe_drift(moved: Mapping[str, float], allowed: float) -> str:
    """What moved, in words: "the fingerprint moved by up to 0.12 (head 0.12, ...; ...)"."""
    most = sorted(moved, key=lambda name: -moved[name])[:3]
    listed = ", ".join(f"{name} {moved[name]:.2g}" for name in most)
    more = f" and {len(moved) - len(most)} more" if len(moved) > len(most) else ""
    return (
        f"the fingerprint moved by up to {moved[most[0]]:.2g} of a vector's length "
        f"({listed}{more}; up to {allowed:g} is rounding)"
    )


def describe_versions(a: Mapping[str, str], b: Mapping[str, str]) -> str:
    """Which library versions differ: "versions: timm: 1.0.20 -> 1.0.31"."""
    return f"versions: {'; '.join(key_differences(a, b)) or 'all the same'}"
