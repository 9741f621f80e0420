"""``report export``: rows as csv or parquet, or as MedMNIST's evaluator has them."""

import argparse
import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from cache.commands.names import counted
from cache.commands.terminal import Parser, complain, show
from cache.errors import RequestError
from cache.files import write_asked
from probe.report.commands.which import add_rows, read_rows
from probe.report.rows.stored import StoredRow

CSV, PARQUET, MEDMNIST = FORMATS = ("csv", "parquet", "medmnist")
EXAMPLES = """\
examples:
  report export --format csv -o rows.csv           a line each, every field and metric
  report export --format parquet -o rows.parquet   the same with types; pip install 'medprobe[export]'
  report export --format medmnist -o standard      test scores for medmnist.Evaluator, a file each
"""


def make_parser(prog: str) -> Parser:
    """The flags."""
    parser = Parser(
        prog=prog,
        description="Write stored rows for other programs. csv and parquet have the columns of "
        "load_results (from probe.report import load_results); medmnist is a folder of the files "
        "that MedMNIST's own evaluator reads, of rows of its test sets.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_rows(parser)
    how = parser.add_argument_group("how")
    how.add_argument("--format", choices=FORMATS, default=CSV, help="(csv)")
    how.add_argument(
        "--output",
        "-o",
        type=Path,
        metavar="PATH",
        help="file, of medmnist folder (csv: the terminal)",
    )
    parser.set_defaults(prog=prog)
    return parser


def run(options: argparse.Namespace) -> int:
    """Read the rows, write them."""
    if options.output is None and options.format != CSV:
        what = "FILE" if options.format == PARQUET else "DIR"
        raise RequestError(f"--format {options.format} needs -o {what}, where to write")
    if options.format == PARQUET and not find_spec("pyarrow"):
        raise RequestError("parquet needs pyarrow: pip install 'medprobe[export]'")
    rows, status = read_rows(options, options.prog)
    if options.format == MEDMNIST and options.output:
        return max(status, _write_standard(options.prog, rows, options.output))
    _write_frame(rows, options.format, options.output)
    return status


def _write_frame(rows: Sequence[StoredRow], name: str, output: Path | None) -> None:
    """One table of all rows.

    Raises:
        RequestError: it can't be written.
    """
    from probe.report.rows.frame import make_frame

    frame, made = make_frame(rows), io.BytesIO()
    if name == PARQUET:
        frame.to_parquet(made, engine="pyarrow", index=False)
    else:
        frame.to_csv(made, index=False, lineterminator="\n", encoding="utf-8")
    if output is None:
        show(made.getvalue().decode(), end="")
        return
    with write_asked(output) as file:
        file.write(made.getvalue())
    show(f"{output}: {counted(len(rows), 'row')}")


def _write_standard(prog: str, rows: Sequence[StoredRow], folder: Path) -> int:
    """A file for each row, or episode, that MedMNIST's evaluator can read; others are named.

    Raises:
        RequestError: there is none, or a file can't be written.
        OSError: the folder can't be made.
    """
    from probe.report.rows.medmnist import standard_files

    n_files, left_out = 0, 0
    for of in rows:
        try:
            files = list(standard_files(of))
        except RequestError as error:
            complain(prog, f"{of.path}: left out: {error}")
            left_out += 1
            continue
        folder.mkdir(parents=True, exist_ok=True)
        for made in files:
            with write_asked(folder / made.name) as file:
                file.write(made.text.encode())
        n_files += len(files)
    if not n_files:
        raise RequestError("no row that MedMNIST's evaluator could read; nothing was written")
    show(f"{folder}: {counted(n_files, 'file')} of {counted(len(rows) - left_out, 'row')}")
    return 1 if left_out else 0
