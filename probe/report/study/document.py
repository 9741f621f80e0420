"""A study as one HTML file that works without a network.

All of it is in the file: style, script, data, and plotly's script from its wheel, compressed. The
browser is told to ask no network for anything, and to run no script but those two, whose digests
stand in the policy: a name that held a script would be shown, and wouldn't run. Without scripts the
tables, captions and small pictures are there; the plots aren't.

A picture's plots and its data frame stand compressed beside its caption, and are unpacked when they
come into view.
"""

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

from cache.errors import RequestError
from probe.report.figures.catalogue import plot
from probe.report.figures.palette import COLOURS
from probe.report.figures.plotted.picture import Look, Picture
from probe.report.formats.cells import Page, spaced
from probe.report.formats.html import TABLES, escaped, footer, section
from probe.report.formats.write import write as write_page
from probe.report.maps.sheet import SIDE
from probe.report.pages.gallery import CARDS, Gallery, cards_html
from probe.report.study.maps import encoded
from probe.report.study.parts import Block, Commands, Figure, MapSheet, Section, Strip, Study

HERE = Path(__file__).parent
COLUMN = 350  # px that a figure beside another has
CODE = re.compile("`([^`]+)`")
# Of COLOURS on a dark page: as far apart there as those are on paper.
DARK = ("#57A8E8", "#F0B030", "#2FBF95", "#DE9CC0", "#F2834A", "#A9DDF8", "#E6EDF3")


def check_plotly() -> None:
    """Refuse to make a page without plotly.

    Raises:
        RequestError: it isn't installed.
    """
    if not find_spec("plotly"):
        raise RequestError("a page needs plotly: pip install 'medprobe[report]'")


def write(study: Study) -> str:
    """A study as a whole HTML document.

    Raises:
        RequestError: plotly isn't installed.
    """
    return "\n".join(_document(study))


def _document(study: Study) -> Iterator[str]:
    own, plotly = _file("page.js"), _plotly()
    policy = (
        "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; base-uri 'none'; "
        f"form-action 'none'; script-src '{_digest(own)}' '{_digest(plotly)}'"
    )
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escaped(study.title)}</title>"
    yield f"<style>{TABLES}{CARDS}{_colours()}{_file('page.css')}</style>\n</head>\n<body>"
    yield '<a class="skip" href="#main">To the text</a>'
    yield from _contents(study)
    yield '<main id="main">'
    yield f"<header>\n<h1>{escaped(study.title)}</h1>"
    yield from (f'<p class="lead">{_prose(text)}</p>' for text in study.lead)
    if study.facts:
        yield f'<p class="counts">{" · ".join(map(_words, study.facts))}</p>'
    yield "</header>"
    for part in study.sections:
        yield from _section(part)
    yield f'<p class="made">{_prose(study.foot)}</p>'
    yield "</main>"
    # Behind the text, which so stands there at once.
    yield f'<script type="text/plain" id="plotly">{_packed(plotly)}</script>'
    yield f"<script>{own}</script>\n</body>\n</html>"


def _contents(study: Study) -> Iterator[str]:
    yield '<nav aria-label="Contents"><details open><summary>Contents</summary>\n<ol>'
    for part in study.sections:
        yield f'<li><a href="#{part.name}">{escaped(part.title)}</a></li>'
    yield "</ol></details>"
    yield '<button id="scheme" type="button" hidden>dark</button></nav>'


def _section(part: Section) -> Iterator[str]:
    yield f'<section id="{part.name}">\n<h2>{escaped(part.title)}</h2>'
    if part.told:
        yield f'<p class="told">{_prose(part.told)}</p>'
    for number, (is_figure, blocks) in enumerate(groupby(part.blocks, _is_figure)):
        if is_figure:
            yield '<div class="figures">'
        for place, block in enumerate(blocks):
            yield from _block(block, f"{part.name}-{number}-{place}")
        if is_figure:
            yield "</div>"
    yield "</section>"


def _is_figure(block: Block) -> bool:
    return isinstance(block, Figure)


def _block(block: Block, prefix: str) -> Iterator[str]:
    if isinstance(block, Page):
        return _page(block, prefix)
    if isinstance(block, Figure):
        return _figure(block)
    if isinstance(block, Strip):
        return _strip(block)
    if isinstance(block, MapSheet):
        return _maps(block)
    return _gallery(block) if isinstance(block, Gallery) else _commands(block)


def _page(page: Page, prefix: str) -> Iterator[str]:
    numbers = page.numbered()
    if page.title:
        yield f"<h3>{escaped(page.title)}</h3>"
    for text in page.lead:
        yield f'<p class="lead">{_prose(text)}</p>'
    for table in page.tables:
        yield '<div class="table">'
        yield from map(_told, section(table, numbers, "h4", prefix))
        yield "</div>"
    yield from map(_told, footer(page, numbers, prefix))


def _figure(figure: Figure) -> Iterator[str]:
    picture = plot(figure.frame)
    is_wide = len(picture.panels) > 1 or picture.width > COLUMN
    wide = " wide-plots" if is_wide else ""
    name = re.sub(r"[^\w.-]+", "-", figure.name, flags=re.ASCII)
    yield f'<figure class="plots{wide}" id="figure-{name}">\n<h3>{_words(figure.title)}</h3>'
    if picture.keys:
        keys = "".join(
            f"<li>{_key(look)}<span>{_words(look.label)}</span></li>" for look in picture.keys
        )
        yield f'<ul class="keys">{keys}</ul>'
    own = " own-widths" if any(panel.width for panel in picture.panels) else ""
    yield f'<div class="panels{own}" style="--least: {picture.width}px">'
    for panel in picture.panels:
        title = f"<h4>{_words(panel.title)}</h4>" if panel.title else ""
        least = f"; min-width: {panel.least}px" if panel.least else ""
        box = f'<div class="plot" style="height: {panel.height}px{least}"></div>'
        width = f' style="width: {panel.width}px"' if panel.width else ""
        yield f'<div class="panel"{width}>{title}{box}</div>'
    yield "</div>\n<noscript><p>Plots need JavaScript.</p></noscript>"
    frame = figure.frame
    yield f"<figcaption><p>{_prose(frame.caption)}"
    yield f' <a class="csv" hidden download="{name}.csv">Data as CSV</a></p>'
    notes = [text for text in (picture.said, *frame.notes) if text]
    yield from (f"<p>{_prose(_sentence(text))}</p>" for text in notes)
    if frame.commands:
        lines = "\n".join(map(escaped, frame.commands))
        yield f"<details><summary>{frame.missing}</summary><pre>{lines}</pre></details>"
    yield "</figcaption>"
    yield f'<script type="text/plain" class="data">{_packed(_data(figure, picture))}</script>'
    yield "</figure>"


def _data(figure: Figure, picture: Picture) -> str:
    """What the script unpacks: plots, and the data frame as a file."""
    plots = [{"data": panel.traces, "layout": panel.layout} for panel in picture.panels]
    csv = write_page(figure.frame.page(), "csv")
    return json.dumps({"plots": plots, "csv": csv}, allow_nan=False, separators=(",", ":"))


def _key(look: Look) -> str:
    """A look as a small drawing."""
    dash = {"dash": "5 3", "dot": "2 3", "dashdot": "6 2 1.5 2"}.get(look.dash, "none")
    line = f'<path d="M0 7H24" stroke-dasharray="{dash}"/>' if look.dash else ""
    shape, _, is_open = look.marker.partition("-")
    inside = "var(--paper)" if is_open else "currentColor"
    mark = f'<path d="{_SHAPES[shape]}" fill="{inside}"/>' if shape in _SHAPES else ""
    if shape == "triangle":
        mark = f'<path d="{_SHAPES[look.marker]}" fill="currentColor"/>'
    return f'<svg viewBox="0 0 24 14" style="color: {look.colour}" aria-hidden="true">{line}{mark}</svg>'


_SHAPES = {  # of 24 x 14
    "circle": "M16 7a4 4 0 1 0-8 0a4 4 0 1 0 8 0z",
    "square": "M8.5 3.5h7v7h-7z",
    "diamond": "M12 2l5 5-5 5-5-5z",
    "triangle-up": "M12 2.5l4.5 8h-9z",
    "triangle-down": "M12 11.5l4.5-8h-9z",
    "cross": "M10.5 3h3v2.5h2.5v3h-2.5v2.500h-3v-2.500h-2.500v-3h2.500z",
    "x": "M9 3l3 3 3-3 1 1-3 3 3 3-1 1-3-3-3 3-1-1 3-3-3-3z",
}  # fmt: skip


def _strip(strip: Strip) -> Iterator[str]:
    yield '<div class="strip">'
    if strip.title:
        yield f"<h4>{_words(strip.title)}</h4>"
    yield '<div class="images">'
    for image in strip.images:
        url = f"data:image/png;base64,{base64.b64encode(image.png).decode()}"
        said = "".join(f"<br>{escaped(line)}" for line in image.lines).removeprefix("<br>")
        caption = f"<figcaption>{said}</figcaption>" if said else ""
        yield f'<figure><img src="{url}" alt="{escaped(image.words)}">{caption}</figure>'
    yield "</div>"
    if strip.note:
        yield f'<p class="below">{_words(strip.note)}</p>'
    yield "</div>"


def _maps(block: MapSheet) -> Iterator[str]:
    """A table of pictures, each inside the page."""
    sheet, n_bytes = block.sheet, 0
    yield f'<figure class="maps">\n<h3>{_words(block.title)}</h3>'
    for name, keys in groupby(sheet.keys, lambda key: key.of):
        swatches = "".join(
            f'<li><i style="background: {key.colour}"></i><span>{_words(key.label)}</span></li>'
            for key in keys
        )
        yield f'<ul class="keys"><li>{_words(name)}</li>{swatches}</ul>'
    yield '<div class="wide" tabindex="0"><table>\n<thead><tr><th></th>'
    for column in sheet.columns:
        under = [*([column.group] if column.group else []), *column.under]
        if column.scale:
            under.append(f"{column.scale.low:.3g} (light) to {column.scale.high:.3g}")
        lines = "".join(f"<br><small>{_words(words)}</small>" for words in under)
        yield f'<th scope="col">{_words(column.title)}{lines}</th>'
    yield "</tr></thead>\n<tbody>"
    for place, (name, *lines) in enumerate(sheet.names):
        said = "".join(f"<br><small>{_words(words)}</small>" for words in lines)
        yield f'<tr><th scope="row">{_words(name)}{said}</th>'
        for column in sheet.columns:
            cell = column.cells[place]
            below = f"<small>{_words(cell.said)}</small>" if cell.said else ""
            if not cell.layers:
                yield f"<td>{below}</td>"
                continue
            picture, kind = encoded(cell)
            n_bytes += len(picture)
            url = f"data:{kind};base64,{base64.b64encode(picture).decode()}"
            told = escaped(f"{column.title} of {name}")
            yield f'<td><img src="{url}" alt="{told}" width="{SIDE}" height="{SIDE}">{below}</td>'
        yield "</tr>"
    yield f"</tbody></table></div>\n<figcaption><p>{_prose(sheet.caption)} Pictures of {SIDE} px, "
    yield f"{n_bytes / 1e6:.2g} MB together.</p>"
    yield from (f"<p>{_prose(_sentence(text))}</p>" for text in sheet.notes)
    yield "</figcaption></figure>"


def _gallery(gallery: Gallery) -> Iterator[str]:
    yield f"<h3>{_words(gallery.title)}</h3>"
    yield from (f'<p class="told">{_words(text)}</p>' for text in gallery.lead)
    yield from cards_html(gallery)
    yield from (f'<p class="below">{_words(text)}</p>' for text in gallery.notes)


def _commands(block: Commands) -> Iterator[str]:
    if block.title:
        yield f"<h3>{escaped(block.title)}</h3>"
    if block.note:
        yield f'<p class="told">{_prose(block.note)}</p>'
    if block.lines:
        yield f"<pre>{chr(10).join(map(escaped, block.lines))}</pre>"


def _prose(text: str) -> str:
    """A sentence, with what stands between backticks as code, and thousands as people write them."""
    parts = CODE.split(escaped(text))  # every second is code
    parts[::2] = map(spaced, parts[::2])
    parts[1::2] = [f"<code>{code}</code>" for code in parts[1::2]]
    return "".join(parts)


def _told(html: str) -> str:
    """A paragraph that is HTML already, with code; tables stay as they are."""
    return CODE.sub(r"<code>\1</code>", spaced(html)) if html.startswith("<p") else html


def _words(text: str) -> str:
    return escaped(spaced(text))


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _colours() -> str:
    pairs = zip(COLOURS, DARK, strict=True)
    said = "".join(f"--c{n}: light-dark({one}, {two});" for n, (one, two) in enumerate(pairs))
    return f":root {{{said}}}"


def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _plotly() -> str:
    check_plotly()
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def _packed(text: str) -> str:
    """In letters that no HTML can be of."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def _digest(script: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
