"""``report rm``: delete rows."""

import argparse
from collections.abc import Sequence

from cache.commands.names import counted, format_bytes
from cache.commands.terminal import Parser, complain, confirm, show
from cache.errors import RequestError
from cache.places import results_root
from probe.report.commands.ls import describe_row, size_on_disk
from probe.report.commands.which import add_rows, find_rows
from probe.report.rows.ledger import keep_readings
from probe.report.rows.stored import StoredRow
from probe.results import delete_row
from probe.row_names import find_row

FLAGS = ("data", "model", "kind", "name", "where")
LISTED = 10
EXAMPLES = """\
examples:
  report rm 538d9230                          by the start of its id
  report rm results/breastmnist/vit_*.json    by file
  report rm --data breastmnist --kind knn     by what they are, as `report ls` has it
"""


def make_parser(prog: str) -> Parser:
    """The flags."""
    parser = Parser(
        prog=prog,
        description="Delete rows and their scores, never anything else. The ledger still knows "
        "that they read test.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "rows", nargs="*", metavar="ROW", help="a row's file, its stem, or the start of its id"
    )
    add_rows(parser, files=False)
    parser.add_argument("--yes", "-y", action="store_true", help="don't ask")
    parser.set_defaults(prog=prog)
    return parser


def run(options: argparse.Namespace) -> int:
    """Ask, and delete them."""
    used = [flag for flag in FLAGS if getattr(options, flag)]
    if bool(options.rows) == bool(used):
        flags = ", ".join(f"--{flag}" for flag in FLAGS)
        raise RequestError(f"name rows, or say which by {flags}; `report ls` lists them")
    root = options.results or results_root()
    found = (find_row(name, root, "")[0] for name in options.rows)
    paths = list({path.resolve(): path for path in found}.values()) or None
    rows, problems = find_rows(options, paths)
    for problem in problems:
        complain(options.prog, f"{problem.path}: {problem.why}")
    if rows and confirm(describe(rows), options.yes):
        return 1 if not delete(options.prog, rows) or problems else 0
    return 1 if problems else 0


def describe(rows: Sequence[StoredRow]) -> str:
    """What will be deleted, the first few by name."""
    for of in rows[:LISTED]:
        show(f"  {describe_row(of)}")
    if len(rows) > LISTED:
        show(f"  and {len(rows) - LISTED:_} more")
    return f"{counted(len(rows), 'row')}, {format_bytes(sum(map(size_on_disk, rows)))}"


def delete(prog: str, rows: Sequence[StoredRow]) -> bool:
    """Delete rows, which the ledger goes on counting; what stays is named.

    Returns:
        Whether all could be deleted, but for those that were asked again meanwhile.

    Raises:
        OSError: the ledger can't be written.
    """
    keep_readings(rows)
    n, n_bytes, is_done = 0, 0, True
    for of in rows:
        size = size_on_disk(of)
        assert of.path
        try:
            is_deleted = delete_row(of.path, of.content)
        except OSError as error:
            complain(prog, f"{of.path}: {error.strerror}; it stays")
            is_done = False
            continue
        if is_deleted:
            n, n_bytes = n + 1, n_bytes + size
        else:
            complain(prog, f"{of.path}: was asked again meanwhile; it stays")
    show(f"deleted {counted(n, 'row')}, {format_bytes(n_bytes)}")
    return is_done
