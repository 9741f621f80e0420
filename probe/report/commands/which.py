"""Flags that say which rows, and reading them."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from cache.commands.names import counted, near_names
from cache.commands.terminal import Parser, complain, show, split_words
from cache.errors import RequestError
from cache.files import write_asked
from cache.places import features_root, results_root
from probe.report.formats.cells import Page
from probe.report.formats.write import ENDINGS, FORMATS, HTML, write
from probe.report.pages.notes import as_few
from probe.report.rows.fields import FIELDS, metric_named, read_condition, usual_metric
from probe.report.rows.people import People
from probe.report.rows.stored import (
    Problem,
    StoredRow,
    Wanted,
    model_names,
    read_stored,
    stored_files,
)

# What each flag may call a row.
CALLED: Mapping[str, Callable[[StoredRow], Sequence[str]]] = {
    "data": lambda of: (of.row.encoded.dataset,),
    "model": model_names,
    "kind": lambda of: (of.row.answered.kind,),
    "name": lambda of: of.names,
}
USUAL_METRIC = "(auc), or mae of rows that predict numbers"  # of --metric
LISTED = 10  # of the names that there are


def add_rows(parser: Parser, *, files: bool = True) -> None:
    """Add the flags.

    Args:
        parser: of a command.
        files: whether rows may be named by file.
    """
    which = parser.add_argument_group("which rows")
    if files:
        which.add_argument("files", nargs="*", type=Path, help="rows by file (all that are stored)")
    which.add_argument("--data", metavar="NAMES", help="data sets, comma separated")
    which.add_argument("--model", "-m", metavar="NAMES", help="encoders, comma separated")
    which.add_argument("--kind", metavar="KINDS", help="kinds, comma separated; finetune is one")
    which.add_argument("--name", metavar="TAG", help="rows that were tagged so by --name")
    which.add_argument(
        "--where",
        metavar="FIELD=VALUE",
        action="append",
        help="rows with this value; also != < <= > >=, and several with a comma. Fields: "
        + ", ".join(field.name for field in FIELDS)
        + "; metrics, val:METRIC, and paths such as probe.k",
    )
    which.add_argument(
        "--results", type=Path, metavar="DIR", help="($MEDPROBE_RESULTS or ./results)"
    )
    which.add_argument(
        "--features",
        type=Path,
        metavar="DIR",
        help="where patients and meta columns are read ($MEDPROBE_FEATURES or ./features)",
    )


def add_format(parser: Parser, usual: str = "terminal") -> None:
    """Add the flags of how a page is written, and where.

    Args:
        parser: that gets them.
        usual: the format where neither a flag nor a file's ending says one.
    """
    how = parser.add_argument_group("how")
    how.add_argument("--format", choices=FORMATS, help=f"({usual})")
    how.add_argument(
        *("--output", "-o"),
        type=Path,
        metavar="FILE",
        help="its ending says the format where --format doesn't: "
        f"{', '.join(ENDINGS)} (the terminal)",
    )
    parser.set_defaults(usual=usual)


def print_page(options: argparse.Namespace, page: Page) -> None:
    """Write a page as flags of ``add_format`` say.

    Raises:
        RequestError: the file can't be written, or is called .html and would be none.
    """
    ending = options.output.suffix.lower() if options.output else ""
    said = ENDINGS.get(ending)
    form = options.format or said or options.usual
    if said == HTML != form:  # a browser would run what names hold
        raise RequestError(
            f"{options.output.name} would hold {form}; leave --format out, or rename it"
        )
    text = write(page, form)
    if options.output is None:
        show(text)
        return
    with write_asked(options.output) as file:
        file.write(f"{text.rstrip()}\n".encode())


def parse(parser: Parser, arguments: Sequence[str]) -> argparse.Namespace:
    """Read the flags; two that don't go together end the process with status 2."""
    options = parser.parse_args(list(arguments))
    if getattr(options, "files", None) and options.results:
        parser.error("name rows by file or their folder by --results, not both")
    return options


def metric_of(options: argparse.Namespace, rows: Sequence[StoredRow]) -> str:
    """The metric that is typed, by its name in rows; else the usual one of these rows.

    Raises:
        RequestError: there is none of this name.
    """
    return metric_named(options.metric) if options.metric else usual_metric(rows)


def people_of(options: argparse.Namespace) -> People:
    """Who knows the patients."""
    return People(options.features or features_root())


def read_rows(
    options: argparse.Namespace, prog: str, *, may_lack: bool = False
) -> tuple[list[StoredRow], int]:
    """The rows that flags ask for; files that aren't any are complained of.

    Args:
        options: of ``add_rows``.
        prog: the command, for complaints.
        may_lack: whether the command has something to say where there are none.

    Returns:
        The rows, and the exit status that the complaints ask for.

    Raises:
        RequestError: there are none, though nothing is wrong with any file.
    """
    paths = _paths(options)
    rows, problems = _read(options, paths)
    for text in as_few(f"{problem.path}: {problem.why}" for problem in problems):
        complain(prog, text)
    if not rows and not problems and not may_lack:
        _refuse(options, paths)
    return rows, 1 if problems else 0


def find_rows(
    options: argparse.Namespace, paths: Sequence[Path] | None = None
) -> tuple[list[StoredRow], list[Problem]]:
    """The rows that flags ask for, for whoever looks after files: nothing is complained of.

    Args:
        options: of ``add_rows``.
        paths: rows by file, where flags don't name them.

    Returns:
        The rows, with whatever is wrong with their scores, and the files that hold none.

    Raises:
        RequestError: there are none, though nothing is wrong with any file.
    """
    paths = _paths(options) if paths is None else paths
    rows, problems = _read(options, paths)
    kept = {of.path for of in rows}
    if not rows and not problems:
        _refuse(options, paths)
    return rows, [problem for problem in problems if problem.path not in kept]


def _paths(options: argparse.Namespace) -> Sequence[Path]:
    return getattr(options, "files", None) or stored_files(options.results or results_root())


def _read(
    options: argparse.Namespace, paths: Sequence[Path]
) -> tuple[list[StoredRow], list[Problem]]:
    wanted = Wanted(
        split_words("--data", options.data),
        split_words("--model", options.model),
        split_words("--kind", options.kind),
        options.name,
        [read_condition(text) for text in options.where or ()],
    )
    root = options.results or results_root()
    return read_stored(root, paths, wanted)


def _listed(known: Sequence[str]) -> str:
    more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
    return f"there are {', '.join(known[:LISTED])}{more}" if known else "no row has one"


def _refuse(options: argparse.Namespace, paths: Sequence[Path]) -> NoReturn:
    """Say which flag no row fits, and what would fit.

    Raises:
        RequestError: always.
    """
    root = options.results or results_root()
    files = getattr(options, "files", None)
    where = f"the {counted(len(paths), 'named file')}" if files else str(root)
    if not files and not root.is_dir():
        raise RequestError(
            f"there is no folder {root}; name one of results by --results DIR, or make rows: "
            "`probe --kind linear`"
        )
    rows, _ = read_stored(root, paths)
    if not rows:
        raise RequestError(f"no row in {where}; `probe --kind linear` makes some")
    given, unfit = [], []
    for flag, names in CALLED.items():
        if not (text := getattr(options, flag)):
            continue
        words = [text] if flag == "name" else split_words(f"--{flag}", text)
        known = sorted({name for of in rows for name in names(of)})
        given.append(f"--{flag} {text}")
        if not set(words) & set(known):
            near = next(filter(None, (near_names(word, known, "") for word in words)), "")
            unfit.append(f"{given[-1]} fits none; {near or _listed(known)}")
    for text in options.where or ():
        given.append(f"--where {text}")
        if not any(map(read_condition(text), rows)):
            unfit.append(f"{given[-1]} fits none")
    what = "; ".join(unfit) or f"each of {', '.join(given)} fits some, but none fits all"
    raise RequestError(f"no such row in {where}: {what}")
