"""Which places an answer sees side by side, of one encoder or of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cache.errors import RequestError
from probe.places import (
    ALL,
    AUTO,
    EVERY,
    LAST_N,
    POOLS,
    TOKENS,
    Place,
    default_pool,
    find_places,
    has_pool,
    last_layers,
    refuse_twice,
    stored_layers,
)
from probe.protocols import USUAL, Reading

if TYPE_CHECKING:
    from cache.features import Features  # h5py: --help shouldn't wait for it


def find_joins(
    files: Sequence[Features], layer: int | str, pools: Sequence[str] = (), reading: Reading = USUAL
) -> list[tuple[Place, ...]]:
    """Where is asked: of each answer the places that it sees side by side, the first on the left.

    Encoders come one after the other, of each its layers, of each layer its pools. A layer gives
    those of the pools that it has.

    Args:
        files: one, or those of several encoders side by side.
        layer: a word of ``--layer``.
        pools: those of ``--pool``; none: ``default_pool`` of each layer.
        reading: what is meant there.

    Raises:
        RequestError: a file doesn't hold the layer, or none of the pools there; layers of several
            encoders are to be compared.
    """
    is_plain = not ("," in str(layer) or "+" in "".join((str(layer), *pools)))
    if len(files) == 1 and is_plain:
        return [(place,) for place in find_places(files[0], layer, pools, reading)]
    if len(files) > 1 and {ALL, AUTO} & {*str(layer).split(",")}:
        raise RequestError(
            f"--layer {layer} compares layers of one encoder; of several side by side name one, "
            f"as -1, or {EVERY}"
        )
    found: list[tuple[Place, ...]] = []
    for word in str(layer).split(","):
        each = range(len(files[0].layers)) if word == ALL else [None]
        for nth in each:
            at = [_layers(features, word, nth) for features in files]
            found += [
                tuple(
                    place
                    for file, (features, places) in enumerate(zip(files, at, strict=True))
                    for place in _pooled(features, file, places, pool, reading)
                )
                for pool in pools or ("",)
            ]
    return list(dict.fromkeys(found))


def find_token_places(
    features: Features, layer: int | str, pools: Sequence[str] = ()
) -> list[tuple[Place, ...]]:
    """Where a token file is asked: of each answer the layers that it sees side by side.

    Args:
        features: the token file.
        layer: a word of ``--layer``; -1 is the last one that is stored, where that isn't the
            encoder's last.
        pools: of ``--pool``, of which tokens have none.

    Raises:
        RequestError: the file doesn't hold a layer, or a pool is named.
    """
    if pools and {*pools} != {TOKENS}:
        raise RequestError(f"patches are read one by one, so leave out --pool {','.join(pools)}")
    stored = sorted(features.layers)
    found: list[tuple[int, ...]] = []
    for word in str(layer).split(","):
        if word in (ALL, AUTO):
            found += [(number,) for number in stored]
        elif word == EVERY:
            found.append(tuple(stored))
        elif LAST_N.fullmatch(word):
            numbers = range(-int(word.removeprefix("last")), 0)
            found.append(tuple(features.find_layer(number) for number in numbers))
        else:
            numbers = [_stored(features, stored, int(number)) for number in word.split("+")]
            refuse_twice("layer", [str(number) for number in numbers])
            found.append(tuple(sorted(numbers)))
    return [
        tuple(Place(number, TOKENS, features=features) for number in numbers)
        for numbers in dict.fromkeys(found)
    ]


def _stored(features: Features, stored: Sequence[int], number: int) -> int:
    return stored[-1] if number == -1 else features.find_layer(number)


def _layers(features: Features, word: str, nth: int | None) -> list[Place]:
    """The layers that a word puts side by side, or the nth that it compares; pools come later."""
    if LAST_N.fullmatch(word):
        return [Place(features.last_layer, "", int(word.removeprefix("last")), features)]
    if word in (ALL, EVERY):
        numbers = stored_layers(features, word)
        numbers = numbers if nth is None else [numbers[nth]]
    else:
        # Sorted: another order of columns is no other question.
        numbers = sorted(features.find_layer(int(number)) for number in word.split("+"))
    refuse_twice("layer", [str(number) for number in numbers])
    return [Place(number, "", features=features) for number in numbers]


def _pooled(
    features: Features, file: int, layers: Sequence[Place], pools: str, reading: Reading
) -> list[Place]:
    """Each layer with those of the pools that it has."""
    found = []
    for at in layers:
        names = sorted(pools.split("+"), key=POOLS.index) if pools else []
        names = names or [default_pool(features, at.layer, reading)]
        if at.n_last > 1:
            found += [last_layers(features, at.n_last, pool) for pool in names]
        else:
            found += [replace(at, pool=p) for p in names if has_pool(features, at.layer, p)]
    if not found:
        there = [pool for pool in POOLS if any(has_pool(features, at.layer, pool) for at in layers)]
        raise RequestError(
            f"{features.path.name} has no pool {' or '.join(pools.split('+'))} at the layers of "
            f"{features.encoder} that are named; there it has {', '.join(there)}"
        )
    return [replace(place, file=file) for place in found]
