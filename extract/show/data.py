"""``extract data``: the data sets that ``--data`` can name, which are here, and what is in them.

The list opens no image and imports no torch; ``show`` and ``twins`` are in ``pictures``.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from cache import RequestError
from cache.commands.names import counted
from cache.commands.settings import add_flags, given
from cache.commands.terminal import Parser, cut_text, fill_fact, run_command, show, terminal_width
from cache.format.sample_tables import SPLITS
from cache.labels.target import describe_target
from cache.task import ASKED
from extract.datasets.files import definitions
from extract.datasets.files.listing import Listing
from extract.datasets.files.options import TableOptions
from extract.datasets.files.windows import Window
from extract.datasets.sources import reserved_names
from extract.show.facts import DAMAGED, READY, Facts, Labelled, find_facts, list_facts, read_labels
from extract.show.samples import grouped

COMMANDS = ("add", "remove", "show", "twins")

EXAMPLES = """\
examples:
  extract data                          every data set, and which are here
  extract data --ready                  those whose images are on this machine
  extract data breastmnist              all that is known of one
  extract data --json                   for programs
  extract data show breastmnist         a picture of each class, as the encoder will see it
  extract data twins breastmnist        images that two splits share, with pictures
  extract data add scans csv:scans.csv --path-col file --label-col finding --group-col patient
  extract data remove scans

Besides these, --data takes folder:PATH, seg-folder:PATH, csv:FILE and npz:FILE.

states: ready · needs download (extract fetches it) · not here (a person must get it: `extract data
NAME` says where) · missing package · damaged
"""


def main(arguments: Sequence[str]) -> int:
    """Run ``extract data``; returns the exit status."""
    command, rest = "".join(arguments[:1]), arguments[1:]
    if command in ("show", "twins"):
        from extract.show.pictures import main as draw  # only here: it loads torch

        return draw(command, rest)
    if command == "add":
        options = make_add_parser().parse_args(rest)
        return run_command("extract data add", lambda: run_add(options))
    if command == "remove":
        options = make_remove_parser().parse_args(rest)
        return run_command("extract data remove", lambda: run_remove(options))
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.names and options.ready:
        parser.error("--ready chooses from the whole list; leave the names out")
    return run_command("extract data", lambda: run(options))


# ---------------------------------------------------------------------------- the list


def make_parser() -> Parser:
    """The flags of ``extract data`` itself."""
    parser = Parser(
        prog="extract data",
        description="List the data sets that --data can name, and which are on this machine.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="tell all about these")
    parser.add_argument("--ready", action="store_true", help="only those that are ready")
    parser.add_argument("--json", action="store_true", help="all that is known, as JSON")
    parser.add_argument(
        "--data-root",
        type=Path,
        metavar="DIR",
        help="folder of MedMNIST's or MedSegBench's files, or of recipes' folders "
        "(~/.medmnist; $MEDPROBE_DATA or ./data)",
    )
    return parser


def run(options: argparse.Namespace) -> int:
    """Print the table, or all about some data sets."""
    root = options.data_root
    width = terminal_width()
    if options.names:
        chosen = [look_inside(find_facts(n, root), root) for n in dict.fromkeys(options.names)]
    else:
        every = list_facts(root)
        chosen = [(f, None) for f in every if not options.ready or f["state"] == READY]
    if options.json:
        facts = [
            one | ({"counts": count_classes(labels)} if labels else {}) for one, labels in chosen
        ]
        show(json.dumps(facts, indent=1, ensure_ascii=False))
    elif options.names:
        for one, labels in chosen:
            show("\n".join(describe(one, labels, min(width or 100, 100))))
    else:
        for line in format_table([one for one, _ in chosen], width):
            show(line)
    return 0


def look_inside(facts: Facts, root: Path | None) -> tuple[Facts, Labelled | None]:
    """A data set's labels, where it is here; where it isn't as it should be, what is wrong."""
    try:
        labels = read_labels(facts, root)
    except RequestError as error:
        if facts["state"] != READY:
            return facts, None
        return {**facts, "state": DAMAGED, "problem": str(error)}, None
    target = labels.target
    if labels.mask_classes:
        facts = {**facts, "mask_classes": list(labels.mask_classes)}
        if target.is_unlabelled:
            n = {"state": READY, "n_samples": len(target.labels)}
            return {**facts, **n, "notes": list(labels.notes)}, None
    known = {"state": READY, "task": target.task, "n_samples": len(target.labels)}
    return {**facts, **known, "classes": list(target.class_names)}, labels


HEAD = ("name", "state", "images", "task", "sizes here", "licence")
IMAGES, SIZES, LICENCE = map(HEAD.index, ("images", "sizes here", "licence"))
ENOUGH = 12  # letters of a licence, as "CC BY-NC 4.0" has: shorter than that, it goes
SHORT_TASKS = {task: word for word, task in ASKED.items()}


def format_table(chosen: Sequence[Facts], width: int) -> Iterator[str]:
    """Lines for the terminal.

    Args:
        chosen: data sets.
        width: of the terminal. Where it is too narrow the sizes go, then the licence is cut, then
            columns go from the right. 0: all fits.
    """
    rows = [HEAD, *map(_cells, chosen)]
    widths = {i: max(len(row[i]) for row in rows) for i in range(len(HEAD))}
    for column in (SIZES, *reversed(range(1, len(HEAD)))):
        excess = sum(widths.values()) + 2 * (len(widths) - 1) - width
        if not width or excess <= 0:
            break
        if column == LICENCE and widths[column] - excess >= ENOUGH:
            widths[column] -= excess
            break
        widths.pop(column, None)
    for row in rows:
        cells = [
            cut_text(row[i], w).rjust(w) if i == IMAGES else cut_text(row[i], w).ljust(w)
            for i, w in widths.items()
        ]
        line = "  ".join(cells).rstrip()
        yield cut_text(line, width) if width else line
    ready = sum(facts["state"] == READY for facts in chosen)
    yield f"{counted(len(chosen), 'data set')}, {ready} ready here; extract data NAME tells all about one"


def _cells(facts: Facts) -> tuple[str, ...]:
    task, classes, n = facts["task"], facts["classes"], facts["n_samples"]
    words = SHORT_TASKS[task] if task else "-"
    if classes and len(classes) > 2:
        words += f" {len(classes)}"
    if masks := facts.get("mask_classes"):
        words = f"masks {len(masks)}"
    state = "missing package" if facts["state"].startswith("missing") else facts["state"]
    sizes = " ".join(map(str, facts["sizes_here"])) or "-"
    licence = facts["licence"] or "unknown"
    return facts["name"], state, grouped(n) if n else "-", words, sizes, licence


# ---------------------------------------------------------------------------- all about one


def describe(facts: Facts, labels: Labelled | None, width: int) -> Iterator[str]:
    """All about one data set, as lines."""
    yield facts["name"]
    for name, fact in facts.items():
        if name == "seen_by" and fact == []:
            fact = "none of the encoders that say what they saw"
        if name == "name" or (name == "classes" and labels) or fact in (None, [], {}, ""):
            continue
        if name == "positive_class":
            fact = f"{fact} (label 1)"
        yield fill_fact(name, _words(fact), width, 18)
    if facts["licence"] is None:
        yield fill_fact("licence", "unknown", width, 18)
    if labels is not None:
        yield from _class_table(labels)
        for note in labels.notes:
            yield fill_fact("note", note, width, 18)


def _words(fact: object) -> str:
    if isinstance(fact, dict):
        return ", ".join(f"{name} {_words(value)}" for name, value in fact.items())
    if isinstance(fact, list):
        return ", ".join(map(_words, fact))
    return grouped(fact) if isinstance(fact, int) else str(fact)


def _class_table(labels: Labelled) -> Iterator[str]:
    """Each class, and how many samples of it each split has."""
    head = SPLITS if labels.split is not None else ("samples",)
    counted = labels.by_class()
    width = max(len(one.name) for one, _ in counted)
    yield f"  {'':<{width}}" + "".join(f"  {name:>9}" for name in head)
    for one, counts in counted:
        mark = "  positive (label 1)" if one.is_positive else ""
        yield f"  {one.name:<{width}}" + "".join(f"  {grouped(n):>9}" for n in counts) + mark


def count_classes(labels: Labelled) -> dict[str, dict[str, int]]:
    """Class -> split -> samples; of a set without a split under "all"."""
    head = SPLITS if labels.split is not None else ("all",)
    return {one.name: dict(zip(head, n, strict=True)) for one, n in labels.by_class()}


# ---------------------------------------------------------------------------- a user's own


def make_add_parser() -> Parser:
    """The flags of ``extract data add``."""
    parser = Parser(
        prog="extract data add",
        description="Name a data set of your own once; later commands say --data NAME.",
    )
    parser.add_argument("name", metavar="NAME", help="a-z, 0-9, dot, dash and underscore")
    parser.add_argument("source", metavar="SOURCE", help="csv:FILE, folder:PATH or seg-folder:PATH")
    parser.add_argument("--licence", default="", metavar="TEXT", help="told with the features")
    parser.add_argument(
        "--window", metavar="W", help="of values beyond 8 bit, as extract --window takes it"
    )
    table = parser.add_argument_group(
        "of a table: which column is what; --task and --positive of both"
    )
    add_flags(table, TableOptions)
    return parser


def run_add(options: argparse.Namespace) -> int:
    """List a user's images once, say what was understood, and keep how they were described."""
    if options.name in COMMANDS:
        raise RequestError(f"{options.name} is a word of `extract data`; choose another name")
    kind, colon, path = options.source.partition(":")
    if not colon or kind not in definitions.KINDS:
        raise RequestError(
            f"a data set of your own is csv:FILE, folder:PATH or seg-folder:PATH, not {options.source!r}"
        )
    if options.window is not None:
        Window.parse(options.window)
    described = TableOptions(
        **given(options, TableOptions), licence=options.licence, window=options.window
    )
    listing = definitions.KINDS[kind](Path(path).expanduser(), options=described, name=options.name)
    for line in describe_listing(listing):
        show(line)
    definitions.save(options.name, kind, Path(path), described, reserved_names())
    show(f"kept; now: extract --model dinov2 --data {options.name}")
    return 0


def describe_listing(listing: Listing) -> Iterator[str]:
    """What was understood of a user's images, before any is opened."""
    n, n_files = len(listing.ids), len(listing.paths)
    yield f"{grouped(n)} samples" + (f" of {grouped(n_files)} files" if n_files != n else "")
    yield from describe_target(listing.target)
    if listing.split is None:
        yield "splits: none given, so extract makes them (80/10/10; extract --split RULE)"
    else:
        counts = np.bincount(listing.split, minlength=len(SPLITS)).tolist()
        of_split = [f"{s} {grouped(n)}" for s, n in zip(SPLITS, counts, strict=True)]
        yield f"splits: {', '.join(of_split)}"
    if listing.groups is not None:
        yield f"patients: {grouped(len(np.unique(listing.groups)))}"
    if listing.masks:
        yield listing.masks.words
    if listing.meta:
        yield f"kept beside the labels: {', '.join(listing.meta)}"
    for note in listing.notes:
        yield f"note: {note}"


def make_remove_parser() -> Parser:
    """The flags of ``extract data remove``."""
    parser = Parser(
        prog="extract data remove",
        description="Forget a data set that was added. Its images and its features stay.",
    )
    parser.add_argument("name", metavar="NAME")
    return parser


def run_remove(options: argparse.Namespace) -> int:
    """Forget how a user's images were described."""
    definitions.remove(options.name)
    show(f"{options.name} is forgotten; its images and its features stay")
    return 0
