"""Which table of a study's rows is the first, and with it whose answers are reported, by any page.

A page's first table and a checklist's reported answers are of one choice: the usual answers, learnt from
all of train at the last layer or a chosen one, asked alike; of whatever is measured, images or patients.
"""

from collections.abc import Sequence

from probe.report.findings.claiming import ACC
from probe.report.findings.headline import NAMED, Headline, Record, headline
from probe.report.findings.parts import Part, Shape, make_parts
from probe.report.rows.beside import EVERY, is_joined, layer_from_end, layer_of
from probe.report.rows.contenders import Contender
from probe.report.statistics.claims import Asked

LAST, BEST = "last layer", "best layer"
MOST_LOOKED = 40  # tables that may hold a comparison that was named


def compared_by(metric: str, question: Asked | None) -> str:
    """The metric of headlines: a question's own, else that of the tables."""
    return (question.metric or ACC) if question else metric


def leading_parts(
    contenders: Sequence[Contender], metric: str, record: Record, question: Asked | None
) -> list[Part]:
    """Tables, first that of which a comparison was named, then the fullest.

    Of the last layer and the chosen one, learnt from all of train; of any, where there are none.

    Args:
        contenders: that have the metric on test.
        metric: of the tables.
        record: of the folder of results.
        question: that was named, if any.
    """
    usual = [c for c in contenders if c.first.row.answered.shots is None]
    of_usual = [*filter(is_leading, usual)]
    usual = of_usual or usual or [*contenders]
    parts = sorted(make_parts(usual, Shape()), key=_fullness) if usual else []
    heads = {id(part): heads_of(part, metric, record, question) for part in parts[:MOST_LOOKED]}
    parts.sort(key=lambda part: -sum(h.standing == NAMED for h in heads.get(id(part), ())))
    return parts


def heads_of(part: Part, metric: str, record: Record, question: Asked | None) -> list[Headline]:
    """The headline of each test set of a table that has two answers to it."""
    compared = (compared_by(metric, question),)
    found = [headline(each, compared, record, question) for each in part.sets() if len(each) > 1]
    return [head for head in found if head.a and head.b]


def _fullness(part: Part) -> tuple[float, ...]:
    """First those of the most feature files, each once; of equal ones the chosen layer."""
    n = len({c.first.row.encoded.digest for c in part.contenders})
    is_chosen = all(c.field("place") == "chosen" for c in part.contenders)
    return -n, len(part.contenders) - n, not is_chosen


def is_leading(of: Contender) -> bool:
    """Whether it is of the last layer, a chosen one, or several places side by side."""
    return place_word(of) in (LAST, BEST) or is_joined(of.first.row)


def place_word(of: Contender) -> str:
    """ "last layer", "best layer" (chosen among several without test), its number, or those side by
    side: "all layers", "layers 2+5".
    """
    settings, among = of.first.row.answered.settings, places_among(of)
    if is_joined(of.first.row):
        layer = layer_from_end(of.first.row)
        said = "all layers" if layer == EVERY else f"layers {layer_of(of.first.row)}"
        return LAST if layer == -1 else said
    layer, n_layers = settings.get("layer"), of.first.row.encoded.key.get("layers", {}).get("of")
    if len(among) == 1 or len({layer for layer, _ in among}) > 1:
        return BEST
    return LAST if layer is None or n_layers in (None, layer + 1) else f"layer {layer}"


def places_among(of: Contender) -> list[tuple[int, str]]:
    """Layers and pools that its place was chosen among; none where it was named."""
    chosen = of.first.row.answered.settings.get("place_chosen", {})
    return [(layer, pool) for layer, pool in chosen.get("among", ())]
