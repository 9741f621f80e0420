"""The page of ``report pairs``: what two encoders know together, and which pair val prefers."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cache.commands.names import counted
from probe.report.findings.complement import (
    AVERAGED,
    JOINED,
    LINEAR,
    Against,
    Candidate,
    Study,
    Together,
    apart,
    words_of,
)
from probe.report.findings.headline import Record
from probe.report.findings.standing import metric_of
from probe.report.formats.cells import P_VALUE, Cell, Column, Page, Table
from probe.report.pages.comparison import difference_cell, p_cell
from probe.report.rows.beside import sized_name
from probe.report.rows.contenders import Contender
from probe.report.rows.typed import OF_QUESTION, Line, line_of

if TYPE_CHECKING:
    from probe.report.statistics.paired import Difference

MARKED = "the pair that is best without test, of those of its data set"
BOTH = (
    "p, both: that it is better than each of the two, the larger of both p (intersection-union, Berger "
    "1982); 1 where it is behind one of them on test. Which one is the better is seen on test, and "
    "neither p nor Holm's depends on it; an interval is of its own comparison alone"
)
ERRORS = (
    "errors in common: wrong in both / wrong in either; by chance: of two independent models with these "
    "error rates; kappa: of their answers (Cohen 1960)"
)
CKA = "CKA: debiased, of the test samples, where each was asked"
OF_NUMBERS = "numbers are no answers that are right or wrong: no agreement, no errors in common"
ROWS = {JOINED: "joined row", AVERAGED: "row of averaged scores"}


def make_page(studies: Sequence[Study], metric: str, level: float, record: Record) -> Page:
    """The page.

    Args:
        studies: of one or several data sets. Of those in which no two encoders were asked together a
            line says so, beside others.
        metric: that is compared.
        level: of intervals.
        record: of the folder of results.
    """
    every = studies
    studies = [study for study in every if any(of.ways for of in study.pairs)] or every
    asked: dict[str, list[Study]] = defaultdict(list)
    for study in studies:
        asked[words_of(study.first)].append(study)
    tables = [
        table
        for words, of_words in asked.items()
        for table in (_gains(words, of_words, metric, level), _alike(words, of_words))
    ]
    n_of = Counter(study.first.dataset for study in every)

    def named(study: Study) -> str:
        dataset = study.first.dataset
        return f"{dataset} ({words_of(study.first)})" if n_of[dataset] > 1 else dataset

    lead = [f"{named(study)}: {_lead(study, metric, record)}" for study in studies]
    notes = [BOTH, ERRORS, CKA]
    notes += [OF_NUMBERS] if any(of.alike is None for s in studies for of in s.pairs) else []
    notes += [f"{s.first.dataset}: {why}" for s in every for why in s.failed]
    notes += [words for study in every for words in lacking_of(study, named(study))]
    return Page(
        tuple(tables),
        title=f"{metric} on test, {'less' if metric_of(metric).is_loss else 'larger'} is better",
        lead=tuple(lead),
        notes=tuple(dict.fromkeys(notes)),
        marked=MARKED,
    )


def names_of(study: Study) -> dict[int, str]:
    """What each encoder is called; those of one name with their sizes."""
    encoders = {id(c): c for of in study.pairs for c in (of.of.a, of.of.b)}
    sizes: dict[str, set[int]] = defaultdict(set)
    for c in encoders.values():
        sizes[c.model].add(c.first.row.encoded.size)
    return {
        i: f"{c.model}@{c.first.row.encoded.size}" if len(sizes[c.model]) > 1 else c.model
        for i, c in encoders.items()
    }


def _lead(study: Study, metric: str, record: Record) -> str:
    """Which pair is best without test, and what test says of it."""
    best = study.best
    n = record.ledger.looked_at(study.first.first.row.test_set)
    looked = f"{n} looked at on this test set"
    n_pairs = sum(any(w.way == JOINED for w in of.ways) for of in study.pairs)
    if n_pairs < 2:
        return f"{counted(n_pairs, 'joined row')}, so no pair is chosen; {looked}"
    if best is None:
        return f"val chooses no pair (not all have {metric} on val, of the same samples); {looked}"
    names, joined = names_of(study), best.of.joined
    assert joined is not None
    way = next(way for way in best.ways if way.way == JOINED)
    where = "out of fold" if "folds" in joined.first.row.answered.settings else "on val"
    value = joined.value(metric)
    said = f"{value.value:.3f}" if value else "-"
    return (
        f"best {where} of {n_pairs} pairs joined ({metric} {joined.val(metric):.3f}): "
        f"{names[id(best.of.a)]} + {names[id(best.of.b)]}; on test {said}, less the better of the two "
        f"{_told(way.better)}; {looked}"
    )


def _told(d: Difference) -> str:
    ends = "" if math.isnan(d.low) else f" [{d.low:+.3f} {d.high:+.3f}]"
    return f"{d.value:+.3f}{ends}"


def _first_cells(study: Study, of: Together, has_sets: bool) -> list[Cell]:
    names = names_of(study)
    cells = [Cell(study.first.dataset)] if has_sets else []
    return [*cells, Cell(names[id(of.of.a)]), Cell(names[id(of.of.b)])]


def _columns(has_sets: bool) -> list[Column]:
    return [Column(name) for name in (*(["data"] if has_sets else []), "A", "B")]


def _above(words: str, studies: Sequence[Study], has_sets: bool) -> tuple[tuple[str, str], ...]:
    data = () if has_sets else (("data", studies[0].first.dataset),)
    return (*data, ("asked", words))


def _gains(words: str, studies: Sequence[Study], metric: str, level: float) -> Table:
    has_sets = len({study.first.dataset for study in studies}) > 1
    short = metric_of(metric).column or metric
    rows = []
    for study in studies:
        for of in study.pairs:
            alone = [_value(c, metric) for c in (of.of.a, of.of.b)]
            for way in of.ways or (None,):
                cells = [*_first_cells(study, of, has_sets), *alone]
                is_marked = of is study.best and way is not None and way.way == JOINED
                rows.append((*cells, *_together(way, of.of, metric, is_marked)))
    columns = [*_columns(has_sets), Column(f"A's {short} [95 %]"), Column(f"B's {short} [95 %]")]
    columns += [Column("together"), Column(f"{short} [95 %]")]
    columns += [Column(f"- the {which} [{level:.0%}]") for which in ("better", "other")]
    columns += [Column(name, is_right=True) for name in ("p, both", "p, Holm")]
    below = tuple(f"{_where(study, has_sets)}{_family(study)}" for study in studies)
    return Table(
        tuple(columns),
        tuple(rows),
        title="Together",
        above=_above(words, studies, has_sets),
        below=tuple(dict.fromkeys(below)),
    )


def _where(study: Study, has_sets: bool) -> str:
    return f"{study.first.dataset}: " if has_sets else ""


def _family(study: Study) -> str:
    if not study.n_tests:
        return "tests: none"
    if study.n_tests == 1:
        return "tests: one"
    n = len(study.pairs)
    pairs = "this pair" if n == 1 else f"these {counted(n, 'pair')}"
    return f"tests: Holm over all {study.n_tests} tests of {pairs}, joined and averaged"


def _value(of: Contender, metric: str) -> Cell:
    value = of.value(metric)
    if value is None:
        return Cell("-")
    if of.is_of_folds or of.is_of_seeds:
        return Cell(value=value.value, sd=value.sd)
    return Cell(value=value.value, low=value.low, high=value.high)


def _together(way: Against | None, of: Candidate, metric: str, is_marked: bool) -> tuple[Cell, ...]:
    if way is None:
        return (Cell("-"),) * 6
    value = _value(way.contender, metric)
    otherwise = apart(way.contender, of.a)
    notes = (f"also asked otherwise in {', '.join(otherwise)}",) if otherwise else ()
    value = replace(value, is_marked=is_marked, notes=notes)
    made = tuple(dict.fromkeys(note for d in (way.better, way.worse) for note in p_cell(d).notes))
    return (
        Cell(way.way),
        value,
        difference_cell(way.better),
        difference_cell(way.worse),
        Cell(value=way.p, form=P_VALUE, notes=made),
        Cell(value=way.adjusted, form=P_VALUE),
    )


def _alike(words: str, studies: Sequence[Study]) -> Table:
    has_sets = len({study.first.dataset for study in studies}) > 1
    rows = []
    for study in studies:
        for of in study.pairs:
            cka = Cell("-", notes=(of.why_no_cka,)) if of.why_no_cka else Cell(value=of.cka)
            found = of.alike
            cells = [Cell() for _ in range(5)]
            if found is not None:
                cells = [Cell(value=found.same), Cell(value=found.kappa)]
                cells += [Cell(f"{found.n_both} of {found.n_either}"), Cell(value=found.in_common)]
                cells.append(Cell(value=found.chance))
            rows.append((*_first_cells(study, of, has_sets), cka, *cells))
    names = ("CKA", "same answer", "kappa", "errors in common", "share", "by chance")
    columns = [*_columns(has_sets), *(Column(name, is_right=True) for name in names)]
    below = ("of several trainings or episodes the first",) if _has_runs(studies) else ()
    return Table(tuple(columns), tuple(rows), "How alike", _above(words, studies, has_sets), below)


def _has_runs(studies: Sequence[Study]) -> bool:
    return any(s.first.is_of_seeds or s.first.first.row.answered.shots for s in studies)


def lacking_of(study: Study, name: str) -> Iterator[str]:
    """Which rows of a study, called so, aren't there, and the command that makes them."""
    which = [
        f"{len(of)} {'has' if len(of) == 1 else 'have'} no {ROWS[way]}"
        for way, of in study.lacking.items()
        if of
    ]
    if which:
        yield (
            f"{name}: of {counted(len(study.pairs), 'pair')} {' and '.join(which)}: "
            f"`{command_of(study)}` makes them"
        )


def command_of(study: Study) -> str:
    """What makes the rows that pairs lack, asked as each encoder alone was."""
    of = study.first
    kind, mine = str(of.field("kind")), line_of(of.first)
    line = Line("probe", {"--kind": (kind,), "--model": ("all+",), "--pairs": ()})
    if kind != LINEAR:
        each = [(c.a.first.row.encoded, c.b.first.row.encoded) for c in study.lacking[JOINED]]
        names = tuple(f"{sized_name(a)}+{sized_name(b)}" for a, b in each)
        line = Line("probe", {"--kind": (kind,), "--model": names})
    layer = mine.flags.get("--layer", ())
    if layer[:1] == ("all+",):
        line = line.asking({"--layer": layer})
    return str(line.asking({**mine.of(*OF_QUESTION), "--data": (of.dataset,)}))
