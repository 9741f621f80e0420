"""Outlines of encoders, remembered: to import a library of models only for a plan takes seconds.

An outline follows from the entry, the size, the libraries' versions and our own code. All of these
are in the name that it is remembered by, so nothing that is out of date is found again.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cache.checked_json import read_checked, write_checked
from cache.commands.names import version_of
from extract.encoders.anatomy import Anatomy, Statistics, Tap
from extract.encoders.outline import Outline
from extract.encoders.table.entry import Entry
from extract.encoders.weights import published as weights

LIBRARIES = ("medprobe", "torch", "torchvision", "timm", "open_clip_torch", "transformers")
PLACES = {
    kind.__name__: kind for kind in (weights.Hub, weights.Url, weights.Package, weights.ByHand)
}


class OutlineMemory:
    """Remembers outlines in a file.

    Args:
        path: may be deleted at any time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, entry: Entry, size: int | None, make: Callable[[], Outline]) -> Outline:
        """The outline of an encoder at a size.

        Args:
            entry: of the encoder.
            size: side of the input, pixels; None: the encoder's own.
            make: makes it, and is asked again when the network is to be built.
        """
        if entry.library == "user":  # somebody's own code may do something else tomorrow
            return make()
        name = _name(entry, size)
        known = read_checked(self._path)
        if name in known:
            return _unpack(known[name], make)
        outline = make()
        packed = _pack(outline)
        if packed is not None:
            write_checked(self._path, {**known, name: packed})
        return outline


def _name(entry: Entry, size: int | None) -> str:
    return hashlib.sha256(repr((entry, size, surroundings())).encode()).hexdigest()


@functools.cache
def surroundings(*folders: Path) -> str:
    """Versions of the libraries and a digest of our own code about encoders, and in other folders."""
    found = hashlib.sha256()
    for folder in (Path(__file__).parent, *folders):
        for path in sorted(folder.rglob("*.py")):
            found.update(path.read_bytes())
    for name in LIBRARIES:
        found.update(f"{name} {version_of(name)}".encode())
    return found.hexdigest()


def _pack(outline: Outline) -> dict[str, Any] | None:
    """An outline as JSON; None where JSON would change it."""
    kind = type(outline.place).__name__
    if outline.place is not None and kind not in PLACES:
        return None
    if json.loads(json.dumps(outline.arguments, default=str)) != outline.arguments:
        return None
    packed = asdict(outline)
    place = outline.place and [kind, packed["place"]]
    return packed | {"place": place, "build": None, "load": outline.load is not None}


def _unpack(packed: dict[str, Any], make: Callable[[], Outline]) -> Outline:
    whole = functools.cache(make)

    def load(*arguments: Any) -> Any:
        loader = whole().load
        assert loader is not None, "it was there when the outline was remembered"
        return loader(*arguments)

    anatomy, statistics, place = (packed[name] for name in ("anatomy", "statistics", "place"))
    taps = tuple(Tap(**tap) for tap in anatomy["taps"])
    grids = tuple(grid and tuple(grid) for grid in anatomy["grids"])
    unpacked = {
        "anatomy": Anatomy(**{**_tuples(anatomy), "taps": taps, "grids": grids}),
        "statistics": statistics and Statistics(**_tuples(statistics)),
        "place": place and PLACES[place[0]](**_tuples(place[1])),
        "build": lambda: whole().build(),
        "load": load if packed["load"] else None,
    }
    return Outline(**{**packed, **unpacked})


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """JSON has lists where our dataclasses have tuples."""
    return {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
