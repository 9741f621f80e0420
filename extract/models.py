"""``extract models``: every encoder of the table, and which are ready on this machine."""

import argparse
import difflib
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence

from cache import RequestError
from cache.terminal import Parser, run_command
from extract.encoders.table import ENTRIES, Entry
from extract.encoders.weights import Hub, Place, readiness

EXAMPLES = """\
examples:
  extract models                     every encoder by short name
  extract models --ready             those whose weights are on this machine
  extract models --paper wu2025      those of a paper
  extract models rad-dino            all that is known of one

Besides these, any timm name works, open_clip:MODEL/TAG, transformers:OWNER/NAME,
hf-hub:OWNER/NAME, local-dir:PATH, and your own FILE.py:FUNCTION.
"""


def make_parser() -> Parser:
    """The flags of ``extract models``."""
    parser = Parser(
        prog="extract models",
        description="List the encoders that have a short name, and which are ready here.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="tell all about these")
    parser.add_argument("--ready", action="store_true", help="only those that are ready")
    parser.add_argument(
        "--paper",
        choices=sorted({paper for entry in ENTRIES for paper in entry.papers}),
        help="only those that a paper uses",
    )
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run ``extract models``; returns the exit status."""
    options = make_parser().parse_args(arguments)
    return run_command("extract", lambda: run(options), "interrupted")


def run(options: argparse.Namespace) -> int:
    """Print the table, or all about some entries."""
    if options.names:
        for name in options.names:
            print("\n".join(describe_entry(find_named(name))))
        return 0
    entries = [e for e in ENTRIES if options.paper is None or options.paper in e.papers]
    states = {entry.name: state(entry) for entry in entries}
    if options.ready:
        entries = [entry for entry in entries if states[entry.name] == "ready"]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    for line in format_table(entries, states, width):
        print(line)
    return 0


def find_named(name: str) -> Entry:
    """An entry of the table.

    Raises:
        RequestError: there is none of this name.
    """
    for entry in ENTRIES:
        if name in (entry.name, entry.encoder):
            return entry
    near = difflib.get_close_matches(name, [entry.name for entry in ENTRIES], n=4, cutoff=0.5)
    words = f"near names: {', '.join(near)}" if near else "`extract models` lists them"
    raise RequestError(f"no short name {name!r}; {words}")


def place_of(entry: Entry) -> Place:
    """Where its weights are published; the table says it where it isn't timm's own copy."""
    return entry.weights or Hub(f"timm/{entry.encoder}")


def state(entry: Entry) -> str:
    """Whether it can be used now."""
    return readiness(place_of(entry), entry.packages)


def format_table(entries: Sequence[Entry], states: dict[str, str], width: int) -> Iterator[str]:
    """Lines for the terminal.

    Args:
        entries: to list.
        states: of each, by name.
        width: of the terminal; 0 doesn't cut.
    """
    head = ("name", "state", "licence", "papers", "what it is")
    rows = [
        (e.name, states[e.name], e.licence or "unknown", " ".join(e.papers) or "-", e.title)
        for e in entries
    ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head) - 1)]
    for row in [head, *rows]:
        cells = [cell.ljust(w) for cell, w in zip(row[:-1], widths, strict=True)]
        line = "  ".join([*cells, row[-1]]).rstrip()
        yield line if not width or len(line) <= width else line[: width - 1] + "…"
    ready = sum(states[e.name] == "ready" for e in entries)
    yield f"{len(entries)} encoders, {ready} ready here"


def describe_entry(entry: Entry) -> Iterator[str]:
    """All that the table says about an encoder."""
    seen = "unknown: nobody outside can tell"
    if entry.seen is not None:
        seen = ", ".join(entry.seen) or "none of the known medical sets"
    facts = {
        "full name": entry.encoder,
        "what": entry.title,
        "library": " + ".join([entry.library, *(p for p in entry.packages if p != entry.library)]),
        "weights": str(place_of(entry)),
        "state": state(entry),
        "licence": entry.licence or "unknown",
        "objective": entry.objective,
        "trained on": entry.images,
        "has seen": seen,
        "papers": ", ".join(entry.papers) or "-",
    }
    yield entry.name
    for name, fact in facts.items():
        indent = " " * 14
        yield textwrap.fill(
            fact,
            width=100,
            initial_indent=f"  {name:<12}",
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
