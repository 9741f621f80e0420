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
        "--damaged",
        action="store_true",
        help="rows that can't be read, or whose scores are lost, too; else they are named",
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

    rows: Sequence[StoredRow]  # that are stale; with --damaged those whose scores are lost, too
    orphans: Sequence[Path]  # scores
    damaged: Sequence[Path]  # rows that can't be read, and their scores
    partial: Sequence[Path]  # of killed writers, or of such as are at work

    def __str__(self) -> str:
        files = (
            (self.orphans, "file", "of scores without a row"),
            (self.damaged, "file", "of damaged rows"),
            (self.partial, "file", "that killed writers left"),
        )
        said = [counted(len(self.rows), "row")] if self.rows else []
        said += [f"{counted(len(of), noun)} {rest}" for of, noun, rest in files if of]
        paths = (path for of, *_ in files for path in of if path.is_file())
        n_bytes = sum(map(size_on_disk, self.rows)) + sum(p.lstat().st_size for p in paths)
        return f"{', '.join(said)}, {format_bytes(n_bytes)}" if said else ""


def run(options: argparse.Namespace) -> int:
    """Find, ask, delete."""
    root = options.results or results_root()
    shelf = read_shelf(options.features or features_root())
    waste, unread, kept = _find(root, shelf, options)
    for problem in unread:
        complain(options.prog, f"{problem.path}: {problem.why}")
    if shelf.is_empty:
        complain(options.prog, f"{no_features(shelf)}; name their folder with --features DIR")
    _list(waste, shelf)
    for of in kept:
        cure = "; --damaged deletes it" if of.lacking else ""
        show(f"  {describe_row(of)}: {_why(shelf, of)}; stays{cure}")
    if not str(waste):
        show("nothing to delete")
    elif options.dry_run:
        show(f"would delete {waste}")
    elif confirm(str(waste), options.yes):
        return 1 if not _delete(options.prog, root, waste) or unread or shelf.is_empty else 0
    return 1 if unread or shelf.is_empty else 0


def _find(
    root: Path, shelf: Shelf, options: argparse.Namespace
) -> tuple[Waste, Sequence[Problem], Sequence[StoredRow]]:
    """What may go, the files that can't be read and stay, and rows with other faults, which stay."""
    rows, problems = read_stored(root, stored_files(root))
    of_rows = {of.path for of in rows}
    problems = [problem for problem in problems if problem.path not in of_rows]
    damaged = find_damaged(problems) if options.damaged else []
    faulty = {of.path: faults for of in rows if (faults := faults_of(shelf, of))}

    def goes(of: StoredRow) -> bool:
        is_stale = any(fault.is_stale for fault in faulty[of.path])
        return is_stale or bool(options.damaged and of.lacking)

    gone = [of for of in rows if of.path in faulty and goes(of)]
    kept = [of for of in rows if of.path in faulty and not goes(of)]
    waste = Waste(gone, find_orphans(root, rows, problems), damaged, find_partial(root))
    return waste, [problem for problem in problems if problem.path not in damaged], kept


def _list(waste: Waste, shelf: Shelf) -> None:
    for of in waste.rows:
        show(f"  {describe_row(of)}: {_why(shelf, of)}")
    for paths, what in ((waste.orphans, "scores without a row"), (waste.damaged, "damaged")):
        for path in paths:
            show(f"  {path}: {what}")


def _why(shelf: Shelf, of: StoredRow) -> str:
    return "; ".join(fault.why for fault in faults_of(shelf, of))


def _delete(prog: str, root: Path, waste: Waste) -> bool:
    """Delete it; what isn't waste any more, or whose writer is at work, stays.

    Returns:
        Whether all could be deleted; what couldn't is named.

    Raises:
        OSError: the ledger can't be written.
    """
    is_done = delete(prog, waste.rows) if waste.rows else True
    n = 0
    for paths, delete_file in ((waste.orphans, delete_orphan), (waste.damaged, delete_damaged)):
        for path in paths:
            try:
                n += delete_file(path)
            except OSError as error:
                complain(prog, f"{path}: {error.strerror}; it stays")
                is_done = False
    for folder in result_folders(root):
        remove_leftovers(folder)
    n += sum(not path.exists() for path in waste.partial)
    if waste.orphans or waste.damaged or waste.partial:
        show(f"deleted {counted(n, 'other file')}")
    return is_done
