"""What stands on a study's page, from stored rows and feature files."""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cache.commands.names import counted
from cache.errors import CacheError, RequestError
from cache.task import SEGMENTATION
from probe.report.figures.catalogue import FIGURES, make
from probe.report.figures.files import AskedOfFiles
from probe.report.figures.frame import Asked
from probe.report.findings.comparisons import Asking, Comparison, compare
from probe.report.findings.deciding import Asked as Wanted
from probe.report.findings.deciding import choose, from_labels, from_rows
from probe.report.findings.division import divisions, tested
from probe.report.findings.headline import Headline, Record, leads, named_when
from probe.report.findings.hints import label_hints
from probe.report.findings.leading import compared_by, heads_of, is_leading, leading_parts
from probe.report.findings.parts import Part, Shape
from probe.report.findings.wrong import find_wrong
from probe.report.formats.cells import Page
from probe.report.pages import comparison, deciding, ledger
from probe.report.pages.classes import page_of_classes
from probe.report.pages.gallery import gallery_of, table_page
from probe.report.pages.listing import page_of_rows
from probe.report.pages.matrix import page_of_metric
from probe.report.rows.beside import encoders_of
from probe.report.rows.contenders import Contender
from probe.report.rows.fields import no_metric
from probe.report.rows.people import People
from probe.report.rows.sides import Pair, Pairs, Side
from probe.report.rows.stored import StoredRow
from probe.report.statistics.bands import PREFIX, parse_by
from probe.report.statistics.claims import Asked as Question
from probe.report.study.cards import cards
from probe.report.study.made import made, marks
from probe.report.study.maps import MAPS, maps_of
from probe.report.study.parts import Block, Figure, Section, Study

if TYPE_CHECKING:
    from cache.features import Features

MOST_TABLES, MOST_COMPARED = 4, 12  # of who can still be first; pairs
MOST_GALLERIES, MOST_SHOWN = 3, 6  # data sets, and samples of each
MOST_DRAWN = 12  # answers in a picture of answers
MOST_ROWS = 1000  # in the table of all rows
MOST_ALIKE, MOST_SPREAD = 3000, 3  # test samples of figures of feature files; layers in the plane
MOST_COLUMNS = 4  # of meta, that divide subgroups
LINEAR, SEVERAL = "linear", ("fusion", "stack", "abmil")  # kinds of one place, and of more
SIDE_BY_SIDE = Shape(by=("model", "kind", "place", "seed"))
CURVES, ANSWERS, ALIKE = "curves", "answers", "alike"
# Where a figure stands; those that aren't named stand with the answers.
PLACES = {
    **{
        "layers": CURVES,
        "attention": CURVES,
        "shots": CURVES,
        "sizes": CURVES,
        "curves": CURVES,
        "cost": CURVES,
    },
    **{"deciding": "decides", "matrix": "compared", "together": "compared"},
}
OF_ANSWERS = ("confusion", "recall", "reliability", "subgroups", "calibration")  # each by itself
OF_FILES = {
    "cka": "How alike layers are, by CKA",
    "neighbours": "Nearest neighbours that encoders share",
    "scatter": "Samples in the plane, by class",
}
ALONG = ("k", "encoder-lr", "freeze-until", "cut-after")  # that curves are drawn along, too
TITLES = {
    "layers": "Layer by layer",
    "attention": "Where fused probes look",
    "shots": "With few labelled images",
    "sizes": "By the size of the input",
    "cost": "What it takes to be so good",
    "ranks": "Whether the order depends on the probe",
    "confusion": "What is taken for what",
    "recall": "Class by class",
    "reliability": "Whether confidence can be believed",
    "calibration": "Calibration slope and intercept",
    "matrix": "Each beside each other",
    "together": "Two encoders together",
    "deciding": "Smallest difference that each test set shows, and leads",
}


@dataclass(frozen=True)
class Studied:
    """What a page is made of."""

    rows: Sequence[StoredRow]
    contenders: Sequence[Contender]  # of the rows
    people: People
    record: Record  # of the folder of results
    metric: str
    question: Question | None = None  # named by a flag
    title: str = ""
    typed: str = "report page"  # the line that makes the page

    @property
    def compared(self) -> str:
        """The metric of headlines."""
        return compared_by(self.metric, self.question)


def make_study(of: Studied) -> Study:
    """The page of rows.

    Raises:
        RequestError: no row has the metric on test.
    """
    main = _main(of)
    shown, answers = main.contenders, main.parts[0].contenders
    lead = leads(main.parts[0].sets(), of.compared, of.record, of.question, of.people)
    question = ()
    if of.question:
        question = (f"Question, {named_when(of.question, of.record.ledger)}: {of.question}",)
    figures, lacking = _figures(of, main)
    sections = [
        Section("data", "Data", tuple(cards(of.contenders, of.people))),
        Section(
            "first",
            "Who can still be first",
            (page_of_metric(shown, of.metric, Shape(), of.people, ledger=of.record.ledger),),
            _first_told(main.n_others, of.metric),
        ),
        Section(
            "together", "Several layers, pools or rows at once", tuple(_together(of)), TOGETHER
        ),
        Section(
            "compared", "Comparisons", (*_compared(of, main.heads), *figures["compared"]), COMPARED
        ),
        Section("masks", "Masks by class and by size", tuple(_masks(of)), MASKS),
        Section(CURVES, "Curves", tuple(figures[CURVES])),
        Section(
            ANSWERS, "Answers", tuple(figures[ANSWERS]), _answers_told(answers, len(main.parts))
        ),
        Section(ALIKE, "Encoders beside each other", tuple(figures[ALIKE])),
        Section("wrong", "Wrong answers", tuple(_galleries(of, main)), WRONG),
        Section("maps", "Maps", tuple(maps_of(of.rows, of.people)), MAPS),
        Section("decides", "What the test sets can decide", (*figures["decides"], *_decides(of))),
        Section("ledger", "How often test was read", tuple(_ledger(of)), LEDGER),
        Section("rows", "All rows", tuple(_rows(of))),
        Section("made", "How it was made", (*made(of.rows, of.people, of.typed),)),
    ]
    if lacking:
        sections[-1:-1] = [Section("lacking", "What isn't shown", (Page((), notes=lacking),))]
    return Study(
        of.title or _title(of),
        (*question, *lead),
        _facts(of),
        tuple(part for part in sections if part.blocks),
        f"Made by `{of.typed}` on {datetime.date.today().isoformat()}.",
    )


WRONG = (
    "Of each data set the answers of one row of the first table: the better one of its headline. "
    "`report wrong` shows those of any other."
)
MASKS = (
    "How well masks cover the true ones, with the bound that the grid of patches sets beside it. Small "
    "structures are where they differ."
)
COMPARED = (
    "The pair that each test set's headline is of: the difference with its 95 % interval and p, who "
    "answers what, and which class moves. Any other pair: report compare A B."
)
TOGETHER = (
    "Probes of several places or rows beside what they have to beat: linear probes of the last layer, of the "
    'chosen one, and of places side by side. Each pair of them: `report compare kind=fusion "kind=linear '
    'and place=joined"`.'
)
LEDGER = "The best of many looked at seems better than it is; so this counts every question that was ever asked of a test set."


def _masks(of: Studied) -> Iterator[Block]:
    """Rows of segmentation, by class and by size of the structure."""
    rows = [row for row in of.rows if row.row.encoded.task == SEGMENTATION]
    having = [row for row in rows if row.row.measured.per_class]
    if having:
        page = page_of_classes(having[:MOST_ROWS])
        if len(having) > MOST_ROWS:
            more = (
                f"the first {MOST_ROWS} of {len(having)} rows; `report table --by class` shows all"
            )
            page = replace(page, notes=(more,))
        yield page


def _title(of: Studied) -> str:
    names = list(dict.fromkeys(c.dataset for c in of.contenders))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{_encoders(of)} on {', '.join(names[:3])}{more}"


def _encoders(of: Studied) -> str:
    return counted(len(encoders_of(c.first.row.encoded for c in of.contenders)), "encoder")


def _facts(of: Studied) -> tuple[str, ...]:
    n_sets = len({c.dataset for c in of.contenders})
    kinds = dict.fromkeys(c.first.row.answered.kind for c in of.contenders)
    return (
        counted(len(of.rows), "row"),
        counted(n_sets, "data set"),
        _encoders(of),
        ", ".join(kinds),
        f"metric: {of.metric}",
    )


@dataclass(frozen=True)
class Main:
    """The tables of who can still be first, and the headline of each test set of the first."""

    parts: Sequence[Part]
    heads: Sequence[Headline]  # of two contenders each
    n_others: int  # tables that aren't shown

    @property
    def contenders(self) -> list[Contender]:
        return [c for part in self.parts for c in part.contenders]


def _main(of: Studied) -> Main:
    """The tables, that of the answers that are reported first.

    Raises:
        RequestError: no row has the metric on test.
    """
    having = [c for c in of.contenders if c.value(of.metric) is not None]
    if not having:
        raise no_metric(of.metric, of.rows)
    parts = leading_parts(having, of.metric, of.record, of.question)
    heads = heads_of(parts[0], of.metric, of.record, of.question)
    parts[1:] = [part for part in parts[1:] if part.contenders[0].field("kind") not in SEVERAL]
    return Main(parts[:MOST_TABLES], heads, max(0, len(parts) - MOST_TABLES))


def _together(of: Studied) -> Iterator[Block]:
    """Of each data set where there is a probe of several places or rows, it and its baselines in one
    table, whatever their kinds and numbers of trainings.
    """
    usual = [
        c
        for c in of.contenders
        if c.value(of.metric) is not None
        and c.first.row.answered.shots is None
        and (c.field("kind") in SEVERAL or (c.field("kind") == LINEAR and is_leading(c)))
    ]
    for dataset in dict.fromkeys(c.dataset for c in usual):
        of_set = [c for c in usual if c.dataset == dataset]
        if any(c.field("kind") in SEVERAL for c in of_set):
            yield page_of_metric(
                of_set, of.metric, SIDE_BY_SIDE, of.people, ledger=of.record.ledger
            )


def _first_told(n_others: int, metric: str) -> str:
    more = (
        f" {counted(n_others, 'more table')}: report table --metric {metric}." if n_others else ""
    )
    return (
        "Bold with * is not separated from the best: no test of all pairs puts the encoder below "
        f"another. That is no equality; more patients may separate them.{more}"
    )


def _answers_told(answers: Sequence[Contender], n_tables: int) -> str:
    of = "those of the first table above" if n_tables > 1 else "those of the table above"
    if len(answers) > MOST_DRAWN:
        of = f"the first {MOST_DRAWN} of the {len(answers)} in the first table above"
    return f"Pictures of single answers are of {of}; `report figure` draws others."


def _figures(of: Studied, main: Main) -> tuple[Mapping[str, Sequence[Figure]], tuple[str, ...]]:
    """The figures of each section, and what is to be said of those that can't be drawn."""
    found: dict[str, list[Figure]] = defaultdict(list)
    lacking = []
    answers = main.parts[0].contenders
    for name, figure in FIGURES.items():
        if figure.of_files:
            continue
        contenders = answers[:MOST_DRAWN] if name in OF_ANSWERS else of.contenders
        if name == "matrix":  # of two, the comparison says more
            contenders = [c for p in main.parts if len(p.lines) > 2 for c in p.contenders]
            if not contenders:
                continue
        if name == "cost":
            contenders = answers
        rows = [row for c in contenders for row in c.rows]
        words = {"subgroups": _columns(of, contenders), "curves": ALONG}.get(name, ("",))
        for word in words:
            by = parse_by(f"{PREFIX}{word}") if name == "subgroups" else None
            across = word if name == "curves" else ""
            try:
                frame = make(name, Asked(rows, contenders, of.people, of.metric, by, across))
            except (RequestError, CacheError) as error:
                lacking.append(f"{' '.join(filter(None, [name, word]))}: {error}")
                continue
            title = f"By {word}" if word else TITLES.get(name, figure.told)
            called = f"{name}-{word}".rstrip("-")
            found[PLACES.get(name, ANSWERS)].append(Figure(called, title, frame))
    files, left = _of_files(of, answers)
    found[ALIKE] += files
    return found, (*lacking, *left)


def _of_files(of: Studied, answers: Sequence[Contender]) -> tuple[list[Figure], list[str]]:
    """Figures of the feature files that rows were asked of, for each of the first data sets.

    Their test samples are those of the answers in the first table, else of the most rows.
    """
    found, left = [], []
    used = {source.digest for row in of.rows for source in row.row.sources}
    by_set: dict[str, list[Features]] = defaultdict(list)
    for file in of.people.files:
        if file.digest in used and not file.is_tokens:
            by_set[file.dataset].append(file)
    for dataset, stored in list(by_set.items())[:MOST_GALLERIES]:
        asked = [[c for c in among if c.dataset == dataset] for among in (answers, of.contenders)]
        division = next(iter(divisions(asked[0] or asked[1], of.people)), None)
        files = [division.over(file) for file in stored] if division else stored
        called = f"{dataset}, {division.name}" if division and division.name else dataset
        n = int((files[0].split == "test").sum())
        if n > MOST_ALIKE:
            left.append(
                f"{dataset}: {n} test samples take a while: `report figure cka --data {dataset}`"
            )
            continue
        for name, title in OF_FILES.items():
            kept = files[:MOST_SPREAD] if name == "scatter" else files
            layer = -1 if name == "cka" and len(files) > 2 else None
            if name == "neighbours" and len(files) < 2:
                continue
            try:
                frame = make(name, AskedOfFiles(files=kept, layer=layer))
            except (RequestError, CacheError) as error:
                left.append(f"{name} of {dataset}: {error}")
                continue
            found.append(Figure(f"{name}-{dataset}", f"{title}: {called}", frame))
    return found, left


def _columns(of: Studied, contenders: Sequence[Contender]) -> Sequence[str]:
    """Columns that may divide the test samples."""
    found: dict[str, None] = {}
    for dataset in dict.fromkeys(c.dataset for c in contenders):
        first = next(c for c in contenders if c.dataset == dataset)
        try:
            found |= dict.fromkeys(of.people.file_of(first.first.row).meta)
        except (RequestError, CacheError):
            continue
    return tuple(found)[:MOST_COLUMNS]


def _compared(of: Studied, heads: Sequence[Headline]) -> Iterator[Block]:
    """The comparison of the headline of each test set."""
    found: list[tuple[Comparison, Headline]] = []
    pairs, failed = [], []
    for head in heads[:MOST_COMPARED]:
        assert head.a
        assert head.b
        pair = Pair(head.a, head.b)
        pairs.append(Pairs(pair.dataset, (pair,)))
        try:
            found.append((compare(pair, of.people, Asking()), head))
        except RequestError as error:
            failed.append(f"{pair.dataset}: not compared: {error}")
    if found:
        comparisons = [each for each, _ in found]
        a, b = _side(found, "a", "the better"), _side(found, "b", "the next")
        yield comparison.make_page(a, b, pairs, comparisons, Asking(), found, False)
    if failed:
        yield Page((), notes=tuple(failed))


def _side(heads: Sequence[tuple[Comparison, Headline]], name: str, else_called: str) -> Side:
    models = {getattr(of.pair, name).model for of, _ in heads}
    others = {of.pair.a.model == of.pair.b.model for of, _ in heads}
    return Side(models.pop() if len(models) == 1 and others == {False} else else_called, ())


def _galleries(of: Studied, main: Main) -> Iterator[Block]:
    """Wrong answers, and labels to look at, of one contender on each test set of the first table."""
    better = {head.a.dataset: head.a for head in main.heads if head.a}
    chosen = {c.dataset: better.get(c.dataset, c) for c in main.parts[0].contenders}
    failed: dict[str, None] = {}
    for dataset, contender in list(chosen.items())[:MOST_GALLERIES]:
        for find in (find_wrong, label_hints):
            try:
                found = find(contender, of.people, most=MOST_SHOWN)
            except (RequestError, CacheError) as error:
                failed[f"{dataset}: {error}"] = None
                continue
            if found.shown:
                has_pictures = any(each.sample.row is not None for each in found.shown)
                yield gallery_of(found) if has_pictures else table_page(found)
    if len(chosen) > MOST_GALLERIES:
        failed[
            f"{MOST_GALLERIES} of {len(chosen)} data sets are shown; `report wrong` shows others"
        ] = None
    if failed:
        yield Page((), notes=tuple(failed))


def _decides(of: Studied) -> Iterator[Block]:
    wanted, shown, notes = Wanted(), [], []
    for dataset in dict.fromkeys(c.dataset for c in of.contenders):
        of_set = [c for c in of.contenders if c.dataset == dataset]
        chosen = choose(dataset, of_set)
        notes += chosen.notes
        try:
            found = from_rows(dataset, chosen, of.people, wanted)
            if not found and (features := tested(of_set, of.people)):
                found = from_labels(features, wanted)
            shown += found
        except (RequestError, CacheError) as error:
            notes.append(f"{dataset}: {error}")
    if shown or notes:
        yield deciding.make_page(shown, wanted, notes)


def _ledger(of: Studied) -> Iterator[Block]:
    names = tuple(dict.fromkeys(c.dataset for c in of.contenders))
    page = ledger.make_page(of.record.ledger, names)
    if page.tables:
        yield page


def _rows(of: Studied) -> Iterator[Block]:
    if found := marks(of.rows):
        yield found
    rows = of.rows[:MOST_ROWS]
    page = page_of_rows(rows, is_wide=True)
    if len(of.rows) > MOST_ROWS:
        more = f"the first {MOST_ROWS} of {len(of.rows)} rows; `report table` shows all"
        page = Page(page.tables, page.title, page.lead, (*page.notes, more), page.marked)
    yield page
