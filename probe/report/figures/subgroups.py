"""A metric in each subgroup, with intervals: the dots of ``report table --by``."""

from cache.errors import RequestError
from probe.report.figures.dots import Dot
from probe.report.figures.frame import Asked, Frame
from probe.report.figures.names import answers_of, names_of
from probe.report.pages.subgroups import Measured, measure

CAPTION = (
    "Bars: 95 % interval of each subgroup by itself, over its {units}; n: samples{of}. The largest "
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
    names = names_of([of.contender for of in drawn], leave=("data",))
    dots: list[Dot] = []
    said = list(notes)
    for name, of in zip(names, drawn, strict=True):
        try:
            found = measure(of.contender.first, asked.by, asked.people, [asked.metric], None)
        except RequestError as error:
            said.append(f"left out: {of.name}: {error}")
            continue
        dots += _dots(found, of.contender.dataset, name, asked.metric)
        said += [
            f"{of.contender.dataset}, {group.name}: {group.why}"
            for group in found.found.groups
            if not group.has_metrics
        ]
    said = list(dict.fromkeys(said))
    if not dots:
        raise RequestError("; ".join([f"no subgroup has {asked.metric}", *said]))
    units = sorted({dot.unit for dot in dots}, reverse=True)
    of_them = ", and of how many patients" if "patient" in units else ""
    caption = CAPTION.format(units=" or ".join(f"{unit}s" for unit in units), of=of_them)
    return Frame("dots", tuple(dots), caption, tuple(said), asked.metric)


def _dots(measured: Measured, dataset: str, name: str, metric: str) -> list[Dot]:
    panel = f"{dataset}, {measured.divided.rule}"
    return [
        Dot(panel, g.name, name, metric, *g.metrics[metric], g.n, g.n_units, measured.found.unit)
        for g in measured.found.groups
        if metric in g.metrics
    ]
