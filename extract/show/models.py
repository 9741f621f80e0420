"""``extract models``: every encoder of the table, and which are ready on this machine.

Nothing here imports torch or a library of models, and no code of an installed package runs.
"""

import argparse
import importlib.metadata
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cache import RequestError
from cache.commands.names import counted, near_names
from cache.commands.terminal import Parser, cut_text, fill_fact, run_command, show, terminal_width
from extract.encoders.table.entries import ENTRIES
from extract.encoders.table.entry import ENTRY_POINTS, Entry
from extract.encoders.weights.published import Hub, Place, find, readiness

EXAMPLES = """\
examples:
  extract models                     every encoder by short name
  extract models --ready             those whose weights are on this machine
  extract models --paper wu2025      those of a paper
  extract models rad-dino            all that is known of one
  extract models --json              for programs

Besides these, any timm name works, open_clip:MODEL/TAG, transformers:OWNER/NAME,
hf-hub:OWNER/NAME, local-dir:PATH, and your own FILE.py:FUNCTION.

states: ready · needs download (extract fetches it) · gated (its owners let in whom they know) ·
needs a file (which only a person can get: --weights FILE) · missing package · installed (an
encoder that an installed package offers)
"""

Facts = dict[str, Any]  # all that is known of one encoder


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
    parser.add_argument("--json", action="store_true", help="all that is known, as JSON")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Run ``extract models``; returns the exit status."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.names and (options.ready or options.paper):
        parser.error("--ready and --paper choose from the whole list; leave the names out")
    return run_command("extract models", lambda: run(options))


def run(options: argparse.Namespace) -> int:
    """Print the table, or all about some encoders."""
    every = [entry_facts(entry) for entry in ENTRIES] + installed_facts()
    if options.names:
        chosen = [find_named(name, every) for name in dict.fromkeys(options.names)]
    else:
        chosen = [
            facts
            for facts in every
            if (options.paper is None or options.paper in facts["papers"])
            and (not options.ready or facts["state"] in ("ready", "installed"))
        ]
    width = terminal_width()
    if options.json:
        show(json.dumps(chosen, indent=1, ensure_ascii=False))
    elif options.names:
        for facts in chosen:
            show("\n".join(describe(facts, min(width or 100, 100))))
    elif not chosen:
        show("none is ready here; with network, weights are fetched when they are first needed")
    else:
        for line in format_table(chosen, width):
            show(line)
    return 0


# ---------------------------------------------------------------------------- facts


def place_of(entry: Entry) -> Place:
    """Where its weights are published; the table says it where it isn't timm's own copy."""
    return entry.weights or Hub(f"timm/{entry.encoder}")


def entry_facts(entry: Entry) -> Facts:
    """All that the table says of an encoder, and its state on this machine."""
    place = place_of(entry)
    path, how = find(place), entry.pretraining
    return {
        "name": entry.name,
        "state": readiness(place, entry.packages),
        "title": entry.title,
        "full_name": entry.encoder,
        "library": entry.library,
        "weights": str(place),
        "file": str(path) if path else None,
        "licence": how.licence or None,
        "objective": how.objective,
        "trained_on": how.images,
        "has_seen": None if how.seen is None else list(how.seen),
        "papers": list(entry.papers),
    }


def installed_facts() -> list[Facts]:
    """The encoders that installed packages offer. A short name of the table goes before theirs."""
    known = {entry.name for entry in ENTRIES}
    points = importlib.metadata.entry_points(group=ENTRY_POINTS)
    owners = {
        (point.name, point.value): f"{point.dist.name} {point.dist.version}" if point.dist else "?"
        for point in points
        if point.name not in known
    }
    return [
        {
            "name": name,
            "state": "installed",
            "title": f"of the package {owner}",
            "full_name": name,
            "library": value,
            "weights": "made by the package's own code",
            "file": None,
            "licence": None,
            "objective": "",
            "trained_on": "",
            "has_seen": None,
            "papers": [],
        }
        for (name, value), owner in sorted(owners.items())
    ]


def find_named(name: str, every: Sequence[Facts]) -> Facts:
    """The facts of one encoder, by its short or full name.

    Raises:
        RequestError: there is none of this name.
    """
    for facts in every:
        if name in (facts["name"], facts["full_name"]):
            return facts
    near = near_names(name, [f["name"] for f in every], "`extract models` lists them all")
    raise RequestError(
        f"no short name {name!r}; {near} (of any other encoder, `extract --model {name} "
        "--dry-run` tells)"
    )


# ---------------------------------------------------------------------------- for people


HEAD = ("name", "state", "what it is", "licence", "papers")
TITLE = HEAD.index("what it is")
ENOUGH = 36  # characters of what it is: shorter than that, another column goes


def format_table(chosen: Sequence[Facts], width: int) -> Iterator[str]:
    """Lines for the terminal.

    Args:
        chosen: encoders.
        width: of the terminal; what doesn't fit is left out, from the right. 0: all fits.
    """
    rows = [HEAD, *map(_cells, chosen)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    while width and _length(widths) > width:
        room = widths[TITLE] - (_length(widths) - width)
        if room < ENOUGH and len(widths) > TITLE + 1:
            widths.pop()
        else:
            widths[TITLE] = max(room, 1)
            break
    for row in rows:
        cells = [cut_text(cell, w).ljust(w) for cell, w in zip(row, widths, strict=False)]
        line = "  ".join(cells).rstrip()
        yield cut_text(line, width) if width else line
    ready = sum(facts["state"] == "ready" for facts in chosen)
    yield f"{counted(len(chosen), 'encoder')}, {ready} ready here; extract models NAME tells all about one"


def _cells(facts: Facts) -> tuple[str, ...]:
    state = facts["state"]
    return (
        facts["name"],
        "missing package" if state.startswith("missing package") else state,
        facts["title"],
        facts["licence"] or "unknown",
        " ".join(facts["papers"]) or "-",
    )


def _length(widths: Sequence[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)


def describe(facts: Mapping[str, Any], width: int) -> Iterator[str]:
    """All about one encoder, as lines."""
    yield facts["name"]
    for name, fact in facts.items():
        if name == "has_seen" and fact is None:
            fact = "unknown: nobody outside can tell"
        if name == "has_seen" and fact == []:
            fact = "none of the known medical sets"
        if name == "licence" and fact is None:
            fact = "unknown"
        if name == "name" or not fact:
            continue
        yield fill_fact(name, ", ".join(fact) if isinstance(fact, list) else fact, width, 14)
