"""``probe table``: stored rows as one table, of probes and of fine-tuned encoders alike."""

import argparse
import dataclasses
import errno
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cache.commands.names import choose_named
from cache.commands.terminal import Parser, complain, run_command, show, split_words
from cache.errors import RequestError
from cache.places import results_root
from probe.report.table import format_table
from probe.results import BrokenRow, Row, check_scores, from_json, read_row

Problem = tuple[str, str]  # which file, and what is wrong with it
# What opening a pipe or a folder, a link to nothing, a loop of links ends in.
NO_FILE = (errno.EINVAL, errno.ENOENT, errno.ELOOP)
NO_ROW = "no row of probe or finetune"
CURE = "delete it, or move it elsewhere; the command that made a row makes it again"
# What a file that is no row, or one of an earlier version without checksum, can make of its reader.
FOREIGN = (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, IndexError)

EXAMPLES = """\
examples:
  probe table                                every stored row
  probe table --data breastmnist             of one data set
  probe table --kind linear,finetune --model dinov2
  probe table results/breastmnist/*.json     rows by file
"""


def make_parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = Parser(
        prog="probe table",
        description="Print stored rows, of probe and of finetune, as one table. Nothing is "
        "computed. Files that hold no whole row, and rows whose scores are missing or damaged, are "
        "named, and the status is 1.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="*", type=Path, help="rows by file (all that are stored)")
    parser.add_argument("--data", metavar="NAMES", help="data sets, comma separated")
    parser.add_argument("--model", "-m", metavar="NAMES", help="encoders, comma separated")
    parser.add_argument("--kind", metavar="KINDS", help="kinds, comma separated; finetune is one")
    parser.add_argument("--name", metavar="TAG", help="rows that were tagged so by --name")
    parser.add_argument(
        "--results", type=Path, metavar="DIR", help="($MEDPROBE_RESULTS or ./results)"
    )
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.files and options.results:
        parser.error("name rows by file or their folder by --results, not both")
    return run_command("probe table", lambda: run(options))


def run(options: argparse.Namespace) -> int:
    """Read the rows, print those that are asked for."""
    root = options.results or results_root()
    paths = options.files or sorted(root.glob("*/*.json"))
    wishes = {
        "dataset": split_words("--data", options.data),
        "model": split_words("--model", options.model),
        "kind": split_words("--kind", options.kind),
    }
    rows, problems = read_stored(paths, wishes, options.name)
    for path, why in problems:
        complain("probe table", f"{path}: {why}")
    if not rows and not problems:
        where = f"the {len(paths)} named files" if options.files else str(root)
        raise RequestError(f"no such row in {where}; `probe --kind linear` makes some")
    if rows:
        show(format_table(rows, with_kind=True))
    return 1 if problems else 0


def read_stored(
    paths: Sequence[Path], wishes: Mapping[str, Sequence[str]], name: str | None = None
) -> tuple[list[Row], list[Problem]]:
    """Stored rows, by data set, encoder, kind and seed.

    Args:
        paths: of their JSON files.
        wishes: "dataset", "model" and "kind" -> the words that are wanted; none: all.
        name: a tag that they have; None: whatever they have.

    Returns:
        The rows, without scores, and the files that aren't any, or whose scores are missing or
        damaged; those rows are whole, and have a mark.
    """
    rows, problems = [], []
    for path in paths:
        try:
            content = read_row(path)
            row, names = from_json(content), content["names"]
            # What can't be shown, or sorted, takes no other row down.
            format_table([row], with_kind=True)
            _place(row)
        except OSError as error:
            is_odd = error.errno in NO_FILE and os.path.lexists(path)
            why = f"not a regular file; {CURE}" if is_odd else error.strerror or str(error)
            problems.append((str(path), why))
            continue
        except BrokenRow as error:
            problems.append((str(path), f"{error}; {CURE}"))
            continue
        except FOREIGN as error:
            problems.append((str(path), f"{NO_ROW} ({type(error).__name__}); {CURE}"))
            continue
        found = {"dataset": row.encoded.dataset, "kind": row.answered.kind}
        is_wanted = all(not wishes.get(what) or found[what] in wishes[what] for what in found)
        if is_wanted and (name is None or name in names):
            rows.append((row, path, content))
    kept = []
    for row, path, content in choose_named(wishes.get("model", ()), rows, _names):
        lacking = _lacking_scores(path, content)
        if lacking:
            problems.append((str(path), f"its {lacking}"))
            row = dataclasses.replace(row, marks=(*row.marks, lacking))
        kept.append(row)
    return sorted(kept, key=_place), problems


def _names(found: tuple[Row, Path, Mapping[str, Any]]) -> tuple[str, str]:
    """What --model may call the encoder of a row."""
    row = found[0]
    return row.encoded.label, row.encoded.model


def _lacking_scores(path: Path, content: Mapping[str, Any]) -> str:
    """What is wrong with a row's scores, whose numbers are whole without them; or nothing."""
    try:
        check_scores(path, content)
    except FileNotFoundError:
        return "scores are missing: ask again"
    except OSError as error:
        return f"scores can't be read ({error.strerror}): ask again"
    except BrokenRow:
        return "scores are damaged: ask again"
    return ""


def _place(row: Row) -> tuple[Any, ...]:
    e, settings = row.encoded, row.answered.settings
    last = (
        str(settings.get("mode", "")),
        settings.get("layer", -1),
        str(settings.get("pool", "")),
    )
    return (
        e.dataset,
        e.model,
        e.label,
        int(e.size or 0),
        row.answered.kind,
        *(str(part).zfill(4) for part in last),
        int(row.answered.shots or 0),
        row.question,
        row.posed.fold,
        int(row.answered.training_seed or 0),
    )
