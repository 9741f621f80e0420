"""CKA: how alike layers are, of one encoder or two, or one layer of several.

What ``probe.report.statistics.similarity`` says of CKA and its check holds here.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from cache.errors import RequestError
from probe.places import ALL, Place
from probe.report.figures.files import AskedOfFiles, caption_of, panel_of
from probe.report.figures.frame import Frame
from probe.report.figures.heat import Scale, Tile
from probe.report.figures.pairs import Both, pairs_of, tuned_only
from probe.report.findings.alike import LayersAlike, Pair, layers_alike
from probe.report.findings.matched import Seen

APART = 0.1  # of CKA and its check: more is marked
SCALE = Scale(0, 1, "CKA")
LAST = -1


@dataclass(frozen=True)
class Alike(Tile):
    """CKA of two layers."""

    dataset: str
    split: str
    encoder: str  # of the row
    layer: int
    pool: str
    width: int
    other: str  # of the column
    other_layer: int
    other_pool: str
    other_width: int
    trimmed: float  # the check: without the samples of the largest norms
    n: int  # samples
    n_trimmed: int  # of the check
    estimator: str


@dataclass(frozen=True)
class Compared:
    """One panel."""

    title: str
    found: LayersAlike
    rows: tuple[str, ...]
    columns: tuple[str, ...]


def make(asked: AskedOfFiles) -> Frame[Alike]:
    """All layers of a data set's one or two encoders; or one layer of each encoder.

    Raises:
        RequestError: too many encoders, or other data sets' images.
    """
    if asked.layer in (None, ALL) or len(asked.pools) > 1:
        return _of_pairs(asked, *pairs_of(asked))
    panels = []
    for dataset, files in asked.of_datasets().items():
        places = [place for file in files for place in asked.places(file, LAST)]
        if len(places) < 2:
            raise RequestError(
                f"one layer is compared with that of another encoder, and of {dataset} there is one "
                "file; name two, or --layer all"
            )
        found = compare(asked, places)
        names = encoder_names(found.left)
        panels.append(Compared(panel_of(found.samples), found, names, names))
    return _frame(panels, (), "", "")


def before_and_after(asked: AskedOfFiles) -> Frame[Alike]:
    """All layers of each encoder before tuning with those after it: figure 7 of paper 001.

    Raises:
        RequestError: there is no tuned encoder.
    """
    return _of_pairs(asked, *tuned_only(asked))


def last_layers(asked: AskedOfFiles) -> Frame[Alike]:
    """The last layer of all encoders of each data set: figure 8 of paper 001.

    Raises:
        RequestError: a data set has one encoder.
    """
    return make(asked if isinstance(asked.layer, int) else replace(asked, layer=LAST))


def _of_pairs(asked: AskedOfFiles, pairs: Sequence[Both], notes: tuple[str, ...]) -> Frame[Alike]:
    panels = []
    axes: set[tuple[str, str]] = set()
    is_tuned = all(both.is_tuned for both in pairs)
    for both in pairs:
        left = asked.places(both.one, ALL)
        right = asked.places(both.other, ALL) if both.other is not both.one else []
        if len(left) > len(right) > 0 and not is_tuned:  # pages have more room across
            both, left, right = Both(both.other, both.one), right, left
        found = compare(asked, left, right)
        pool = pool_of([*found.left, *found.right])
        axes.add((_axis(found.left), _axis(found.right)))
        panel = panel_of(found.samples, f"{both.title}{pool}")
        panels.append(Compared(panel, found, layer_names(found.left), layer_names(found.right)))
    if is_tuned:
        return _frame(panels, notes, "layer before tuning", "layer after tuning")
    if len(axes) == 1:  # they name the encoders
        panels = [replace(of, title=panel_of(of.found.samples)) for of in panels]
        return _frame(panels, notes, *axes.pop())
    return _frame(panels, notes, "layer of the first", "layer of the second")


def pool_of(layers: Sequence[Seen]) -> str:
    """Behind a name: the pool, if they share one."""
    pools = {seen.pool for seen in layers}
    return f", {pools.pop()}" if len(pools) == 1 else ""


def _axis(layers: Sequence[Seen]) -> str:
    return f"layer of {layers[0].encoder}{pool_of(layers)}"


def compare(asked: AskedOfFiles, left: Sequence[Place], right: Sequence[Place] = ()) -> LayersAlike:
    """CKA as it is asked for."""
    return layers_alike(
        left,
        right,
        split=asked.split,
        is_debiased=not asked.biased,
        batch=asked.batch,
        seed=asked.seed,
    )


def layer_names(side: Sequence[Seen]) -> tuple[str, ...]:
    """Layers of one encoder."""
    has_pools = len({seen.pool for seen in side}) > 1
    return tuple(f"{seen.layer}, {seen.pool}" if has_pools else f"{seen.layer}" for seen in side)


def encoder_names(places: Sequence[Seen]) -> tuple[str, ...]:
    """Layers of several encoders."""
    return tuple(f"{seen.encoder}, {seen.place}" for seen in places)


def _frame(panels: Sequence[Compared], notes: tuple[str, ...], y: str, x: str) -> Frame[Alike]:
    tiles = tuple(tile for panel in panels for tile in _tiles(panel))
    for panel in panels:
        notes += tuple(
            f"{panel.found.samples.dataset}: {note}" for note in panel.found.samples.notes
        )
    return Frame("heat", tiles, _caption(panels, tiles), notes, x, y, scale=SCALE)


def _tiles(panel: Compared) -> Iterator[Alike]:
    found = panel.found
    way = "debiased" if found.is_debiased else "biased"
    pairs = iter(found.pairs())
    for row in panel.rows:
        for column in panel.columns:
            of: Pair = next(pairs)
            is_marked = abs(of.cka - of.trimmed) > APART
            yield Alike(
                *(panel.title, row, column, of.cka, in_tile(of.cka), "", is_marked),
                *(found.samples.dataset, found.samples.split),
                *(of.encoder, of.layer, of.pool, of.width),
                *(of.other, of.other_layer, of.other_pool, of.other_width),
                *(of.trimmed, of.n, of.n_trimmed, way),
            )


def in_tile(value: float) -> str:
    """Two digits in little room: ".87"."""
    if math.isnan(value):
        return "?"
    value = round(value, 2) or 0.0  # not -0.0
    if value in (0, 1):
        return f"{value:.0f}"
    return f"{value:.2f}".replace("0.", ".", 1).replace("-", "\N{MINUS SIGN}")


def _caption(panels: Sequence[Compared], tiles: Sequence[Alike]) -> str:
    """How the numbers were made, of how many samples, and what the check says."""
    ways = [(panel.found.samples.dataset, panel.found.describe()) for panel in panels]
    checked = check_of([(tile.value, tile.trimmed) for tile in tiles], "Corner", "Grey")
    return " ".join([caption_of(ways), *checked])


def check_of(found: Sequence[tuple[float, float]], mark: str, unknown: str) -> list[str]:
    """What CKA and its check say together, and what odd numbers mean.

    Args:
        found: CKA, and the check.
        mark: what marks those that differ.
        unknown: what stands where a layer has no CKA.
    """
    apart = [abs(value - trimmed) for value, trimmed in found if abs(value - trimmed) >= 0]
    without = "without the 1 % of samples of the largest norms"
    said = []
    if apart and max(apart) > APART:
        said.append(
            f"{mark}: {without} it differs by more than {APART:g} (by {max(apart):.2f} at most): few "
            "samples make this number."
        )
    elif apart:
        said.append(f"{without[0].upper()}{without[1:]} no number differs by more than {APART:g}.")
    if any(value < -0.005 for value, _ in found):
        said.append("Debiased CKA of noise is about 0, and may lie below.")
    if len(apart) < len(found):
        said.append(f"{unknown}: a layer without variance.")
    return said
