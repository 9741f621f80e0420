"""The page of ``report compare``: differences, who answers what, which class moves, all data sets."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cache.commands.names import counted
from probe.report.findings.comparisons import (
    Asking,
    Comparison,
    Part,
    asked_alike,
    is_loss,
    over_sets,
)
from probe.report.findings.headline import EXPLORATORY, Headline
from probe.report.formats.cells import COUNT, P_VALUE, SIGNED, Cell, Column, Page, Table
from probe.report.rows.comparable import NOT_TO_COMPARE
from probe.report.rows.sides import FITTED, Pair, Pairs, Side, facts_of_both
from probe.report.statistics.paired import Difference

N_MOVES = 2  # classes that are shown, those that move most
LESS = "less is better"


@dataclass(frozen=True)
class Told:
    """How pairs were asked: what is the same for all, and what tells them apart."""

    same: str
    words: Mapping[int, str]  # by the id of each pair; empty texts: nothing does

    @property
    def is_shown(self) -> bool:
        return any(self.words.values())


def tell(pairs: Sequence[Pair]) -> Told:
    """How pairs were asked, in words."""
    each = [_facts(pair) for pair in pairs]
    names = list(dict.fromkeys(name for found in each for name in found))
    is_same = {name: len({found.get(name) for found in each}) == 1 for name in names}
    of_data = _only_of_data(pairs, each, names)
    shown = [name for name in names if not is_same[name] and name not in of_data]
    words = {
        id(pair): ", ".join(found[name] for name in shown if found.get(name))
        for pair, found in zip(pairs, each, strict=True)
    }
    return Told(", ".join(each[0][name] for name in names if is_same[name]), words)


def _facts(pair: Pair) -> dict[str, str]:
    """What both are: "knn", or "112 px | 224 px" where they differ."""
    return ({"block": pair.block} if pair.block else {}) | facts_of_both(pair.a, pair.b)


def _only_of_data(
    pairs: Sequence[Pair], each: Sequence[Mapping[str, str]], names: Sequence[str]
) -> set[str]:
    """What differs between data sets alone, as val decided there, and tells no pairs apart."""
    by_set: dict[str, set[str | None]] = {}
    for pair, words in zip(pairs, each, strict=True):
        by_set.setdefault(pair.dataset, set()).add(words.get(FITTED))
    is_of_data = FITTED in names and all(len(values) == 1 for values in by_set.values())
    return {FITTED} if is_of_data else set()


def make_page(
    a: Side,
    b: Side,
    found: Sequence[Pairs],
    comparisons: Sequence[Comparison],
    asking: Asking,
    heads: Sequence[tuple[Comparison, Headline]],
    all_classes: bool,
) -> Page:
    """The page of a comparison."""
    told = tell([of.pair for of in comparisons])
    tables = [_differences(comparisons, asking, told)]
    if shifts := _answers(comparisons, told):
        tables += [shifts, _classes(comparisons, told, all_classes)]
    if groups := asked_alike(comparisons):
        tables.append(_across(groups, asking))
    notes = [note for of in comparisons for note in of.notes]
    notes += [f"{of.dataset} is left out: {of.lacking}" for of in found if of.lacking]
    for of in found:
        if of.left_out:
            whys = ", ".join(f"{n} {why}" for why, n in Counter(of.left_out).most_common())
            notes.append(
                f"{of.dataset}: in no pair: {counted(len(of.left_out), 'answer')} ({whys})"
            )
    if any(of.pair.block for of in comparisons):
        notes.append(NOT_TO_COMPARE)
    return Page(
        tuple(tables),
        title=f"A: {a.text} · B: {b.text}" + (f" ({told.same})" if told.same else ""),
        lead=tuple(_lead(heads, told)),
        notes=tuple(dict.fromkeys(notes)),
    )


def _lead(heads: Sequence[tuple[Comparison, Headline]], told: Told) -> Iterator[str]:
    """What the comparisons of each data set may be called."""
    for dataset in dict.fromkeys(of.pair.dataset for of, _ in heads):
        of_set = [(of, head) for of, head in heads if of.pair.dataset == dataset]
        for of, head in of_set:
            if head.standing != EXPLORATORY:
                which = f" ({words})" if (words := told.words[id(of.pair)]) else ""
                yield f"{dataset}{which}: {head.why}"
        rest = [head for _, head in of_set if head.standing == EXPLORATORY]
        if rest:
            head = next((head for head in rest if head.is_best), rest[0])
            others = "others: " if len(rest) < len(of_set) else ""
            yield f"{dataset}: {others}{head.why}"


def _first_cells(of: Comparison, told: Told, part: str, has_parts: bool) -> list[Cell]:
    notes: tuple[str, ...] = ()
    if of.pair.apart:
        notes = (f"A and B also differ in {', '.join(map(str, of.pair.apart))}",)
    cells = [Cell(of.pair.dataset, notes=notes)]
    cells += [Cell(told.words[id(of.pair)])] if told.is_shown else []
    return cells + ([Cell(part)] if has_parts else [])


def _first_columns(told: Told, has_parts: bool) -> list[Column]:
    names = ["data", *(["asked"] if told.is_shown else []), *(["of"] if has_parts else [])]
    return [Column(name) for name in names]


def _differences(comparisons: Sequence[Comparison], asking: Asking, told: Told) -> Table:
    has_parts = any(part.name for of in comparisons for part in of.parts)
    units = {d.unit for of in comparisons for p in of.parts for d in p.differences.values()}
    units -= {"sample"}
    rows = []
    for of in comparisons:
        for part in of.parts:
            for d in part.differences.values():
                loss = (LESS,) if is_loss(d.metric) else ()
                row = [*_first_cells(of, told, part.name, has_parts), Cell(d.metric, notes=loss)]
                row += [Cell(value=d.a), Cell(value=d.b), difference_cell(d), p_cell(d)]
                row += [_equivalent(d)] if asking.margin is not None else []
                row.append(_samples(of, part, d))
                row += [
                    Cell(value=d.n_units, form=COUNT) if d.unit == unit else Cell()
                    for unit in sorted(units)
                ]
                rows.append(tuple(row))
    columns = [*_first_columns(told, has_parts), Column("metric")]
    columns += [Column("A", is_right=True), Column("B", is_right=True)]
    columns += [Column(f"A - B [{asking.level:.0%}]"), Column("p", is_right=True)]
    if asking.margin is not None:
        columns.append(Column(f"within {asking.margin:g} [90%]"))
    columns += [Column(f"{unit}s", is_right=True) for unit in ("sample", *sorted(units))]
    return Table(tuple(columns), tuple(rows), title="Differences")


def difference_cell(d: Difference) -> Cell:
    return Cell(value=d.value, low=d.low, high=d.high, form=SIGNED)


def _samples(of: Comparison, part: Part, d: Difference) -> Cell:
    """Test samples; of patients that are measured, theirs, as rows count them."""
    if not _is_of_patients(of):
        return Cell(value=d.n, form=COUNT)
    if part is not of.whole:  # a site
        return Cell()
    rows = {row.row.posed.fold: row.row for row in of.pair.a.rows}
    return Cell(value=sum(row.n.get("test", 0) for row in rows.values()), form=COUNT)


def _is_of_patients(of: Comparison) -> bool:
    return of.pair.a.field("measured") == "patients"


def _noun(comparisons: Sequence[Comparison]) -> str:
    """What answers are counted in."""
    each = {_is_of_patients(of) for of in comparisons}
    return "answers" if len(each) > 1 else "patients" if True in each else "samples"


def p_cell(d: Difference) -> Cell:
    made = f"p by {d.test}" if not math.isnan(d.p) else ""
    if not math.isnan(d.low):
        made += ", and so the interval" if d.method == d.test else f", interval by {d.method}"
    notes = tuple(filter(None, [made, *d.notes]))
    return Cell(value=d.p, form=P_VALUE, notes=notes)


def _equivalent(d: Difference) -> Cell:
    of = d.equivalence
    if of is None or math.isnan(of.low):
        return Cell("not shown")
    return Cell(f"{'yes' if of.holds else 'not shown'} [{of.low:+.3f} {of.high:+.3f}]")


def _answers(comparisons: Sequence[Comparison], told: Told) -> Table | None:
    shifts = [(of, shift) for of in comparisons for shift in of.shifts]
    if not shifts:
        return None
    has_parts = any(shift.name for _, shift in shifts)
    noun = _noun(comparisons)
    has_patients = any(shift.unit == "patient" for _, shift in shifts) and noun != "patients"
    rows = []
    for of, shift in shifts:
        found = shift.disagreement
        counts = [found.n, found.differ, found.right.only_a, found.right.only_b]
        row = [*_first_cells(of, told, shift.name, has_parts)]
        row += [Cell(value=n, form=COUNT) for n in counts]
        if has_patients:
            row.append(Cell(value=shift.n_units, form=COUNT) if shift.unit == "patient" else Cell())
        rows.append(tuple(row))
    names = [noun, "differ", "only A right", "only B right"]
    columns = [*_first_columns(told, has_parts), *(Column(n, is_right=True) for n in names)]
    columns += [Column("patients", is_right=True)] if has_patients else []
    below = ("of several trainings or episodes the first",) if _has_runs(comparisons) else ()
    return Table(tuple(columns), tuple(rows), title="Who answers what", below=below)


def _has_runs(comparisons: Sequence[Comparison]) -> bool:
    return any(
        c.is_of_seeds or c.first.row.answered.shots
        for of in comparisons
        for c in (of.pair.a, of.pair.b)
    )


def _classes(comparisons: Sequence[Comparison], told: Told, all_classes: bool) -> Table:
    has_parts = any(shift.name for of in comparisons for shift in of.shifts)
    rows, n_left = [], 0
    for of in comparisons:
        for shift in of.shifts:
            moves = shift.moves
            if not all_classes:
                size = {id(m): -abs(m.recalls[0] - m.recalls[1]) for m in moves}
                known = [m for m in moves if not math.isnan(size[id(m)])]
                moves = sorted(known, key=lambda m: size[id(m)])[:N_MOVES]
                n_left += len(shift.moves) - len(moves)
            for move in moves:
                one, other = move.recalls
                row = [*_first_cells(of, told, shift.name, has_parts), Cell(move.name)]
                row += [Cell(value=move.n, form=COUNT), Cell(value=one), Cell(value=other)]
                row.append(Cell(value=one - other, form=SIGNED))
                row += [Cell(value=n, form=COUNT) for n in move.alone]
                rows.append(tuple(row))
    columns = [*_first_columns(told, has_parts), Column("class")]
    names = [
        _noun(comparisons),
        "A's recall",
        "B's recall",
        "A - B",
        "only A right",
        "only B right",
    ]
    columns += [Column(name, is_right=True) for name in names]
    more = f"{n_left} more {'class' if n_left == 1 else 'classes'}: --classes"
    return Table(
        tuple(columns), tuple(rows), title="Which class moves", below=(more,) if n_left else ()
    )


def _across(groups: Sequence[Sequence[Comparison]], asking: Asking) -> Table:
    """Of each group of pairs that were asked alike, what its data sets say together."""
    rows, below = [], []
    for group in groups:
        for of in over_sets(group, 1 - asking.level):
            row = [Cell(_shared_words(group))] if len(groups) > 1 else []
            row += [Cell(of.metric), Cell(value=len(of.values), form=COUNT)]
            row += [Cell(value=of.test.n_units, form=COUNT), Cell(value=of.middle, form=SIGNED)]
            row += [Cell(value=p, form=P_VALUE) for p in (of.test.p, of.adjusted)]
            rows.append(tuple(row))
            below += [of.why_not] if of.why_not else []
            together = [unit for unit in of.units if len(unit) > 1]
            below += [f"one unit, for they share patients: {', '.join(u)}" for u in together]
    names = ["data sets", "units", "A - B, pseudomedian", "p, signed-rank", "p, Holm over metrics"]
    columns = [*([Column("asked")] if len(groups) > 1 else []), Column("metric")]
    columns += [Column(name, is_right=True) for name in names]
    return Table(
        tuple(columns), tuple(rows), title="Over data sets", below=tuple(dict.fromkeys(below))
    )


def _shared_words(group: Sequence[Comparison]) -> str:
    """What all data sets of a group were asked alike in."""
    each = [_facts(of.pair) for of in group]
    names = [n for n in each[0] if n != "encoder" and len({found.get(n) for found in each}) == 1]
    return ", ".join(each[0][name] for name in names)
