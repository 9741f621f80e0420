"""What every command does alike: parse, print, and end with one line and a status."""

import argparse
import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from cache.commands.names import near_names
from cache.errors import CacheError, RequestError

HOMELESS = "determine home directory"  # in the message of Path.expanduser and Path.home


class Parser(argparse.ArgumentParser):
    """Argparse whose errors are one line that names the next step. Flags are typed in full.

    Args:
        commands: first words that stand for commands with a parser of their own.
        settings: as argparse has them.
    """

    def __init__(self, *, commands: Sequence[str] = (), **settings: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})
        self._commands = commands
        if self.add_help and " " not in self.prog:  # of "cache ls" it would say nothing new
            self.add_argument("--version", action=_Version, nargs=0, help="show it and exit")

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        """As argparse, but what isn't known is named with what is like it."""
        words = sys.argv[1:] if args is None else list(args)
        first = words[0] if words else "-"
        # Not Path.exists, which raises where a name is too long.
        if not first.startswith("-") and not os.path.exists(first):  # noqa: PTH110
            if near := near_names(first, self._commands, ""):
                self.error(f"there is no command {first!r}; {near}")
        found, unknown = self.parse_known_args(words, namespace)
        if unknown:
            flags = [word.partition("=")[0] for word in unknown if word.startswith("-")]
            near = [near for flag in flags if (near := near_names(flag, self._flags(), ""))]
            self.error("; ".join([f"unrecognized arguments: {' '.join(unknown)}", *near]))
        return found

    def _flags(self) -> Iterator[str]:
        """Every flag, those of its commands among them."""
        for action in self._actions:
            yield from action.option_strings
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    yield from parser._flags()

    def error(self, message: str) -> NoReturn:
        if message.endswith("expected one argument"):
            flag = message.split()[1].rstrip(":").split("/")[0]
            message += f" (one that begins with a minus as {flag}=-1)"
        self.exit(2, printable(f"{self.prog}: {message}; see {self.prog} --help\n"))


class _Version(argparse.Action):
    """Look for the version when it is asked for: other runs don't wait for it."""

    def __call__(self, parser: argparse.ArgumentParser, *unused: Any) -> None:
        from importlib.metadata import version

        print(f"{parser.prog}, of medprobe {version('medprobe')}")
        parser.exit()


def split_words(flag: str, text: str | None) -> tuple[str, ...]:
    """The words of a comma-separated list; none where the flag isn't given.

    Raises:
        RequestError: the list is empty. An unset shell variable must not come to mean "all".
    """
    if text is None:
        return ()
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if not words:
        raise RequestError(f"{flag} takes one or more, comma separated; not {text!r}")
    return words


def join_layers(arguments: Sequence[str]) -> list[str]:
    """ "--layers", "-4,-1" as one word: argparse takes a list that begins with a minus for a flag.

    And of --tokens, which takes layers too.
    """
    joined: list[str] = []
    for word in arguments:
        is_list = word[:1] == "-" and word[1:2].isdecimal()
        if is_list and joined and joined[-1] in ("--layers", "--tokens"):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


# What moves a cursor, colours a screen or turns letters round: C0 but for tab and line end, DEL, C1,
# and the marks of Unicode TR 9 (2.1 to 2.6) with the separators of lines and paragraphs.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """A text for a terminal: control characters, which a name in a file may hold, as escapes."""

    def escape(found: re.Match[str]) -> str:
        number = ord(found[0])
        return f"\\x{number:02x}" if number < 0x20 else f"\\u{number:04x}"  # as JSON has them

    return CONTROLS.sub(escape, text)


def in_line(text: str) -> str:
    """The same for a cell or a value that stands in one line: tabs and line ends too."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def show(text: str = "", *, end: str = "\n", flush: bool = False) -> None:
    """Print a text; every command's way to the terminal."""
    print(printable(text), end=end, flush=flush)


def confirm(what: str, is_agreed: bool) -> bool:
    """Ask before something is deleted.

    Args:
        what: "3 files, 12 MB".
        is_agreed: --yes was given.

    Raises:
        RequestError: nobody is there to be asked.
    """
    if is_agreed:
        return True
    if not sys.stdin or not sys.stdin.isatty():
        raise RequestError(f"{what}: add --yes to delete without asking")
    show(f"delete {what}? [y/N] ", end="", flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    show("nothing deleted")
    return False


def terminal_width() -> int:
    """Columns of the terminal; 0 where what is printed goes elsewhere."""
    import shutil  # late: few commands ask

    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return shutil.get_terminal_size().columns if is_terminal else 0


def cut_text(text: str, width: int) -> str:
    """A text of at most ``width`` letters."""
    return text if len(text) <= width else text[: width - 1] + "…"


def fill_fact(name: str, text: str, width: int, indent: int) -> str:
    """A name, and behind it text that is wrapped to the width and begins at the indent."""
    import textwrap

    return textwrap.fill(
        text,
        width=max(width, 40),
        initial_indent=f"  {name.replace('_', ' '):<{indent - 2}}",
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def complain(command: str, text: str) -> None:
    """A line on the error stream, with the command's name before it."""
    with contextlib.suppress(OSError, AttributeError):  # None where a daemon closed it
        sys.stdout.flush()  # so that both streams, in one log, keep their order
    print(printable(f"{command}: {text}"), file=sys.stderr)


def run_command(command: str, run: Callable[[], int], interrupted: str = "interrupted") -> int:
    """Run a command; what its user can mend becomes one line.

    Args:
        command: its name, for the line.
        run: does it and returns the exit status.
        interrupted: what to say after Ctrl-C.

    Returns:
        The exit status: 1 after an error, 130 after Ctrl-C.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that the terminal's encoding lacks must not cost the table it stands in.
        sys.stdout.reconfigure(errors="backslashreplace")
    # Before torch or faiss load libgomp, which reads it once. Its threads would else spin while they wait
    # for each other: on cores that others use, too, they wait for threads that don't run (a ViT-S then
    # went from 33 to 4 images/s; benchmarks/busy_cores.py). No number depends on it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        status = run()
        if sys.stdout:  # None where a daemon closed it
            sys.stdout.flush()
        return status
    except BrokenPipeError:  # `probe ... | head`: the reader has seen enough
        # What is left in the buffer goes nowhere, else Python complains of it on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (CacheError, RequestError, OSError) as error:
        complain(command, str(error))
        return 1
    except RuntimeError as error:
        if HOMELESS not in str(error):  # pathlib's, of "~nobody" and of a user without a home
            raise
        complain(command, "~ leads to no home folder; write the path in full, or set HOME")
        return 1
    except KeyboardInterrupt:
        complain(command, interrupted)
        return 130
