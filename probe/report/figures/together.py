"""Each two encoders together: how much better than the better one, and errors in common.

Above the diagonal they stand side by side, below it their scores are averaged.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from probe.report.figures.cka import in_tile
from probe.report.figures.frame import Asked, Frame, nothing
from probe.report.figures.heat import Scale, Tile
from probe.report.findings.comparisons import Asking
from probe.report.findings.complement import (
    AVERAGED,
    JOINED,
    Study,
    Together,
    candidates,
    study,
    words_of,
)
from probe.report.findings.standing import metric_of
from probe.report.pages.pairs import lacking_of, names_of

LEVEL = 0.05
LEAST = 0.02  # of a metric: smaller gains are pale
CAPTION = (
    "Tile: how much {better} {metric} on test is of two encoders together than of the better one alone: "
    "side by side above the diagonal, of averaged scores below it. Below that, where there is room, "
    "errors in common (wrong in both / wrong in either), which are {chance} by chance. Behind a name its own "
    "{metric}. {corner}"
)
CORNER = "Corner: better than each of the two, p below {level:g} by Holm over all that is shown of a panel."
NO_CORNER = "None is better than each of the two with p below {level:g} by Holm."


@dataclass(frozen=True)
class Gain(Tile):
    """Two encoders together; the value is how much better than the better one."""

    dataset: str
    metric: str
    way: str  # JOINED or AVERAGED; "" on the diagonal
    together: float = math.nan  # the metric
    low: float = math.nan  # ends of the gain's interval
    high: float = math.nan
    p: float = math.nan  # that they are better than each
    adjusted: float = math.nan  # by Holm over the panel
    in_common: float = math.nan  # errors of both / errors of either
    chance: float = math.nan
    kappa: float = math.nan  # of their answers
    same: float = math.nan  # share of equal answers


def make(asked: Asked) -> Frame[Gain]:
    """A matrix for each data set and way of asking that has rows of two encoders together.

    Raises:
        RequestError: there is none, or none can be compared.
    """
    having = [c for c in asked.contenders if c.value(asked.metric) is not None]
    asking = Asking((asked.metric,))
    found = [
        study(of, asked.people, asking, has_cka=False)
        for of in candidates(having)
        if any(each.joined or each.averaged for each in of)
    ]
    if not found:
        raise nothing("rows of two encoders together", "probe --kind linear --model all+ --pairs")
    tiles = [tile for of in found for tile in _tiles(of, asked.metric)]
    most = max(LEAST, *(abs(tile.value) for tile in tiles if not math.isnan(tile.value)))
    notes = [f"Left out: {of.first.dataset}: {why}" for of in found for why in of.failed]
    notes += [words for of in found for words in lacking_of(of, of.first.dataset)]
    scale = Scale(-most, most, f"{asked.metric} over the better one", is_diverging=True)
    return Frame("heat", tuple(tiles), _caption(tiles, asked.metric), tuple(notes), scale=scale)


def _tiles(of: Study, metric: str) -> Iterator[Gain]:
    names, pairs = names_of(of), {}
    encoders = {id(c): c for each in of.pairs for c in (each.of.a, each.of.b)}
    for each in of.pairs:
        ends = id(each.of.a), id(each.of.b)
        pairs[ends] = each, JOINED
        pairs[ends[::-1]] = each, AVERAGED
    own = {i: c.value(metric) for i, c in encoders.items()}
    panel = f"{of.first.dataset}, {words_of(of.first)}"
    for i in encoders:
        value = own[i]
        row = f"{names[i]}\n{value.value:.3f}" if value else names[i]
        for j in encoders:
            yield _tile((panel, row, names[j]), of.first.dataset, metric, pairs.get((i, j)))


def _tile(
    words: tuple[str, str, str], dataset: str, metric: str, found: tuple[Together, str] | None
) -> Gain:
    tile = Gain(*words, math.nan, "", "", False, dataset, metric, found[1] if found else "")
    if found is None:  # an encoder and itself
        return tile
    together, way = found
    if alike := together.alike:
        shares = {"in_common": alike.in_common, "chance": alike.chance}
        tile = replace(tile, **shares, kappa=alike.kappa, same=alike.same)
    against = next((w for w in together.ways if w.way == way), None)
    if against is None:
        return tile
    d, is_loss = against.better, metric_of(metric).is_loss
    low, high = (-d.high, -d.low) if is_loss else (d.low, d.high)
    return replace(
        tile,
        value=against.gain,
        text=f"{round(against.gain, 3) + 0.0:+.3f}".replace("0.", ".", 1),
        more="" if math.isnan(tile.in_common) else f"{in_tile(tile.in_common)} in common",
        is_marked=against.adjusted < LEVEL,
        together=d.a,
        low=low,
        high=high,
        p=against.p,
        adjusted=against.adjusted,
    )


def _caption(tiles: Sequence[Gain], metric: str) -> str:
    found = sorted({in_tile(tile.chance) for tile in tiles if not math.isnan(tile.chance)})
    chance = " to ".join(dict.fromkeys((found[0], found[-1]))) if found else "unknown"
    corner = CORNER if any(tile.is_marked for tile in tiles) else NO_CORNER
    better = "lower" if metric_of(metric).is_loss else "higher"
    return CAPTION.format(
        better=better, metric=metric, chance=chance, corner=corner.format(level=LEVEL)
    )
