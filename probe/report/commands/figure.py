"""``report figure``: a picture of stored rows, and the data frame that it is drawn from."""

import argparse
from pathlib import Path

from cache.commands.names import counted
from cache.commands.terminal import Parser, show
from cache.errors import RequestError
from cache.files import write_asked
from probe.report.commands.which import add_rows, people_of, read_rows
from probe.report.figures.catalogue import FIGURES, FORMATS, check_drawing, find, make
from probe.report.figures.catalogue import write as write_figure
from probe.report.figures.frame import Asked
from probe.report.figures.papers import make as make_printed
from probe.report.formats.write import write
from probe.report.published.figures import FIGURES as PRINTED
from probe.report.published.figures import find_figure as find_printed
from probe.report.rows.contenders import contenders_of
from probe.report.rows.fields import metric_named
from probe.report.statistics.bands import parse_by

WIDTHS = {"one": 89.0, "two": 183.0}  # mm, columns of Nature's journals
LEAST, MOST = 60.0, 1000.0  # mm
EXAMPLES = """\
examples:
  report figure --list                                  which figures there are
  report figure layers -o layers.pdf --data breastmnist
  report figure shots -o shots.png --metric acc --width one
  report figure curves --across encoder-lr -o rates.pdf --kind finetune
  report figure --like huix2024:fig4 -o freezing.pdf
  report figure deciding -o deciding.svg --csv deciding.csv
  report figure subgroups --by meta:sex -o sex.png --data scans
"""


def make_parser(prog: str) -> Parser:
    """The flags."""
    parser = Parser(
        prog=prog,
        description="Draw stored rows. Each picture is drawn from a data frame, which --csv writes, "
        "and says below itself what its bars are, and of how many samples. Needs matplotlib, but for "
        "--csv: pip install 'medprobe[report]'.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("figure", nargs="?", metavar="NAME", help=", ".join(FIGURES))
    parser.add_argument("--list", action="store_true", help="say which figures there are")
    parser.add_argument(
        "--like", metavar="PAPER:FIGURE", help="in the shape of a paper's figure, as huix2024:fig4"
    )
    add_rows(parser, files=False)
    what = parser.add_argument_group("what is drawn")
    what.add_argument("--metric", metavar="NAME", help="(auc)")
    what.add_argument("--by", metavar="COLUMN", help="of subgroups: meta:sex, meta:age:40,60")
    what.add_argument(
        "--across", metavar="FIELD", help="of curves: encoder-lr, freeze-until, k, n_train..."
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--output", "-o", type=Path, metavar="FILE", help=f"a file.{'|'.join(FORMATS)}"
    )
    how.add_argument("--csv", type=Path, metavar="FILE", help="the data frame")
    how.add_argument(
        "--width", default="two", metavar="WIDTH", help="of the picture: one or two columns of a "
        f"paper ({WIDTHS['one']:g} and {WIDTHS['two']:g} mm), or a number of mm (two)",
    )  # fmt: skip
    parser.set_defaults(prog=prog)
    return parser


def check(options: argparse.Namespace) -> None:
    """Refuse flags that don't go together.

    Raises:
        RequestError: nothing is asked for, or nowhere to write it.
    """
    if options.list:
        return
    if options.figure is None and options.like is None:
        raise RequestError("name a figure; --list says which there are")
    if options.figure is not None and options.like is not None:
        raise RequestError(f"name {options.figure} or --like {options.like}, not both")
    own = [n for n in ("metric", "by", "across") if getattr(options, n) is not None]
    if options.like is not None and own:
        raise RequestError(f"--{own[0]}: a paper's figure has its own; leave it out")
    if options.output is None and options.csv is None:
        raise RequestError("name a file: -o FILE.png, or --csv FILE of its data frame")
    if options.output is not None:
        _form(options.output)
    width_of(options.width)


def _form(path: Path) -> str:
    form = path.suffix.lower().removeprefix(".")
    if form not in FORMATS:
        ends = ", ".join(f".{name}" for name in FORMATS)
        raise RequestError(f"-o takes a file that ends in {ends}; not {str(path)!r}")
    return form


def width_of(word: str) -> float:
    """Inches of a width as it is typed.

    Raises:
        RequestError: it is neither a number of columns nor one of millimetres that hold a picture.
    """
    try:
        found = WIDTHS.get(word) or float(word.removesuffix("mm"))
    except ValueError:
        found = 0.0
    if not LEAST <= found <= MOST:
        raise RequestError(
            f"--width is one, two, or {LEAST:g} to {MOST:g} mm, such as 120; not {word!r}"
        )
    return found / 25.4


def _list() -> str:
    told = {**FIGURES, **{figure.called: figure.place for figure in PRINTED}}
    long = max(map(len, told))
    lines = [f"{name:{long}}  {words}" for name, words in told.items()]
    lines.insert(len(FIGURES), "\nwith --like, in the shape of a paper's:")
    return "\n".join(lines)


def run(options: argparse.Namespace) -> int:
    """Read the rows, make the frame, draw it.

    Raises:
        RequestError: no such figure or metric, rows that it needs are missing, or a file can't be
            written.
    """
    if options.list:
        show(_list())
        return 0
    printed = find_printed(options.like) if options.like is not None else None
    if printed is None:
        find(options.figure)
    if options.output is not None:
        check_drawing()
    metric = metric_named(options.metric or "auc")
    by = parse_by(options.by) if options.by else None
    rows, status = read_rows(options, options.prog, may_lack=printed is not None)
    if not rows and printed is None:
        return status
    asked = Asked(rows, contenders_of(rows), people_of(options), metric, by, options.across or "")
    frame = make(options.figure, asked) if printed is None else make_printed(printed, asked)
    if options.csv is not None:
        with write_asked(options.csv) as file:
            file.write(write(frame.page(), "csv").encode())
        show(f"{options.csv}: {counted(len(frame.points), 'line')}")
    if options.output is not None:
        with write_asked(options.output) as file:
            width = width_of(options.width)
            write_figure(frame, file, _form(options.output), width)
        of = options.like or f"{options.figure} of {counted(len(rows), 'row')}"
        show(f"{options.output}: {of}")
    for note in frame.notes:
        show(note)
    return status
