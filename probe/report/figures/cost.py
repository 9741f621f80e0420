"""A metric against what encoders take: time, parameters, bytes; and which none beats in both.

Encoders that were asked alike about the same samples share a panel, and in those of times the
device that they are of: times of two machines say nothing beside each other.
"""

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from cache.commands.names import counted
from cache.format.key import canonical_json
from probe.report.figures.curves import TEST, counts, said_of, title_of
from probe.report.figures.frame import Asked, Frame, nothing
from probe.report.findings.parts import SPELT, Part, Shape, make_parts, titled
from probe.report.findings.standing import metric_of
from probe.report.rows.contenders import Contender
from probe.report.rows.fields import find_field, no_metric

RATE, FORWARD, PARAMETERS, BYTES = (  # fields of rows
    *("images_per_second", "inference_seconds", "parameters", "bytes"),
)
LABELS = {
    RATE: "images/s of extraction, {device}",
    FORWARD: "seconds of an image's forward pass, {device}",
    PARAMETERS: "parameters of the encoder",
    BYTES: "bytes stored of an image",
}
TIMED = (RATE, FORWARD)
CAPTION = (
    "Blue, joined: no other of the panel is as good and takes less, by the numbers alone, whatever their "
    "intervals. Bars: 95 % interval over test{sd}. n of test: {n} samples."
)
SD = ", of several folds or trainings ± standard deviation"
SHAPE = Shape()


@dataclass(frozen=True)
class Spot:
    """One encoder."""

    panel: str
    name: str
    what: str  # it takes: a field of rows
    x: float  # how much
    metric: str
    value: float
    low: float  # ends of its bar; nan: it has none
    high: float
    n: int  # test samples
    device: str  # that times are of
    is_undominated: bool
    is_sd: bool = False  # whether its bar is a standard deviation


def make(asked: Asked) -> Frame[Spot]:
    """A panel for each data set and way of asking, and of each thing that encoders take.

    Those of most encoders come first, and of the same encoders by several k that of the chosen one, or
    else of the first, is shown. One encoder alone is no panel.

    Raises:
        RequestError: no two rows that were asked alike know what they take.
    """
    having = [c for c in asked.contenders if c.value(asked.metric) is not None]
    n_unknown = sum(all(_cost(c, what) is None for what in LABELS) for c in having)
    if not having:
        raise no_metric(asked.metric, asked.rows)
    parts = make_parts(having, SHAPE)
    groups: dict[tuple[str, ...], list[list[Spot]]] = defaultdict(list)  # alike but for k
    for dataset in dict.fromkeys(column for part in parts for column in part.columns):
        of_set = [part for part in parts if dataset in part.columns]
        titles = titled(of_set, partial(title_of, along=SHAPE.across))
        for title, part in sorted(zip(titles, of_set, strict=True), key=_is_chosen, reverse=True):
            found = [c for (_, column), c in part.cells.items() if column == dataset]
            spots = [
                spot
                for what, label in LABELS.items()
                for spot in _panels(f"{dataset}, {title}: {label}", what, part, found, asked)
            ]
            if spots:
                names = json.dumps(sorted({spot.name for spot in spots}))
                groups[dataset, _but_k(part), names].append(spots)
    if not groups and n_unknown < len(having):
        raise nothing("two encoders that were asked alike", "probe --kind linear --model A,B")
    if not groups:
        raise nothing(
            "rows that know what encoders take, which older ones don't",
            "extract --overwrite` and then `probe --kind linear",
        )
    shown = sorted((of[0] for of in groups.values()), key=_n_names, reverse=True)
    spots = [spot for of in shown for spot in of]
    notes = []
    if n_unknown:
        verb = "doesn't know what it takes" if n_unknown == 1 else "don't know what they take"
        notes.append(f"Left out: {counted(n_unknown, 'answer')} that {verb}")
    if any(len(of) > 1 for of in groups.values()):
        notes.append("Left out: the same encoders asked by another k; `--where k=N` shows one")
    n_sd = sum(spot.is_sd for spot in spots)
    n = sorted({spot.n for spot in spots})
    of_test = f"{n[0]:_}" if len(n) == 1 else f"{n[0]:_} to {n[-1]:_}"
    caption = CAPTION.format(sd=SD if n_sd else "", n=of_test)
    metric = metric_of(asked.metric)
    y = metric.column or metric.name
    return Frame("cost", tuple(spots), caption, tuple(notes), "", y, is_log=True)


def _is_chosen(of: tuple[str, Part]) -> tuple[bool, bool]:
    """Whether all of train was learnt from, and whether its settings were chosen."""
    condition = of[1].condition
    is_whole = "probe.few_shot.shots" not in condition
    return is_whole, "chosen.k" in condition or condition["place"] == "chosen"


def _but_k(part: Part) -> str:
    return canonical_json({n: v for n, v in part.condition.items() if n not in SPELT["k"]})


def _n_names(spots: Sequence[Spot]) -> int:
    return len({spot.name for spot in spots})


def _cost(of: Contender, what: str) -> float | None:
    """Of its first row: times of several vary."""
    found = find_field(what).of(of.first)
    return float(found) if found else None


def _panels(
    title: str, what: str, part: Part, contenders: Sequence[Contender], asked: Asked
) -> list[Spot]:
    """Of each device one, where it matters."""
    lines = {id(c): line for (line, _), c in part.cells.items()}
    of: dict[str, list[Spot]] = defaultdict(list)
    for c in contenders:
        x, value = _cost(c, what), c.value(asked.metric)
        if x is None or value is None or math.isnan(value.value):
            continue
        low, high = value.low, value.high
        is_sd = math.isnan(low) and not math.isnan(value.sd)
        if is_sd:
            low, high = value.value - value.sd, value.value + value.sd
        device = str(find_field("device").of(c.first) or "unknown device") if what in TIMED else ""
        name = ", ".join(map(said_of, part.names, lines[id(c)]))
        panel = title.replace("{device}", device)  # names may hold braces, too
        n, _ = counts(c, TEST, asked)
        of[device].append(
            Spot(
                panel, name, what, x, asked.metric, value.value, low, high, n, device, False, is_sd
            )
        )
    is_loss = metric_of(asked.metric).is_loss
    return [
        replace(spot, is_undominated=not any(_beats(o, spot, is_loss) for o in spots))
        for spots in of.values()
        if len(spots) > 1
        for spot in spots
    ]


def _beats(a: Spot, b: Spot, is_loss: bool) -> bool:
    """Whether a is as good, takes no more, and is better in one of the two."""
    gain = (b.value - a.value) if is_loss else (a.value - b.value)
    spared = (a.x - b.x) if a.what == RATE else (b.x - a.x)
    return gain >= 0 and spared >= 0 and (gain > 0 or spared > 0)
