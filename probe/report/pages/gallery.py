"""Galleries: samples with their thumbnails, words, and the training images nearest to them.

One list of cards is drawn as a contact sheet (PNG), written as HTML, or listed as a table.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from cache.commands.names import counted
from probe.report.findings.hints import Hints
from probe.report.findings.looks import picture, thumbnail_png
from probe.report.findings.nearest import Neighbour
from probe.report.findings.wrong import Sample, WrongAnswers
from probe.report.formats.cells import COUNT, Cell, Column, Page, Table, line, number
from probe.report.formats.html import POLICY, STYLE
from probe.report.rows.sides import describe

if TYPE_CHECKING:
    from PIL import Image

    from cache.features import Features

SIDE = 128  # of a picture on a sheet, pixels
ID_LETTERS = 36  # of an id under a picture: the end tells more than the folder
# Okabe and Ito's blue and vermilion, which the colour-blind tell apart; words say the same.
BLUE, VERMILION = "#0072b2", "#d55e00"
RIMS = "Blue rims are of the class as labelled, orange ones of the other{third}."
THIRD = "; images without a rim are of a third class"
HINT = (
    "Hints, not findings: a label is suspect where models that weren't fitted to the image give another "
    "class more than that class's own images get on average. Look at each before you change any."
)


@dataclass(frozen=True)
class Picture:
    """A thumbnail, and words of it."""

    features: Features | None
    row: int | None  # None: there is no thumbnail
    words: tuple[str, ...]
    rim: str = ""  # a colour

    @property
    def png(self) -> bytes:
        """The thumbnail as a PNG file; nothing where there is none."""
        if self.features is None or self.row is None:
            return b""
        return thumbnail_png(self.features, self.row)


@dataclass(frozen=True)
class Card:
    """A sample, and training images near it."""

    first: Picture
    others: tuple[Picture, ...]


@dataclass(frozen=True)
class Gallery:
    """Cards with what must be said of them."""

    title: str
    lead: tuple[str, ...]
    cards: tuple[Card, ...]
    notes: tuple[str, ...]


# ---------------------------------------------------------------------------- from findings


def gallery_of(found: WrongAnswers | Hints) -> Gallery:
    """The gallery of wrong answers, or of hints of wrong labels."""
    if isinstance(found, Hints):
        cards = [
            _card(
                hint.sample,
                (hint.given, hint.likely),
                f"may be {hint.likely}",
                f"p {_score(hint.p_given)} and {_score(hint.p_likely)}",
            )
            for hint in found.shown
        ]
    else:
        score = "margin" if found.is_margin else "p"
        cards = [
            _card(
                wrong.sample,
                (wrong.truth, wrong.answer),
                f"answered {wrong.answer}",
                f"{score} {_score(wrong.confidence)}",
            )
            for wrong in found.shown
        ]
    rims = [bool(other.rim) for card in cards for other in card.others]
    lead = (*_lead(found), *([RIMS.format(third="" if all(rims) else THIRD)] if any(rims) else []))
    return Gallery(_title(found), lead, tuple(cards), found.notes)


def _card(sample: Sample, classes: tuple[str, str], *words: str) -> Card:
    """A sample whose label and answer these classes are."""
    own, other = classes
    has_own = sample.patient and sample.patient != sample.id
    patient = (f"patient {sample.patient}",) if has_own else ()
    which = (str(sample.attended),) if sample.attended else ()
    said = (f"labelled {own}", *words, *which, *_place(sample), *patient)
    rims = {own: BLUE, other: VERMILION}
    learnt = sample.learnt.features if sample.learnt else None
    others = tuple(
        Picture(learnt, near.row, _near_words(near), rims.get(near.label, ""))
        for near in sample.neighbours
    )
    return Card(Picture(sample.features, sample.row, said), others)


def _near_words(near: Neighbour) -> tuple[str, ...]:
    marks = [{"near": "near twin", "exact": "exact copy"}[near.twin]] if near.twin else []
    marks += ["same patient"] if near.is_same_patient else []
    return (near.label, f"cos {_score(near.similarity)}", *marks)


def _score(value: float) -> str:
    """Three decimals; what is just below 1 isn't rounded up to it, which is said of copies."""
    return number(0.999 if 0.999 < value < 1 - 1e-6 else value)


def _place(sample: Sample) -> tuple[str, ...]:
    """Split and id; of an id that begins with its split only that."""
    name = sample.id
    short = name if len(name) <= ID_LETTERS else f"…{name[-ID_LETTERS:]}"
    return (short,) if name.startswith(f"{sample.split}/") else (sample.split, short)


def _title(found: WrongAnswers | Hints) -> str:
    what = "labels to look at" if isinstance(found, Hints) else "the most confident wrong answers"
    return f"{found.contender.dataset}: {what}"


def _lead(found: WrongAnswers | Hints) -> tuple[str, ...]:
    who, n_shown = describe(found.contender), len(found.shown)
    of_folds = " (of other folds about as many)" if found.contender.is_of_folds else ""
    near = (f"Beside each the {found.k} {found.learnt}{of_folds}.",) if found.learnt else ()
    if isinstance(found, Hints):
        looked = f"{found.n} labels ({'; '.join(found.splits)})"
        counts = f"{counted(found.n_hints, 'hint')} in {looked}; {n_shown} shown, the surest first"
        return (f"{who}: {counts}.", *near, HINT)
    if not found.shown:
        return (f"{who}: none of {counted(found.n, 'answer')} is wrong, on {found.split}.",)
    share = f" ({found.n_wrong / found.n:.1%})" if found.n else ""
    scale = ". Scores are margins, no probabilities" if found.is_margin else ""
    return (
        f"{who}: {found.n_wrong} of {found.n} answers are wrong{share}, on {found.split}; {n_shown} shown, "
        f"the most confident first{scale}.",
        *near,
    )


# ---------------------------------------------------------------------------- tables


def table_page(found: WrongAnswers | Hints, *, is_whole: bool = False) -> Page:
    """The same as a page of tables.

    Args:
        found: what is shown.
        is_whole: a column for each thing, as data frames want it; else to be read.
    """
    of = [hint.sample for hint in found.shown]
    if not isinstance(found, Hints):
        of = [wrong.sample for wrong in found.shown]
    with_patients = any(sample.patient for sample in of)
    with_splits = isinstance(found, Hints)
    columns = [Column("id"), *([Column("split")] if with_splits else [])]
    columns += [Column("patient")] if with_patients else []
    if isinstance(found, Hints):
        columns += [Column("label"), Column("p", is_right=True), Column("may be")]
        columns += [Column("p ", is_right=True), Column("margin", is_right=True)]
        facts = [
            (
                Cell(h.given),
                Cell(value=h.p_given),
                Cell(h.likely),
                Cell(value=h.p_likely),
                Cell(value=h.margin),
            )
            for h in found.shown
        ]
    else:
        score = "margin" if found.is_margin else "confidence"
        columns += [Column("label"), Column("answer"), Column(score, is_right=True)]
        facts = [(Cell(w.truth), Cell(w.answer), Cell(value=w.confidence)) for w in found.shown]
    with_rows = any(sample.attended for sample in of)
    if with_rows:
        columns += [Column("row", is_right=True), Column("of", is_right=True)]
        columns += [Column("attention", is_right=True)]
    k = max((len(sample.neighbours) for sample in of), default=0)
    if is_whole:
        names = ("id", "label", "similarity", "same patient", "twin")
        columns += [Column(f"{name}", over=f"nearest {i + 1}") for i in range(k) for name in names]
    elif k:
        columns.append(Column("nearest training images"))
    rows = []
    for sample, cells in zip(of, facts, strict=True):
        row = [Cell(sample.id), *([Cell(sample.split)] if with_splits else [])]
        row += [Cell(sample.patient)] if with_patients else []
        row += cells
        if at := sample.attended:
            row += [Cell(value=at.number, form=COUNT), Cell(value=at.n, form=COUNT)]
            row.append(Cell(value=at.weight))
        elif with_rows:  # of val and train it isn't kept
            row += [Cell()] * 3
        if is_whole:
            row += [cell for near in sample.neighbours for cell in _whole(near)]
            row += [Cell()] * (len(columns) - len(row))
        elif k:
            row.append(Cell("; ".join(" ".join(_near_words(near)) for near in sample.neighbours)))
        rows.append(tuple(row))
    tables = [Table(tuple(columns), tuple(rows))] if rows else []
    if isinstance(found, Hints) and not is_whole:
        tables.insert(0, _pairs(found)) if found.pairs else None
    return Page(tuple(tables), _title(found), _lead(found), found.notes)


def _whole(near: Neighbour) -> tuple[Cell, ...]:
    same = "yes" if near.is_same_patient else ""
    return Cell(near.id), Cell(near.label), Cell(value=near.similarity), Cell(same), Cell(near.twin)


def _pairs(found: Hints) -> Table:
    columns = (
        Column("label"),
        Column("may be"),
        Column("hints", is_right=True),
        Column("of", is_right=True),
    )
    rows = [
        (
            Cell(p.given),
            Cell(p.likely),
            Cell(value=p.n, form=COUNT),
            Cell(value=p.n_given, form=COUNT),
        )
        for p in found.pairs
    ]
    return Table(columns, tuple(rows), title="Hints by pair of classes")


# ---------------------------------------------------------------------------- pictures


def draw(gallery: Gallery) -> Image.Image:
    """A contact sheet."""
    from cache.commands.sheet import Shown, Strip, draw_strips

    def shown(of: Picture) -> Shown:
        has = of.features is not None and of.row is not None
        return Shown(picture(of.features, of.row) if has else None, of.words, of.rim)  # type: ignore[arg-type]

    strips = [Strip(shown(c.first), tuple(map(shown, c.others))) for c in gallery.cards]
    return draw_strips(gallery.title, [*gallery.lead, *gallery.notes], strips, SIDE)


CARDS = """
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 29rem), 1fr));
  gap: 1.5rem 2rem; margin: 1.5rem 0; }
.card { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: .5rem; margin: 0;
  break-inside: avoid; }
.card figure { margin: 0; font-size: .8rem; line-height: 1.3; color: var(--soft);
  overflow-wrap: anywhere; }
.card figure > b { display: block; font-weight: 600; color: var(--ink); margin-top: .3rem; }
.card figure > span { display: block; }
.card img, .card i { display: block; width: 100%; aspect-ratio: 1; object-fit: contain;
  image-rendering: pixelated; box-sizing: border-box; border: 1px solid var(--line); }
"""


def cards_html(gallery: Gallery) -> Iterator[str]:
    """The cards as a fragment of a page that has the styles of ``CARDS``; pictures are inside it."""
    yield '<div class="cards">'
    for card in gallery.cards:
        yield '<div class="card">'
        yield from map(_figure, (card.first, *card.others))
        yield "</div>"
    yield "</div>"


def _figure(of: Picture) -> str:
    words = [escape(line(word)) for word in of.words]
    rim = f' style="border: 3px solid {of.rim}"' if of.rim else ""
    image = f"<i{rim}></i>"
    if png := of.png:
        source = base64.b64encode(png).decode()
        image = f'<img alt="{words[0]}" src="data:image/png;base64,{source}"{rim}>'
    rest = "".join(f"<span>{word}</span>" for word in words[1:])
    return f"<figure>{image}<b>{words[0]}</b>{rest}</figure>"


def write_html(gallery: Gallery) -> str:
    """A gallery as one HTML document that stands alone."""
    policy = f"{POLICY}; img-src data:"
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(line(gallery.title))}</title>\n<style>{STYLE}{CARDS}</style>\n</head>\n<body>"
    )
    lead = [f'<p class="lead">{escape(line(text))}</p>' for text in gallery.lead]
    notes = [f"<p>{escape(line(text))}</p>" for text in gallery.notes]
    parts: Sequence[str] = (
        head,
        f"<h1>{escape(line(gallery.title))}</h1>",
        *lead,
        *cards_html(gallery),
        *(["<footer>", *notes, "</footer>"] if notes else []),
        "</body>\n</html>",
    )
    return "\n".join(parts)
