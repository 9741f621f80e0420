"""``report gc``: delete rows whose features or labels are gone or older, and what kills left."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.commands.names import counted, format_bytes
from cache.commands.terminal import Parser, complain, confirm, show
from cache.files import remove_leftovers
from cache.places import features_root, results_root
from probe.report.commands.ls import describe_row, faults_of, no_features, size_on_disk
from probe.report.commands.rm import delete
from probe.report.rows.orphans import (
    delete_damaged,
    delete_orphan,
    find_damaged,
    find_orphans,
    find_partial,
    result_folders,
)
from probe.report.rows.stale import Shelf, read_shelf
from probe.report.rows.stored import Problem, StoredRow, read_stored, stored_files


def make_parser(prog: str) -> Parser:
    """The flags."""
    parser = Parser(
        prog=prog,
        description="Delete rows whose feature file is gone, or whose labels, split or patients "
        "were changed since; scores without a row; and what killed writers left. Of rows of "
        "finetune and of controls, which need no feature file, labels are compared with any "
        "encoder's file of the data set. The ledger still knows that deleted rows read test.",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    parser.add_argument("--yes", "-y", action="store_true", help="don't ask")
    parser.add_argument(
        "--damaged", action="store_true", help="rows that can't be read, too; else they are named"
    )
    parser.add_argument(
        "--results", type=Path, metavar="DIR", help="($MEDPROBE_RESULTS or ./results)"
    )
    parser.add_argument(
        "--features", type=Path, metavar="DIR", help="($MEDPROBE_FEATURES or ./features)"
    )
    parser.set_defaults(prog=prog)
    return parser


@dataclass(frozen=True)
class Waste:
    """What may go."""

    stale: Sequence[StoredRow]
    orphans: Sequence[Path]  # scores
    damaged: Sequence[Path]  # rows that can't be read
    partial: Sequence[Path]  # of killed writers, or of such as are at work

    def __str__(self) -> str:
        files = (
            (self.orphans, "file", "of scores without a row"),
            (self.damaged, "damaged row", ""),
            (self.partial, "file", "that killed writers left"),
        )
        said = [counted(len(self.stale), "row")] if self.stale else []
        said += [f"{counted(len(of), noun)} {rest}".strip() for of, noun, rest in files if of]
        paths = (path for of, *_ in files for path in of if path.is_file())
        n_bytes = sum(map(size_on_disk, self.stale)) + sum(p.lstat().st_size for p in paths)
        return f"{', '.join(said)}, {format_bytes(n_bytes)}" if said else ""


def run(options: argparse.Namespace) -> int:
    """Find, ask, delete."""
    root = options.results or results_root()
    shelf = read_shelf(options.features or features_root())
    waste, unread = _find(root, shelf, options)
    for problem in unread:
        complain(options.prog, f"{problem.path}: {problem.why}")
    if shelf.is_empty:
        complain(options.prog, f"{no_features(shelf)}; name their folder with --features DIR")
    _list(waste, shelf)
    if not str(waste):
        show("nothing to delete")
    elif options.dry_run:
        show(f"would delete {waste}")
    elif confirm(str(waste), options.yes):
        _delete(options.prog, root, waste)
    return 1 if unread or shelf.is_empty else 0


def _find(root: Path, shelf: Shelf, options: argparse.Namespace) -> tuple[Waste, Sequence[Problem]]:
    """What may go, and the files that can't be read and stay."""
    rows, problems = read_stored(root, stored_files(root))
    of_rows = {of.path for of in rows}
    problems = [problem for problem in problems if problem.path not in of_rows]
    damaged = find_damaged(problems) if options.damaged else []
    stale = [of for of in rows if any(fault.is_stale for fault in faults_of(shelf, of))]
    waste = Waste(stale, find_orphans(root, rows, problems), damaged, find_partial(root))
    return waste, [problem for problem in problems if problem.path not in damaged]


def _list(waste: Waste, shelf: Shelf) -> None:
    for of in waste.stale:
        why = "; ".join(fault.why for fault in shelf.faults_of(of) if fault.is_stale)
        show(f"  {describe_row(of)}: {why}")
    for paths, what in ((waste.orphans, "scores without a row"), (waste.damaged, "damaged")):
        for path in paths:
            show(f"  {path}: {what}")


def _delete(prog: str, root: Path, waste: Waste) -> None:
    """Delete it; what isn't waste any more, or whose writer is at work, stays.

    Raises:
        OSError: a folder can't be written.
    """
    if waste.stale:
        delete(prog, waste.stale)
    n = sum(map(delete_orphan, waste.orphans)) + sum(map(delete_damaged, waste.damaged))
    for folder in result_folders(root):
        remove_leftovers(folder)
    n += sum(not path.exists() for path in waste.partial)
    if waste.orphans or waste.damaged or waste.partial:
        show(f"deleted {counted(n, 'other file')}")
