"""Settings that are declared once: a dataclass's field says its flag, its help, its check.

    @dataclass(frozen=True)
    class Knn:
        k: tuple[int, ...] = setting((10, 20), "numbers of neighbours", least=1, unlike=True)
        metric: str = setting("cosine", "of vectors", among=("cosine", "euclidean"))
        is_published: bool = False  # a field without a flag stays as it is

        def __post_init__(self) -> None:
            check(self)

``add_flags(parser, Knn)`` makes --k and --metric; ``Knn(**given(options, Knn))`` what was typed over
the defaults; ``check`` refuses what no value may be; ``words`` are the flags that say the same again;
``changed`` what differs between two of them; ``as_table`` a page's table.

Types of fields: int, float, str, bool, Path, tuples of these (comma separated), each of them or None,
and anything that ``read`` makes of the words. What two fields may not be together is the class's own.
"""

import argparse
import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, Protocol

from cache.commands.terminal import split_words
from cache.errors import RequestError

PLAIN = (int, float, Path)  # types that argparse reads


@dataclass(frozen=True)
class Setting:
    """What is said of a field beside its name, type and default."""

    help: str
    flag: str = ""  # "": by the field's name
    short: str = ""  # "-m"
    metavar: str | None = None
    # Which words or numbers there are; of a number, its bounds. All hold for each of several.
    among: tuple[Any, ...] = ()
    least: float = -math.inf
    above: float = -math.inf
    most: float = math.inf
    below: float = math.inf
    unlike: bool = False  # of several: one or more, each once
    takes: str = ""  # the range in words, where those made of the bounds aren't right
    # From the text of a flag; raises RequestError, or argparse.ArgumentTypeError as a type of
    # argparse does. ``among`` are then the words typed. ``str`` of the value is the text again.
    read: Callable[[str], Any] | None = None
    shown: str | None = None  # the default in words, where the value says too little; "": none
    negated: bool = False  # of a bool that is False: --no-FLAG too, for a protocol may say True
    repeated: bool = False  # of a tuple: the flag is typed once for each, not comma separated
    keyed: bool = True  # whether ``words`` hold it


def setting(default: Any, help: str, **facts: Any) -> Any:
    """A dataclass's field with a flag.

    Args:
        default: of the field; ``dataclasses.MISSING`` where there is none.
        help: of the flag, without its default.
        facts: see ``Setting``.
    """
    return dataclasses.field(default=default, metadata={"setting": Setting(help, **facts)})


@dataclass(frozen=True)
class Flag:
    """A field as a flag."""

    field: str
    said: Setting
    default: Any
    one: type  # of the value, or of each of several
    is_list: bool

    @property
    def name(self) -> str:
        """ "--batch-size"."""
        return self.said.flag or f"--{self.field.replace('_', '-')}"

    @property
    def dest(self) -> str:
        """Where argparse keeps what was typed."""
        return self.name[2:].replace("-", "_")

    @property
    def usual(self) -> str:
        """The default in words; nothing where nothing is done without the flag."""
        if self.said.shown is not None:
            return self.said.shown
        if isinstance(self.default, bool):
            no = "no" if self.said.negated else ""
            return "yes" if self.default else no
        return "" if self.default in (None, MISSING) else _listed(self.default)

    @property
    def plain_type(self) -> type | None:
        """What argparse reads it as; None: a text, which ``value`` reads."""
        is_plain = self.one in PLAIN and not (self.is_list or self.said.read)
        return self.one if is_plain else None

    def value(self, typed: Any) -> Any:
        """The value of what was typed.

        Raises:
            RequestError: it can't be read.
        """
        return tuple(map(self._read, typed)) if self.said.repeated else self._read(typed)

    def _read(self, text: Any) -> Any:
        if isinstance(text, list):  # argparse's reading of --flag=--
            raise RequestError(f"{self.name} takes a value, not '--'")
        if not isinstance(text, str):  # argparse has read it
            return text
        try:
            if self.said.read:
                return self.said.read(text)
            if self.is_list and not self.said.repeated:
                return tuple(map(self.one, split_words(self.name, text)))
            return self.one(text)
        except argparse.ArgumentTypeError as error:
            raise RequestError(f"argument {self.name}: {error}") from None  # as argparse has it
        except ValueError as error:
            if isinstance(error, RequestError):
                raise
            several = ", comma separated;" if self.is_list else ","
            raise RequestError(f"{self.name} takes numbers{several} not {text!r}") from None

    def check(self, value: Any) -> None:
        """Refuse what the field may not be; None, where it may be that, is no value.

        Raises:
            RequestError: it may not be this.
        """
        said, several = self.said, value if isinstance(value, tuple) else (value,)
        is_once = not said.unlike or 0 < len(several) == len(set(several))
        wrong = [one for one in several if not self._may_be(one)]
        if is_once and not wrong:
            return
        takes = said.takes or (self._range if is_once else "one or more, each once")
        if isinstance(value, tuple) and (said.takes or not is_once):
            raise RequestError(f"{self.name} takes {takes}; not {_listed(value) or 'nothing'}")
        shown = repr(wrong[0]) if isinstance(wrong[0], str) else wrong[0]
        raise RequestError(f"{self.name} takes {takes}, not {shown}")

    def _may_be(self, one: Any) -> bool:
        said = self.said
        if said.among and not said.read:
            return one in said.among
        if isinstance(one, bool) or not isinstance(one, int | float):
            return True
        return said.least <= one <= said.most and said.above < one < said.below  # so it is finite

    @property
    def _range(self) -> str:
        said = self.said
        if said.among:
            return ", ".join(map(str, said.among))
        low = f"above {said.above}" if said.above > -math.inf else str(said.least)
        high = f"below {said.below}" if said.below < math.inf else str(said.most)
        if high != "inf":
            return f"{low} to {high}" if low != "-inf" else f"numbers up to {high}"
        if low == f"{said.least}":
            return f"{low} and more" if low != "-inf" else "finite numbers"
        return f"{'numbers' if self.is_list else 'a number'} {low}"


@functools.cache
def flags_of(*classes: type) -> tuple[Flag, ...]:
    """Each field that has a flag, in the order of the fields."""
    return tuple(
        Flag(field.name, field.metadata["setting"], field.default, *_plain(hints[field.name]))
        for of in classes
        for hints in [typing.get_type_hints(of)]
        for field in dataclasses.fields(of)
        if "setting" in field.metadata
    )


def _plain(hint: Any) -> tuple[type, bool]:
    """The type of one value, and whether there are several: int and True of tuple[int, ...] | None."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(part for part in typing.get_args(hint) if part is not types.NoneType)
    if typing.get_origin(hint) is tuple:
        return typing.get_args(hint)[0], True
    return hint, False


class Group(Protocol):
    """A parser, or a group of one."""

    def add_argument(self, *names: str, **facts: Any) -> argparse.Action: ...


def add_flags(
    group: Group, *classes: type, only: Collection[str] = (), shown: Mapping[str, str] | None = None
) -> None:
    """Add the flags of some settings.

    Args:
        group: where they are added.
        classes: dataclasses. A flag that several have is one: with what each says of it, or of one
            text the default of each.
        only: fields to take, without their help, which another command gives; empty: all, with it.
        shown: defaults in words that are others with this command, by field.
    """
    flags: dict[str, list[Flag]] = {}
    for flag in flags_of(*classes):
        said = flag.said
        if flag.field in only:
            said = dataclasses.replace(said, help="", shown="")
        elif shown and flag.field in shown:
            said = dataclasses.replace(said, shown=shown[flag.field])
        if not only or flag.field in only:
            flags.setdefault(flag.name, []).append(dataclasses.replace(flag, said=said))
    for name, homes in flags.items():
        said = homes[0].said
        facts: dict[str, Any] = {"help": _help_of(homes).replace("%", "%%")}
        if homes[0].one is bool and not said.read:
            is_switch = homes[0].default is False and not said.negated
            facts["action"] = "store_true" if is_switch else argparse.BooleanOptionalAction
            facts["default"] = None  # not typed, see ``given``
        else:
            words = [str(word) for flag in homes for word in flag.said.among]
            one_type = {flag.plain_type for flag in homes}
            if words and not homes[0].is_list:
                facts["choices"] = words if len(homes) == 1 else sorted(set(words))
            elif len(one_type) == 1:
                facts["type"] = one_type.pop()
            facts |= {"metavar": said.metavar, "action": "append" if said.repeated else "store"}
        group.add_argument(name, *([said.short] if said.short else []), **facts)


def _help_of(homes: list[Flag]) -> str:
    """What each class says of a flag, with the default of each behind."""
    parts: list[tuple[str, list[str]]] = []
    for flag in homes:
        if not parts or flag.said.help not in ("", parts[-1][0]):
            parts.append((flag.said.help, []))
        parts[-1][1].append(flag.usual)
    texts = []
    for text, usual in parts:
        defaults = "; ".join(filter(None, usual))
        texts.append(f"{text} ({defaults})".strip() if defaults else text)
    return ", ".join(texts)


def given(options: argparse.Namespace, *classes: type) -> dict[str, Any]:
    """Field -> value of what was typed; nothing else, so that a protocol's or the default can stand.

    Raises:
        RequestError: a text that can't be read as the field's type.
    """
    return {
        flag.field: flag.value(typed)
        for flag in flags_of(*classes)
        if (typed := getattr(options, flag.dest, None)) is not None
    }


def refuse_others(
    options: argparse.Namespace, word: str, chosen: str, classes: Mapping[str, type]
) -> None:
    """Refuse flags that belong to settings of which others were chosen.

    Args:
        options: as typed.
        word: the flag that chooses, as "--kind".
        chosen: what was chosen with it.
        classes: of everything that can be chosen, by its name.

    Raises:
        RequestError: "--k belongs to --kind knn, not to linear".
    """
    homes: dict[str, list[str]] = {}
    for name, of in classes.items():
        for flag in flags_of(of):
            if getattr(options, flag.dest, None) is not None:
                homes.setdefault(flag.name, []).append(name)
    for flag, names in homes.items():
        if chosen not in names:
            raise RequestError(f"{flag} belongs to {word} {' or '.join(names)}, not to {chosen}")


def check(config: Any) -> None:
    """Refuse what no value of a field may be, for ``__post_init__``.

    Raises:
        RequestError: "--k takes 1 and more, not 0".
    """
    for flag in flags_of(type(config)):
        if (value := getattr(config, flag.field)) is not None:
            flag.check(value)


def words(config: Any, *classes: type) -> list[str]:
    """The flags that say the same again: what isn't the default, exactly. Switches come first.

    Args:
        config: settings.
        classes: bases of its own, to take the flags of these, in this order; none: all of it.
    """
    switches: list[str] = []
    rest: list[str] = []
    for flag in flags_of(*(classes or [type(config)])):
        value, said = getattr(config, flag.field), flag.said
        if value == flag.default or not said.keyed:
            continue
        if flag.one is bool and not said.read:
            switches.append(flag.name if value else f"--no-{flag.name[2:]}")
            continue
        for one in value if said.repeated else (value,):
            text = ",".join(map(str, one)) if isinstance(one, tuple) else str(one)
            # One word where the value might pass for a flag.
            rest += [f"{flag.name}={text}"] if text.startswith("-") else [flag.name, text]
    return switches + rest


def changed(config: Any, usual: Any) -> dict[str, Any]:
    """Field -> value of the settings that aren't the usual ones: "wu2025, but lr 0.01"."""
    return {
        flag.field: value
        for flag in flags_of(type(config))
        if (value := getattr(config, flag.field)) != getattr(usual, flag.field)
    }


def as_table(*classes: type) -> str:
    """A table in Markdown of flags, their defaults, and what they say, for a page."""
    lines = ["| flag | default | what it says |", "| --- | --- | --- |"]
    for flag in flags_of(*classes):
        takes = f" {flag.said.metavar}" if flag.said.metavar else ""
        among = f" {', '.join(map(str, flag.said.among))}" if flag.said.among else ""
        cells = (f"`{flag.name}{takes}`{among}", flag.usual, flag.said.help)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _listed(value: Any) -> str:
    """A value for people: floats by six digits."""
    if isinstance(value, tuple):
        return ",".join(map(_listed, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
