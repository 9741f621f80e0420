"""A metric in each subgroup, with intervals: the dots of ``report table --by``."""

from cache.errors import RequestError
from probe.report.figures.dots import Dot, n_said, unit_of, units_said
from probe.report.figures.frame import Asked, Frame
from probe.report.figures.names import Drawn, answers_of
from probe.report.findings.standing import cluster_of
from probe.report.pages.subgroups import Measured, measure

CAPTION = (
    "Bars: 95 % interval of each subgroup by itself, over its {units}. {n} The largest "
    "difference of several subgroups is above 0 by chance alone: `report table --by` says by how much."
)


def make(asked: Asked) -> Frame[Dot]:
    """Each answer's metric in each subgroup that has enough of each class; others are named.

    Raises:
        RequestError: nothing says what divides the samples, or no row has the metric in two
            subgroups.
    """
    if asked.by is None:
        raise RequestError("subgroups of what? Say --by meta:COLUMN, such as --by meta:sex")
    drawn, notes = answers_of(asked, lambda _: "", "rows that read test", "probe --kind linear")
    dots: list[Dot] = []
    said = list(notes)
    for of in drawn:
        try:
            found = measure(of.contender.first, asked.by, asked.people, [asked.metric], None)
        except RequestError as error:
            said.append(f"Left out: {of.name}: {error}")
            continue
        dots += _dots(found, of, asked.metric)
        said += [
            f"{of.contender.dataset}, {group.name}: {group.why}"
            for group in found.found.groups
            if not group.has_metrics
        ]
    said = list(dict.fromkeys(said))
    if not dots:
        raise RequestError("; ".join([f"no subgroup has {asked.metric}", *said]))
    caption = CAPTION.format(units=units_said(dots), n=n_said(dots))
    return Frame("dots", tuple(dots), caption, tuple(said), asked.metric)


def _dots(measured: Measured, of: Drawn, metric: str) -> list[Dot]:
    panel = f"{of.panel}, {measured.divided.rule}"
    unit = unit_of(of.contender, cluster_of(of.test))
    return [
        Dot(panel, g.name, of.short, metric, *g.metrics[metric], g.n, g.n_units, unit)
        for g in measured.found.groups
        if metric in g.metrics
    ]
