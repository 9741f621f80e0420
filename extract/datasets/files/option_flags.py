"""The flags that say which column of a user's table is what."""

import argparse
from typing import Any, Protocol

from cache.commands.terminal import split_words
from extract.datasets.files.options import SAMPLES, TASK_WORDS, TableOptions, flag_of

WITHOUT_FLAG = (
    "licence",
    "window",
)  # the former only in definitions; the latter is `extract`'s own


class Flags(Protocol):
    """A parser, or a group of one."""

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action: ...


def add_table_flags(flags: Flags) -> None:
    """Add the flags; their defaults are TableOptions'."""
    default = TableOptions()
    flags.add_argument(
        "--path-col",
        metavar="COLUMN",
        help="of the images' paths (path, image, file or filename)",
    )
    flags.add_argument(
        "--label-col",
        metavar="COLUMNS",
        help="of the labels: one column of names or numbers, or several of 0 and 1, comma "
        f"separated ({','.join(default.label_cols)})",
    )
    flags.add_argument(
        "--label-sep",
        metavar="TEXT",
        help="between several labels in one cell, such as '|' (none)",
    )
    flags.add_argument(
        "--split-col",
        metavar="COLUMN",
        help="of train, val and test; rows where it is empty are left out (split, if it is there)",
    )
    flags.add_argument(
        "--group-col",
        metavar="COLUMN",
        help="of patients: no split divides one (none)",
    )
    flags.add_argument(
        "--meta-cols",
        metavar="COLUMNS",
        help="kept beside the labels, comma separated: age, sex, site... (none)",
    )
    flags.add_argument("--id-col", metavar="COLUMN", help="of the images' ids (the path)")
    flags.add_argument(
        "--sample-col",
        metavar="COLUMN",
        help="rows that share its value are one sample, as slices or views (each row is one)",
    )
    flags.add_argument(
        "--root", metavar="DIR", help="folder that paths are relative to (the table's own)"
    )
    flags.add_argument(
        "--suffix", metavar="TEXT", help="added to each path, such as .png for lists of ids"
    )
    flags.add_argument(
        "--samples",
        choices=SAMPLES,
        default=default.samples,
        help="of folder:PATH: each file is a sample, or each folder below its class's: the slices of "
        "a series, the views of a patient (%(default)s)",
    )
    flags.add_argument(
        "--task",
        choices=TASK_WORDS,
        help="what the labels are; ordinal and regression only by request (inferred, and shown)",
    )
    flags.add_argument(
        "--positive",
        metavar="CLASS",
        help="label 1 of two classes (the one that isn't normal, benign, no ...; else the second)",
    )
    flags.add_argument(
        "--missing",
        metavar="WORDS",
        help="cells that mean that nobody knows, comma separated, as in --missing=N/A,- (beside "
        "empty ones: nan, NA, null)",
    )


def read_table_options(options: argparse.Namespace) -> TableOptions:
    """What was said by flags.

    Raises:
        RequestError: an empty list, or flags that exclude each other.
    """
    default = TableOptions()
    return TableOptions(
        path_col=options.path_col,
        label_cols=split_words("--label-col", options.label_col) or default.label_cols,
        label_sep=options.label_sep,
        split_col=options.split_col,
        group_col=options.group_col,
        meta_cols=split_words("--meta-cols", options.meta_cols),
        id_col=options.id_col,
        sample_col=options.sample_col,
        root=options.root,
        suffix=options.suffix or default.suffix,
        samples=options.samples,
        task=options.task,
        positive=options.positive,
        missing=split_words("--missing", options.missing),
    )


def table_words(options: TableOptions) -> list[str]:
    """The flags that say the same again, for a command line."""
    words: list[str] = []
    for name, value in options.as_json().items():
        if name in WITHOUT_FLAG:
            continue
        text = ",".join(value) if isinstance(value, list) else value
        # One word where the value might pass for a flag.
        words += [f"{flag_of(name)}={text}"] if text.startswith("-") else [flag_of(name), text]
    return words
