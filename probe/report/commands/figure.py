"""``report figure``: a picture of stored rows or feature files, and the data frame that it is drawn from."""

import argparse
from dataclasses import replace
from pathlib import Path

from cache.commands.names import counted
from cache.commands.settings import add_flags, given
from cache.commands.terminal import Parser, complain, show
from cache.errors import RequestError
from cache.files import write_asked
from probe.finding import FindConfig, choose_files
from probe.places import ALL
from probe.report.commands.which import USUAL_METRIC, add_rows, metric_of, people_of, read_rows
from probe.report.figures.catalogue import (
    FIGURES,
    FORMATS,
    LIKE,
    OF_FILES,
    OF_ROWS,
    check_drawing,
    find,
    make,
    refuse_unread,
)
from probe.report.figures.catalogue import write as write_figure
from probe.report.figures.files import AskedOfFiles
from probe.report.figures.frame import Asked
from probe.report.figures.papers import make as make_printed
from probe.report.formats.write import write
from probe.report.published.figures import FIGURES as PRINTED
from probe.report.published.figures import find_figure as find_printed
from probe.report.rows.contenders import contenders_of
from probe.report.statistics.bands import parse_by

WIDTHS = {"one": 89.0, "two": 183.0}  # mm, columns of Nature's journals
LEAST, MOST = 60.0, 1000.0  # mm
CLASS = "class"  # of --by
STORED = "Samples of {}: by the split that the feature files store."
EXAMPLES = """\
examples:
  report figure --list                                  which figures there are
  report figure layers -o layers.pdf --data breastmnist
  report figure shots -o shots.png --metric acc --width one
  report figure curves --across encoder-lr -o rates.pdf --kind finetune
  report figure --like huix2024:fig4 -o freezing.pdf
  report figure deciding -o deciding.svg --csv deciding.csv
  report figure subgroups --by meta:sex -o sex.png --data scans
  report figure attention --by class -o attention.pdf --data breastmnist
  report figure cka -o layers.png --data breastmnist --model dinov2,eva02 --pool cls
  report figure scatter --method tsne -o scatter.png --data breastmnist
"""


def make_parser(prog: str) -> Parser:
    """The flags."""
    parser = Parser(
        prog=prog,
        description="Draw stored rows, or feature files. Each picture is drawn from a data frame, which --csv writes, "
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
    what.add_argument("--metric", metavar="NAME", help=USUAL_METRIC)
    what.add_argument(
        "--by",
        metavar="COLUMN",
        help=f"of subgroups: meta:sex, meta:age:40,60; of attention: {CLASS}",
    )
    what.add_argument(
        "--across", metavar="FIELD", help="of curves: encoder-lr, freeze-until, k, n_train..."
    )
    of_files = [name for name, figure in FIGURES.items() if figure.of_files]
    files = parser.add_argument_group(
        f"of feature files ({', '.join(of_files)})",
        "--data, --model, --features and --where PART=VALUE choose files, as probe does",
    )
    files.add_argument(
        "--files", nargs="+", type=Path, metavar="FILE", dest="by_path", help="or by path"
    )
    add_flags(files, FindConfig, only=("sizes",))
    add_flags(files, AskedOfFiles)
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
    if options.output is None and options.csv is None:
        raise RequestError("name a file: -o FILE.png, or --csv FILE of its data frame")
    if options.output is not None:
        form_of(options.output)
    width_of(options.width)
    name, typed = options.figure or options.like, _typed(options)
    if options.like is not None and name not in LIKE:
        if own := [flag for flag in typed if flag not in OF_ROWS]:
            raise RequestError(f"--{own[0]}: a paper's figure has its own; leave it out")
    elif name in FIGURES or name in LIKE:  # others are refused by run
        refuse_unread(name, typed)
        if find(name).of_files:
            _find(options)
            AskedOfFiles(**given(options, AskedOfFiles))


def _typed(options: argparse.Namespace) -> list[str]:
    """Flags that not every figure reads."""
    known = {flag for figure in FIGURES.values() for flag in figure.reads}
    values = vars(options) | {"files": options.by_path}
    return [flag for flag in sorted({*known, *OF_ROWS, *OF_FILES}) if values[flag] is not None]


def _find(options: argparse.Namespace) -> FindConfig:
    """Which feature files are meant.

    Raises:
        RequestError: they are named in two ways.
    """
    wishes = given(options, FindConfig)
    if options.by_path and wishes:
        raise RequestError("name feature files by --files, or by what they are of, not both")
    return FindConfig(files=tuple(options.by_path or ()), **wishes)


def form_of(path: Path) -> str:
    """The format of a picture, by its file's ending.

    Raises:
        RequestError: it is none.
    """
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
    told = {name: figure.told for name, figure in FIGURES.items()}
    like = {figure.called: figure.place for figure in PRINTED}
    like |= {name: figure.told for name, figure in LIKE.items()}
    long = max(map(len, {**told, **like}))
    lines = [
        f"{name:{long}}  {words}" for name, words in {**told, **dict(sorted(like.items()))}.items()
    ]
    lines.insert(len(told), "\nwith --like, in the shape of a paper's:")
    return "\n".join(lines)


def run(options: argparse.Namespace) -> int:
    """Read rows or feature files, make the frame, draw it.

    Raises:
        RequestError: no such figure or metric, rows or files that it needs are missing, or a file
            can't be written.
    """
    if options.list:
        show(_list())
        return 0
    name = options.figure or options.like
    printed = None if options.figure or name in LIKE else find_printed(name)
    is_of_files = printed is None and find(name).of_files
    if options.csv is None:
        check_drawing()
    if is_of_files:
        asked, status = _read_files(options)
    else:
        asked, status = _read(options, may_lack=printed is not None)
        if not asked.rows and printed is None:
            return status
    frame = make(name, asked) if printed is None else make_printed(printed, asked)  # type: ignore[arg-type]
    if isinstance(asked, AskedOfFiles) and asked.split != ALL:
        frame = replace(frame, caption=f"{frame.caption} {STORED.format(asked.split)}")
    if options.csv is not None:
        with write_asked(options.csv) as file:
            file.write(write(frame.page(), "csv").encode())
        show(f"{options.csv}: {counted(len(frame.points), 'line')}")
    if options.output is not None:
        check_drawing()
        with write_asked(options.output) as file:
            width = width_of(options.width)
            write_figure(frame, file, form_of(options.output), width)
        made_of = f" of {frame.counted or asked.counted}" if printed is None else ""
        show(f"{options.output}: {name}{made_of}")
    for note in frame.notes:
        show(note)
    if frame.commands:
        show("\n  ".join([f"{frame.missing}:", *frame.commands]))
    return status


def _read(options: argparse.Namespace, may_lack: bool) -> tuple[Asked, int]:
    """Rows, and the status that files that are none ask for."""
    by_class = options.by == CLASS
    by = parse_by(options.by) if options.by and not by_class else None
    rows, status = read_rows(options, options.prog, may_lack=may_lack)
    people, across = people_of(options), options.across or ""
    metric = metric_of(options, rows)
    return Asked(rows, contenders_of(rows), people, metric, by, across, by_class), status


def _read_files(options: argparse.Namespace) -> tuple[AskedOfFiles, int]:
    """Feature files, and the status that those that can't be had ask for."""
    found, failures = choose_files(_find(options))
    for what, why in failures:
        complain(options.prog, f"{what}: {why}")
    return AskedOfFiles(found, **given(options, AskedOfFiles)), 1 if failures else 0
