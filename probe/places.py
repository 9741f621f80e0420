"""Where in encoders features are taken: one layer and pool, several to compare, or side by side.

In ``--layer``, ``--pool`` and ``--model`` a comma compares and a plus joins: "2,5" is layer 2 and
layer 5, "2+5" both side by side, "all+" every layer side by side.

Layers have the numbers of the feature file. Of ``extract --layer-norm norm2`` layer i lies half a
block further on than usual (``norm2`` of block i + 1), and only the last is the usual one.

The last n layers side by side are DINOv2's form of the linear probe (``dinov2/eval/linear.py``,
``create_linear_input``): pool cls is the class tokens of the last n, concat those and the mean over
the patch tokens of the last one. Pool mean is the means of the last n.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cache.aggregate import AGGREGATES
from cache.commands.settings import check, setting
from cache.errors import RequestError
from probe.arrays import Floats
from probe.protocols import USUAL, Reading

if TYPE_CHECKING:
    from cache.features import Features  # h5py: --help shouldn't wait for it


POOLS = ("cls", "mean", "head", "proj", "concat")
TOKENS = "tokens"  # in a pool's place where patches are read one by one
ALL, AUTO = "all", "auto"  # of --layer
EVERY = "all+"  # every layer, or encoder, side by side
LAST_N = re.compile(r"last([1-9]\d*)")  # "last4": the last four side by side
NUMBERS = re.compile(r"-?\d+(\+-?\d+)*")  # "11", or "2+5+8+11" side by side
JOINED = "joined"  # the pool of a row that saw several places side by side


PATIENT = "patient"  # the word of --aggregate that is about scores, not features


def _read_layer(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


@dataclass(frozen=True)
class PlacesConfig:
    """Where in the encoder features are taken, and which of several places read test.

    Raises:
        RequestError: a word that names no layers, pools or way to aggregate.
    """

    # A number, negative from the end; "all": each stored layer, test unread; "auto": the one that
    # is best without test, and the last; "last4": the last four side by side; "2+5": these two side
    # by side; "all+": every one; "2,5+8": compared.
    layer: int | str = setting(
        -1,
        "number of the block or stage, -1 the last; 2+5+8: these side by side; all+: every layer side "
        "by side; last4: the last four; 2,5: val numbers of each; all: of every layer; auto: test of "
        "the best by val, and of the last",
        read=_read_layer,
    )
    pools: tuple[str, ...] = setting(
        (),
        f"{', '.join(POOLS)}; cls+mean: side by side; several comma separated are compared on val",
        flag="--pool",
        metavar="NAMES",
        shown="cls where there is one, else head at the last layer, else mean; with --protocol what "
        "its paper reads; zeroshot: proj",
    )
    aggregate: str = setting(
        "mean",
        f"{' or '.join(AGGREGATES)}: what the slices of a volume become before the probe (mean); "
        f"{PATIENT}: measure patients, by the mean of their samples' scores; both as in "
        f"max,{PATIENT}",
        metavar="WORDS",
        shown="",
    )
    all_test: bool = setting(False, "where layers or pools are compared: read test for each")

    def __post_init__(self) -> None:
        words = str(self.layer).split(",")
        alone = (AUTO,) if len(words) == 1 else ()
        for word in words:
            is_known = word in (ALL, EVERY, *alone) or LAST_N.fullmatch(word)
            if not (is_known or NUMBERS.fullmatch(word)):
                raise RequestError(
                    f"--layer takes a number, -1 for the last, {ALL}, {AUTO}, 2+5 for layers 2 and 5 "
                    f"side by side, {EVERY} for every layer or last4 for the last four; not "
                    f"{self.layer!r}"
                )
        refuse_twice("layer", words)
        check(self)
        if unknown := [pool for pool in self.single_pools if pool not in POOLS]:
            raise RequestError(f"--pool takes {', '.join(POOLS)}, not {unknown[0]!r}")
        refuse_twice("pool", self.pools)
        if any({"concat"} < {*pool.split("+")} for pool in self.pools):
            raise RequestError(f"concat is cls and mean side by side; not {', '.join(self.pools)}")
        if self.layer == AUTO and any("+" in pool for pool in self.pools):
            raise RequestError(
                f"--layer {AUTO} chooses among single pools; concat is cls and mean side by side"
            )
        if self.aggregate not in AGGREGATES:
            raise RequestError(f"--aggregate takes {', '.join(AGGREGATES)}, not {self.aggregate!r}")

    @property
    def single_pools(self) -> list[str]:
        """Every pool that is named, whether side by side with others or not."""
        return list(dict.fromkeys(pool for words in self.pools for pool in words.split("+")))

    @property
    def is_comparing(self) -> bool:
        """Whether several layers or pools are compared, and one may be chosen."""
        return self.layer in (ALL, AUTO) or "," in str(self.layer) or len(self.pools) > 1

    @property
    def reads_test(self) -> bool:
        """Whether test is read: not while layers or pools are compared, unless asked for."""
        return not self.is_comparing or self.layer == AUTO or self.all_test


def refuse_twice(what: str, words: Sequence[str]) -> None:
    """Refuse a word that is compared with itself, or stands beside itself."""
    for several in (words, *(word.split("+") for word in words)):
        if len(set(several)) < len(several):
            raise RequestError(f"each {what} may be named once, found {', '.join(words)}")


@dataclass(frozen=True)
class Place:
    """Where features are taken."""

    layer: int  # absolute; of several the last
    pool: str  # one of probe.places.POOLS, or TOKENS
    n_last: int = 1  # layers side by side, which end with this one
    # The file that it was found in; places are the same whatever encoder they are of.
    features: Features | None = field(default=None, compare=False, repr=False)
    file: int = 0  # which of a question's feature files, where it joins several encoders

    @property
    def settings(self) -> dict[str, Any]:
        """What a row's question holds of it."""
        several = {"n_last": self.n_last} if self.n_last > 1 else {}
        of_file = {"file": self.file} if self.file else {}
        return {"layer": self.layer, "pool": self.pool, **several, **of_file}

    @property
    def arrays(self) -> list[tuple[int, str]]:
        """Layer and pool of each array that is read there, the first on the left."""
        pool = "cls" if self.pool == "concat" else self.pool
        own = [(n, pool) for n in range(self.layer - self.n_last + 1, self.layer + 1)]
        return [*own, (self.layer, "mean")] if self.pool == "concat" else own

    def __str__(self) -> str:
        first = self.layer - self.n_last + 1
        layers = f"layers {first} to {self.layer}" if self.n_last > 1 else f"layer {self.layer}"
        of = f" of encoder {self.file + 1}" if self.file else ""
        return f"{layers}, {self.pool}{of}"


def place_of(settings: Mapping[str, Any]) -> Place:
    """The place that ``Place.settings`` says.

    Raises:
        KeyError, TypeError, ValueError: it says none.
    """
    layer, pool, n_last = settings["layer"], settings["pool"], settings.get("n_last", 1)
    file = settings.get("file", 0)
    are_whole = all(type(number) is int for number in (layer, n_last, file))
    if not (are_whole and pool in (*POOLS, TOKENS) and 1 <= n_last <= layer + 1 and file >= 0):
        raise ValueError(f"no place: {dict(settings)}")
    return Place(layer, pool, n_last, file=file)


def settings_of(places: Sequence[Place]) -> dict[str, Any]:
    """What a row's question holds of one place, or of several side by side."""
    if len(places) == 1:
        return places[0].settings
    each = [place.settings for place in places]
    return {"layer": max(place.layer for place in places), "pool": JOINED, "places": each}


def places_in(settings: Mapping[str, Any]) -> tuple[Place, ...]:
    """The places that ``settings_of`` says.

    Raises:
        KeyError, TypeError, ValueError: it says none.
    """
    if "places" in settings:
        return tuple(place_of(each) for each in settings["places"])
    return (place_of(settings),)


def name_places(places: Sequence[Place]) -> str:
    """Places in words."""
    if len(places) == 1:
        return str(places[0])
    layers, pools = (
        list(dict.fromkeys(str(getattr(place, of)) for place in places)) for of in ("layer", "pool")
    )
    return f"layers {'+'.join(layers)}, {'+'.join(pools)}"


def find_places(
    features: Features, layer: int | str, pools: Sequence[str] = (), reading: Reading = USUAL
) -> list[Place]:
    """The places that are asked for, from the first layer to the last.

    Each layer gives those of the pools that it has, so that encoders with a class token and without
    are asked by one command: head belongs to the last one only, and ``lacking_pools`` names those
    that no layer has.

    Args:
        features: the file.
        layer: a number, negative from the end; "all" or "auto", every stored one; or "last4".
        pools: in the order that is wanted; none: ``probe.places.default_pool`` of each layer.
        reading: what is meant there.

    Raises:
        RequestError: the file doesn't hold the layer, or none of the pools there.
    """
    numbers = stored_layers(features, layer)
    lacking = lacking_pools(features, layer, pools)
    if pools and len(lacking) == len(pools):
        where = f"layer {numbers[0]}" if isinstance(layer, int) else "any layer"
        there = [p for p in POOLS if any(has_pool(features, number, p) for number in numbers)]
        raise RequestError(
            f"{features.path.name} has no pool {' or '.join(pools)} at {where} of "
            f"{features.encoder}; there it has {', '.join(there)}"
        )
    wanted = [pool for pool in pools if pool not in lacking]
    if isinstance(layer, str) and layer not in (ALL, AUTO):
        pools = wanted or [default_pool(features, -1, reading)]
        return [last_layers(features, int(layer.removeprefix("last")), pool) for pool in pools]
    if not wanted:
        wanted_of = {n: [default_pool(features, n, reading)] for n in numbers}
    else:
        wanted_of = {n: [pool for pool in wanted if has_pool(features, n, pool)] for n in numbers}
    return [
        Place(number, pool, features=features) for number in numbers for pool in wanted_of[number]
    ]


def lacking_pools(features: Features, layer: int | str, pools: Sequence[str]) -> list[str]:
    """Those of the pools that none of the layers has: cls and concat, of a CNN."""
    numbers = stored_layers(features, layer)
    return [pool for pool in pools if not any(has_pool(features, n, pool) for n in numbers)]


def stored_layers(features: Features, layer: int | str) -> list[int]:
    """The layers that are meant; of several side by side all, for each must have the pool.

    Raises:
        RequestError: the file doesn't hold the one that is named.
    """
    if isinstance(layer, int):
        return [features.find_layer(layer)]
    return sorted(features.layers) or [features.last_layer]


def has_pool(features: Features, layer: int, pool: str) -> bool:
    """Whether a layer has a pool; concat is of those that have cls and mean."""
    there = pools_at(features, layer)
    if pool == "concat":
        return "cls" in there and "mean" in there
    return pool in there


def last_layers(features: Features, n_last: int, pool: str) -> Place:
    """The last layers side by side, if the file holds them all.

    Raises:
        RequestError: it doesn't, or the pool isn't of every layer.
    """
    last = features.last_layer
    if pool not in ("cls", "mean", "concat"):
        raise RequestError(
            f"--layer last{n_last} takes --pool cls, mean or concat, not {pool}, which the last "
            "layer alone has"
        )
    needed = "cls" if pool == "concat" else pool
    wanted = range(last - n_last + 1, last + 1)
    if wanted.start < 0:
        raise RequestError(
            f"--layer last{n_last} needs {needed} of {n_last} layers; the encoder has {last + 1} layers"
        )
    lacking = [number for number in wanted if needed not in features.layers.get(number, [])]
    if lacking:
        raise RequestError(
            f"--layer last{n_last} needs {needed} of layers {wanted.start} to {last}, and "
            f"{features.path.name} has none of layer {lacking[0]}; name fewer, or make "
            "it anew with `extract --layers all`"
        )
    return Place(last, pool, n_last, features)


def last_place(features: Features, pools: Sequence[str] = (), reading: Reading = USUAL) -> Place:
    """What is asked where nobody chooses a layer: the last one, with the first pool it has."""
    there = [pool for pool in pools if has_pool(features, features.last_layer, pool)]
    pool = [*there, default_pool(features, -1, reading)][0]
    return Place(features.last_layer, pool, features=features)


def read_place(features: Features, place: Place, aggregate: str = "mean") -> Floats:
    """(S, D) features of every sample; of several layers side by side, the first on the left.

    Args:
        features: the file.
        place: where.
        aggregate: what a sample's several rows become: their "mean" or "max".

    Raises:
        RequestError: no such layer or pool.
        BrokenCache: the stored rows don't match their checksums.
    """
    parts = [read_samples(features, layer, pool, aggregate) for layer, pool in place.arrays]
    return np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]


def read_side_by_side(
    places: Sequence[Place], files: Sequence[Features], aggregate: str = "mean"
) -> Floats:
    """(S, D) features of every sample at several places, the first on the left.

    Args:
        places: where.
        files: what each place's ``file`` counts; samples in one order.
        aggregate: what a sample's several rows become.

    Raises:
        RequestError, BrokenCache: as ``read_place``.
    """
    if len(places) == 1:
        return read_place(files[places[0].file], places[0], aggregate)
    widths = [width_of(place, files) for place in places]
    dtypes = [_dtype_of(place, files[place.file]) for place in places]
    x, start = np.empty(0), 0
    # One after the other: all twice would be gigabytes.
    for place, width in zip(places, widths, strict=True):
        part = read_place(files[place.file], place, aggregate)
        if not start:
            x = np.empty((len(part), sum(widths)), np.result_type(*dtypes))
        x[:, start : start + width] = part
        start += width
        del part  # before the next is read
    return x


def _dtype_of(place: Place, features: Features) -> np.dtype[Any]:
    """As ``read_place`` gives it: several rows of a sample become float32."""
    stored = [features.memmap(*array).dtype for array in place.arrays]
    return np.result_type(*stored, *([] if features.rows_are_samples else [np.float32]))


def width_of(place: Place, files: Sequence[Features]) -> int:
    """Of the features at a place."""
    return sum(files[place.file].memmap(*array).shape[-1] for array in place.arrays)


def default_pool(features: Features, layer: int, reading: Reading = USUAL) -> str:
    """The pool that is meant when none is named.

    Usually cls, else head at the last layer, else mean; or what a paper reads of the encoder.
    """
    layer = features.find_layer(layer)
    is_last = layer == features.last_layer
    return reading.pool(features.encoder, pools_at(features, layer), is_last)


def pools_at(features: Features, layer: int) -> list[str]:
    """The pools of a layer by its absolute number; head and proj belong to the last one."""
    of_last = [pool for pool in ("head", "proj") if pool in features.pools]
    return [*features.layers.get(layer, []), *(of_last if layer == features.last_layer else [])]


def read_samples(features: Features, layer: int, pool: str, aggregate: str = "mean") -> Floats:
    """(S, D) features of every sample, of one layer and pool.

    Args:
        features: the file.
        layer: absolute, or negative from the end.
        pool: one that the layer has.
        aggregate: what a sample's several rows become: their "mean" or "max".

    Raises:
        RequestError: no such layer or pool.
        BrokenCache: the stored rows don't match their checksums.
    """
    return features.by_sample(features.array(layer, pool), aggregate)
