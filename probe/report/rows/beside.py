"""Rows of several layers, pools or encoders side by side, in words.

Layers are "0..11" or "2+5+8", pools "cls+mean". What encoders differ in stands between slashes, in
their order: layer "11/4", pool "cls/head".
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import product

from cache.commands.names import counted, short_label
from probe.places import Place
from probe.results import Encoded, Part, Row

EVERY = "all"  # every stored layer
MOST_NAMED = 4  # encoders whose names are tried with and without sizes


def short_name(e: Encoded) -> str:
    """The encoder in a narrow table: "vit", "vit+cnn", or "vit@112+cnn@224" where sizes differ."""
    sizes = {part.size for part in e.joined}
    return "+".join(_sized(part) if len(sizes) > 1 else short_label(part.label) for part in e.parts)


def sizes_of(e: Encoded) -> int | str | None:
    """Of the input, in pixels: 224, or "112/224" of encoders side by side."""
    sizes = [part.size for part in e.joined]
    return "/".join(map(str, sizes)) if len(set(sizes)) > 1 else e.size or None


def sized_name(e: Encoded) -> str:
    """Encoders side by side as --model takes them, whatever sizes there are: "vit@112+cnn@112"."""
    return "+".join(map(_sized, e.parts))


def encoders_of(of: Iterable[Encoded]) -> tuple[str, ...]:
    """Encoders in short, alone or of several side by side, each once."""
    return tuple(dict.fromkeys(short_label(part.label) for e in of for part in e.parts))


def count_encoders(of: Iterable[Encoded]) -> str:
    """How many answered: "3 encoders", "3 encoders and 2 joins of them"."""
    names = {short_name(e): bool(e.joined) for e in of}
    n_joins = sum(names.values())
    said = [counted(len(names) - n_joins, "encoder")] if len(names) > n_joins else []
    return " and ".join([*said, *([f"{counted(n_joins, 'join')} of them"] if n_joins else [])])


def joined_names(e: Encoded) -> tuple[str, ...]:
    """What --model may call encoders side by side: "a+b", "a@112+b", each in full or short; two in
    any order.
    """
    ways = [
        [_ways(name, part.size) for part, name in zip(e.joined, names, strict=True)]
        for names in (
            [part.model for part in e.joined],
            [short_label(part.label) for part in e.joined],
        )
    ]
    # Of many encoders sizes are of all or of none.
    found = [
        "+".join(words)
        for each in ways
        for words in (product(*each) if len(e.joined) <= MOST_NAMED else zip(*each, strict=True))
    ]
    if len(e.joined) == 2:
        found += ["+".join(words) for each in ways for words in product(*reversed(each))]
    return tuple(dict.fromkeys([e.label, short_name(e), *found]))


def part_names(part: Encoded | Part) -> tuple[str, ...]:
    """What --model may call one encoder, alone or of several."""
    own = (part.label, short_label(part.label), part.model)
    return tuple(dict.fromkeys([*own, *(f"{name}@{part.size}" for name in own)]))


def _ways(name: str, size: int) -> tuple[str, str]:
    return name, f"{name}@{size}"


def _sized(part: Encoded | Part) -> str:
    return f"{short_label(part.label)}@{part.size}"


def is_joined(row: Row) -> bool:
    """Whether it saw several places side by side, of one encoder or several."""
    return "places" in row.answered.settings


def layer_of(row: Row) -> int | str | None:
    """The layer, or those side by side in words."""
    if not is_joined(row):
        return row.answered.settings.get("layer")
    return _words(row, lambda _, places: _layer_words(_layers(places)))


def pool_of(row: Row) -> str | None:
    """The pool, or those side by side in words."""
    if not is_joined(row):
        return row.answered.settings.get("pool")
    return _words(row, lambda _, places: "+".join(dict.fromkeys(place.pool for place in places)))


def layer_from_end(row: Row) -> int | str | None:
    """The same by number from the last, -1, for encoders have as many as they have; or EVERY."""
    if not is_joined(row):
        layer, n = row.answered.settings.get("layer"), _n_layers(row.encoded)
        return layer - n if isinstance(layer, int) and n else layer

    def words(part: Encoded | Part, places: Sequence[Place]) -> str:
        layers, n = _layers(places), _n_layers(part)
        if len(layers) > 1 and _are_all(part, layers):
            return EVERY
        return _layer_words([layer - n for layer in layers] if n else layers)

    found = _words(row, words)
    return int(found) if found.lstrip("-").isdigit() else found


def _words(row: Row, words: Callable[[Encoded | Part, Sequence[Place]], str]) -> str:
    each = [words(part, places) if places else "?" for part, places in of_parts(row)]
    return each[0] if len(set(each)) == 1 else "/".join(each)


def of_parts(row: Row) -> list[tuple[Encoded | Part, list[Place]]]:
    """Each encoder with its places, whatever they are: a row may be anyone's, or a later medprobe's."""
    places = [
        Place(at.get("layer", 0), at["pool"], at.get("n_last", 1), file=at.get("file", 0))
        for at in row.answered.settings["places"]
    ]
    return [
        (part, [place for place in places if place.file == i])
        for i, part in enumerate(row.encoded.parts)
    ]


def _layers(places: Sequence[Place]) -> list[int]:
    return list(dict.fromkeys(layer for place in places for layer, _ in place.arrays))


def _layer_words(layers: Sequence[int]) -> str:
    """ "0..11", "2+5+8"."""
    is_run = len(layers) > 2 and list(layers) == [*range(layers[0], layers[-1] + 1)]
    return f"{layers[0]}..{layers[-1]}" if is_run else "+".join(map(str, layers))


def _n_layers(part: Encoded | Part) -> int:
    layers = part.key.get("layers", {})
    n = layers.get("of") if isinstance(layers, dict) else None
    return n if isinstance(n, int) else 0


def _are_all(part: Encoded | Part, layers: Sequence[int]) -> bool:
    """Whether these are the layers that the encoder's file holds."""
    known = part.key.get("layers", {})
    stored = known.get("stored") if isinstance(known, dict) else None
    stored = stored or range(_n_layers(part))
    return sorted(layers) == sorted(stored)


def typed_places(row: Row) -> tuple[str, str]:
    """``--layer`` and ``--pool`` that ask of these places; "" where the flag isn't needed."""
    parts = of_parts(row)
    if not all(places for _, places in parts):
        return "", ""
    return _typed_layer(parts), _typed_pool(parts)


def _typed_layer(parts: Sequence[tuple[Encoded | Part, Sequence[Place]]]) -> str:
    first = parts[0][1][0]
    if first.n_last > 1:
        return f"last{first.n_last}"
    each = [_layers(places) for _, places in parts]
    are_several = max(map(len, each)) > 1
    if are_several and all(_are_all(part, _layers(places)) for part, places in parts):
        return f"{EVERY}+"
    words = []
    for layers in zip(*each, strict=False):
        ends = [layer - _n_layers(part) for layer, (part, _) in zip(layers, parts, strict=True)]
        words.append(layers[0] if len(set(layers)) == 1 else ends[0])
    return "+".join(map(str, words))


def _typed_pool(parts: Sequence[tuple[Encoded | Part, Sequence[Place]]]) -> str:
    pools = [
        tuple(place.pool for place in places if place.layer == layer)
        for _, places in parts
        for layer in dict.fromkeys(place.layer for place in places)
    ]
    is_usual = len(set(pools)) > 1 and all(len(of) == 1 for of in pools)  # cls here, head there
    pools.sort(key=len, reverse=True)  # those of one that has all are in the order asked
    return "" if is_usual else "+".join(dict.fromkeys(pool for of in pools for pool in of))
