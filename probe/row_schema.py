"""What a stored row must be made of, see ROW.md: whoever reads one needn't ask again.

Entries that aren't named here may be anything that JSON has, for later versions add some.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from probe.metrics import overlap
from probe.metrics.classification import THRESHOLD

WHOLE = range(-(2**63), 2**64)  # what numpy and data frames hold


class Kind(NamedTuple):
    """What an entry should be."""

    told: str
    fits: Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return type(value) is int or type(value) is float


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _maybe(of: Kind) -> Kind:
    return Kind(f"{of.told} or null", lambda value: value is None or of.fits(value))


def _list(of: Kind) -> Kind:
    return Kind(
        f"a list, each {of.told}",
        lambda value: isinstance(value, list) and all(map(of.fits, value)),
    )


def _each(of: Kind) -> Kind:
    return Kind(
        f"an object, each {of.told}",
        lambda value: isinstance(value, dict) and all(map(of.fits, value.values())),
    )


TEXT = Kind("text", lambda value: isinstance(value, str))
NUMBER = Kind("a number", _is_number)
COUNT = Kind("a whole number from 0", _is_count)
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
LIST = Kind("a list", lambda value: isinstance(value, list))
SCORE_TYPES = (*THRESHOLD, "prediction", overlap.SCORE_TYPE)
SCORE_TYPE = Kind(f"one of {', '.join(SCORE_TYPES)}", lambda value: value in SCORE_TYPES)
PLACE = Kind(
    "a layer and a pool",
    lambda value: isinstance(value, list) and len(value) == 2 and _is_count(value[0]),
)
DIGESTS = _each(Kind("a checksum or digest", lambda value: _is_count(value) or type(value) is str))
CHECKSUMS = _each(_maybe(COUNT))
METRICS = _each(_maybe(NUMBER))

# "?": it may be missing. An object's entries stand below it.
Schema = Mapping[str, "Kind | Schema"]
INTERVAL: Schema = dict.fromkeys(("value", "low", "high"), _maybe(NUMBER))
PLACES = Kind(
    "a list of layers and pools",
    lambda value: (
        isinstance(value, list)
        and all(
            isinstance(at, dict)
            and isinstance(at.get("pool"), str)
            and all(_is_count(at.get(name, 0)) for name in ("layer", "n_last", "file"))
            for at in value
        )
    ),
)
PARTS = Kind(
    "a list of two encoders or more",
    lambda value: (
        isinstance(value, list)
        and len(value) > 1
        and all(
            isinstance(part, dict)
            and part.keys() == {*PART_TEXTS, "size", "key"}
            and all(isinstance(part[name], str) for name in PART_TEXTS)
            and _is_count(part["size"])
            and isinstance(part["key"], dict)
            for part in value
        )
    ),
)
PART_TEXTS = ("model", "label", "encoder", "digest")
LEAKS: Schema = {
    f"{which}{name}{may}": _maybe(COUNT) if name == "groups" else COUNT
    for which, may in (("", ""), ("val_", "?"))
    for name in ("n", "exact", "near", "groups")
}
SPLIT: Schema = {"name?": TEXT, "of?": COUNT, "rule?": TEXT}
ROW: Schema = {
    "features": {
        **dict.fromkeys(("model", "dataset", "task", "digest", "encoder?", "label?"), TEXT),
        "size": COUNT,
        "key?": {"layers?": OBJECT},
        "samples": DIGESTS,
        "tables?": CHECKSUMS,
        "joined?": PARTS,
    },
    "probe": {
        "kind": TEXT,
        "read?": _list(TEXT),
        "layer?": _maybe(COUNT),
        "places?": PLACES,
        "few_shot?": {"shots": COUNT},
        "training_seed?": _maybe(COUNT),
        "place_chosen?": {"by": TEXT, "among?": _list(PLACE)},
        "k_among?": Kind("a list of counts", lambda value: value and _list(COUNT).fits(value)),
    },
    "seed": NUMBER,
    "metrics": _each(OBJECT),
    "val_metrics": METRICS,
    "n": _each(COUNT),
    "seconds": NUMBER,
    "versions": OBJECT,
    "marks": _list(TEXT),
    "seen": TEXT,
    "protocol": TEXT,
    "target": OBJECT,
    "split": SPLIT,
    "trained_on": OBJECT,
    "without_twins": METRICS,
    "intervals": _each(TEXT),
    "per_class": _each(LIST),
    "per_size": _each(LIST),
    "temperature": _maybe(NUMBER),
    "episodes": _each(_list(_maybe(NUMBER))),
    "score_type": SCORE_TYPE,
    "probe_protocol": {"changed?": LIST},
    "chosen": {"settings?": OBJECT},
    "cost": {
        **dict.fromkeys(("parameters?", "trained_parameters?", "bytes_per_image?"), _maybe(COUNT)),
        **dict.fromkeys(
            ("images_per_second?", "inference_seconds_per_image?", "training_seconds?"),
            _maybe(NUMBER),
        ),
        **dict.fromkeys(("device?", "precision?"), _maybe(TEXT)),
    },
    "id": TEXT,
    "names?": _list(TEXT),
}
TRAINED_ON: Schema = {
    **{"dataset": TEXT, "digest": TEXT, "samples": DIGESTS, "tables?": CHECKSUMS},
    **{"target?": OBJECT, "split?": SPLIT},
}


def check_row(row: Mapping[str, Any]) -> None:
    """Whether a row is made of what it should be.

    Args:
        row: its JSON, with the fields that early rows lack.

    Raises:
        ValueError: it isn't; the message names the entry.
    """
    _check_values(row)
    _check(row, ROW, "")
    for name, of in row["metrics"].items():
        _check(of, INTERVAL, f"metrics.{name}.")
    if row["leaks"] is not None:
        _check(row["leaks"], LEAKS, "leaks.")
    if row["trained_on"]:
        _check(row["trained_on"], TRAINED_ON, "trained_on.")


def _check(found: Any, schema: Schema, where: str) -> None:
    if not isinstance(found, dict):
        raise ValueError(f"{where[:-1]} should be an object")
    for name, kind in schema.items():
        place = name.removesuffix("?")
        if place not in found:
            if name == place:
                raise ValueError(f"no {where}{place}")
        elif not isinstance(kind, Kind):
            _check(found[place], kind, f"{where}{place}.")
        elif not kind.fits(found[place]):
            raise ValueError(f"{where}{place} should be {kind.told}")


def _check_values(value: Any) -> None:
    """Numbers must be finite and of usual size, texts such as UTF-8 has."""
    if isinstance(value, dict):
        for name, each in value.items():
            name.encode()  # of a lone surrogate a UnicodeEncodeError, which is a ValueError
            _check_values(each)
    elif isinstance(value, list):
        for each in value:
            _check_values(each)
    elif isinstance(value, str):
        value.encode()
    elif type(value) is int and value not in WHOLE:
        raise ValueError(f"a number of {value.bit_length()} bits")
    elif type(value) is float and not math.isfinite(value):
        raise ValueError(f"{value} is no number")
