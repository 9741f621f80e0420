"""What this benchmark can decide: what each test set can show, and how far the best lead there.

A dash is the smallest difference of two models that a test set shows 80 % of the time
(``findings.deciding``); what lies in the shade below it the set can't decide. Dots are leads of the
best over the second of those asked alike: ours filled, red where no test of all pairs puts the second
below; printed ones hollow, red where accuracies alone can't tell. Sets of as many units are moved apart.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cache.errors import RequestError
from probe.report.figures.frame import Asked, Frame, nothing
from probe.report.findings.deciding import Asked as Wanted
from probe.report.findings.deciding import choose, from_rows
from probe.report.findings.parts import Part, Shape, make_parts
from probe.report.findings.standing import Untested, metric_of, stand
from probe.report.published.numbers import published
from probe.report.rows.answers import test_sets
from probe.report.rows.contenders import Contender
from probe.report.statistics.claims import HOLDS, TEST_IMAGES, UNTOLD, best_against_second
from probe.report.statistics.decide import ACCURACY, AUC, assume_accuracy

SMALLEST, ASSUMED, OURS, PUBLISHED = "smallest", "smallest, assumed", "ours", "published"
SEPARATED, NOT_SEPARATED, UNTESTED = "separated", "not separated", "not tested"
NO_SCORES = "printed numbers are drawn of acc alone: others need the scores"
LOWEST = 5e-4  # leads below it are drawn there


@dataclass(frozen=True)
class Mark:
    """One test set's smallest difference, or one lead on it."""

    what: str  # SMALLEST, ASSUMED, OURS or PUBLISHED
    data: str
    n_units: int
    unit: str  # patient, where one has several samples, else sample
    metric: str
    value: float  # nan: the set shows no difference
    verdict: (
        str  # of our leads SEPARATED, NOT_SEPARATED or UNTESTED, of printed ones HOLDS or UNTOLD
    )
    best: str
    second: str
    how: str  # what it goes by


def make(asked: Asked) -> Frame[Mark]:
    """Of each data set of rows; by accuracy, of each that papers printed numbers of, too.

    Raises:
        RequestError: the metric is neither acc nor AUC; or no test set has two answers, and none is
            printed.
    """
    if asked.metric not in (ACCURACY, AUC):
        raise RequestError(
            f"what a test set can decide is known of {AUC} and {ACCURACY}; not of {asked.metric}"
        )
    by_set: dict[str, list[Contender]] = defaultdict(list)
    for c in asked.contenders:
        by_set[c.dataset].append(c)
    marks: list[Mark] = []
    notes: list[str] = []
    for dataset, of_set in by_set.items():
        chosen = choose(dataset, of_set)
        notes += chosen.notes
        shown = from_rows(dataset, chosen, asked.people, Wanted())
        decisions = [(s.decision, s.of) for s in shown if s.decision.metric == asked.metric]
        if not decisions:
            notes.append(f"{dataset}: no two answers to one test set")
            continue
        [(decision, of)] = decisions
        place = dataset, decision.n_units, decision.unit, asked.metric
        how = f"{of}; {decision.why_not or decision.basis}"
        marks.append(Mark(SMALLEST, *place, decision.smallest, "", "", "", how))
        marks += _leads(chosen.contenders, place, asked)
    if asked.metric == ACCURACY:
        marks += _printed({mark.data: mark for mark in marks if mark.what == SMALLEST})
    else:
        notes.append(NO_SCORES)
    if not marks:
        raise nothing("two encoders that were asked alike", "probe --kind linear --model A,B")
    units = sorted({f"{mark.unit}s" for mark in marks}, reverse=True)
    return Frame(
        *("deciding", tuple(marks), _caption(marks), tuple(notes)),
        *(f"test {' or '.join(units)}", f"difference in {asked.metric}"),
        is_log=True,
    )


def _leads(
    contenders: Sequence[Contender], place: tuple[str, int, str, str], asked: Asked
) -> Iterator[Mark]:
    """The best's lead in each table of ``report table --metric``."""
    for part in make_parts(contenders, Shape()):
        cells = list(part.cells.values())
        values = [c.value(asked.metric) for c in cells]
        known = [
            (c, v.value) for c, v in zip(cells, values, strict=True) if v and v.value == v.value
        ]
        if len(known) < 2:
            continue
        sign = -1.0 if metric_of(asked.metric).is_loss else 1.0
        order = np.argsort([-sign * value for _, value in known], kind="stable")
        best, second = int(order[0]), int(order[1])
        who = [c for c, _ in known]
        try:
            family = stand(test_sets(who, asked.people), asked.metric)
        except RequestError as error:
            family = Untested(str(error))
        if isinstance(family, Untested):
            verdict, how = UNTESTED, family.why
        else:
            verdict = SEPARATED if family.above[best, second] else NOT_SEPARATED
            how = family.describe()
        names = _names(part)
        lead = sign * (known[best][1] - known[second][1])
        kind = who[best].field("kind")
        yield Mark(
            *(OURS, *place, lead, verdict),
            *(names[id(who[best])], names[id(who[second])], f"{kind}: {how}"),
        )


def _names(part: Part) -> dict[int, str]:
    """What tells a part's contenders apart, by their identity."""
    return {id(c): ", ".join(filter(None, line)) for (line, _), c in part.cells.items()}


def _printed(known: dict[str, Mark]) -> Iterator[Mark]:
    """Leads that papers printed, and what their sets show if two models disagree on a tenth."""
    claims = [
        c
        for c in best_against_second(published(), seeds_as_one=True)
        if c.dataset in TEST_IMAGES and c.verdict in (HOLDS, UNTOLD)
    ]
    for dataset in dict.fromkeys(c.dataset for c in claims):
        if dataset not in known:
            found = assume_accuracy(TEST_IMAGES[dataset])
            yield Mark(
                *(ASSUMED, dataset, found.n_units, found.unit, ACCURACY, found.smallest),
                *("", "", "", found.basis),
            )
    for c in claims:
        units = known.get(c.dataset)
        n, unit = (units.n_units, units.unit) if units else (TEST_IMAGES[c.dataset], "sample")
        how = "; ".join(filter(None, [c.setting, f"P(false) at most {c.worst:.2g}", c.why]))
        yield Mark(PUBLISHED, c.dataset, n, unit, ACCURACY, c.lead, c.verdict, c.a, c.b, how)


def _caption(marks: Sequence[Mark]) -> str:
    """The picture in words."""
    metric = marks[0].metric
    floors = {mark.data: mark.value for mark in marks if mark.what in (SMALLEST, ASSUMED)}
    said = [
        f"Dash: the smallest difference in {metric} that a test set shows 80 % of the time (two-sided "
        "level 5 %), from how the rows' answers scatter; dotted: if two models disagree on a tenth "
        "of images. Shade: undecidable."
        if any(mark.what == ASSUMED for mark in marks)
        else f"Dash: the smallest difference in {metric} that a test set shows 80 % of the time "
        "(two-sided level 5 %), from how the rows' answers scatter. Shade: undecidable."
    ]
    leads = [mark for mark in marks if mark.what == OURS]
    if leads:
        counts = Counter(mark.verdict for mark in leads)
        untested = f", {counts[UNTESTED]} not tested (grey)" if counts[UNTESTED] else ""
        said.append(
            f"Filled: the best's lead over the second of our rows asked alike; {_shaded(leads, floors)}, "
            f"{counts[NOT_SEPARATED]} not separated by tests of all pairs (red){untested}."
        )
    leads = [mark for mark in marks if mark.what == PUBLISHED]
    if leads:
        n_untold = sum(mark.verdict == UNTOLD for mark in leads)
        said.append(
            f"Hollow: printed leads, means over seeds taken for one run's; {_shaded(leads, floors)}, "
            f"{n_untold} can't be told by these accuracies (red)."
        )
    if any(mark.what in (OURS, PUBLISHED) and mark.value < LOWEST for mark in marks):
        said.append(f"Triangles: below {LOWEST:g}.")
    return " ".join(said)


def _shaded(leads: Sequence[Mark], floors: Mapping[str, float]) -> str:
    n = sum(not mark.value >= floors[mark.data] for mark in leads)
    return f"{n} of {len(leads)} lie in the shade"
