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
import sys
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
class Flag:
    """A field as a flag: what is said of it, then the field's own name, default and type."""

    help: str
    flag: str = ""  # its name; "": by the field's
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
    # Of the field, see ``flags_of``.
    field: str = ""
    default: Any = None
    one: type = str  # of the value, or of each of several
    is_list: bool = False

    @property
    def name(self) -> str:
        """ "--batch-size"."""
        return self.flag or f"--{self.field.replace('_', '-')}"

    @property
    def dest(self) -> str:
        """Where argparse keeps what was typed."""
        return self.name[2:].replace("-", "_")

    @property
    def is_switch(self) -> bool:
        """Whether nothing is typed behind it."""
        return self.one is bool and not self.read

    @property
    def usual(self) -> str:
        """The default in words; nothing where nothing is done without the flag."""
        if self.shown is not None:
            return self.shown
        if isinstance(self.default, bool):
            no = "no" if self.negated else ""
            return "yes" if self.default else no
        return "" if self.default in (None, MISSING) else _listed(self.default)

    @property
    def plain_type(self) -> type | None:
        """What argparse reads it as; None: a text, which ``value`` reads."""
        return self.one if self.one in PLAIN and not (self.is_list or self.read) else None

    def value(self, typed: Any) -> Any:
        """The value of what was typed.

        Raises:
            RequestError: it can't be read.
        """
        return tuple(map(self._read, typed)) if self.repeated else self._read(typed)

    def _read(self, text: Any) -> Any:
        if isinstance(text, list):  # argparse's reading of --flag=--
            raise RequestError(f"{self.name} takes a value, not '--'")
        if not isinstance(text, str):  # argparse has read it
            return text
        try:
            if self.read:
                return self.read(text)
            if self.is_list and not self.repeated:
                return tuple(map(self.one, split_words(self.name, text)))
            return self.one(text)
        except argparse.ArgumentTypeError as error:
            raise RequestError(f"argument {self.name}: {error}") from None  # as argparse has it
        except RequestError:
            raise
        except ValueError:
            several = ", comma separated;" if self.is_list else ","
            raise RequestError(f"{self.name} takes numbers{several} not {text!r}") from None

    def check(self, value: Any) -> None:
        """Refuse what the field may not be; None, where it may be that, is no value.

        Raises:
            RequestError: it may not be this.
        """
        several = tuple(value) if isinstance(value, tuple | list) else (value,)
        is_once = not self.unlike or 0 < len(several) == len(set(several))
        wrong = [one for one in several if not self._may_be(one)]
        if is_once and not wrong:
            return
        takes = self.takes or (self._range if is_once else "one or more, each once")
        if isinstance(value, tuple) and (self.takes or not is_once):
            raise RequestError(f"{self.name} takes {takes}; not {_listed(value) or 'nothing'}")
        shown = repr(wrong[0]) if isinstance(wrong[0], str) else wrong[0]
        raise RequestError(f"{self.name} takes {takes}, not {shown}")

    def _may_be(self, one: Any) -> bool:
        if self.among and not self.read:
            return one in self.among
        if isinstance(one, bool) or not isinstance(one, int | float):
            return True
        return self.least <= one <= self.most and self.above < one < self.below  # so it is finite

    @property
    def _range(self) -> str:
        if self.among:
            return ", ".join(map(str, self.among))
        low = f"above {self.above}" if self.above > -math.inf else str(self.least)
        high = f"below {self.below}" if self.below < math.inf else str(self.most)
        if high != "inf":
            return f"{low} to {high}" if low != "-inf" else f"numbers up to {high}"
        if low == f"{self.least}":
            return f"{low} and more" if low != "-inf" else "finite numbers"
        return f"{'numbers' if self.is_list else 'a number'} {low}"


def setting(default: Any, help: str, **facts: Any) -> Any:
    """A dataclass's field with a flag.

    Args:
        default: of the field; ``dataclasses.MISSING`` where there is none.
        help: of the flag, without its default.
        facts: see ``Flag``.
    """
    return dataclasses.field(default=default, metadata={"setting": Flag(help, **facts)})


@functools.cache
def flags_of(*classes: type) -> tuple[Flag, ...]:
    """Each field that has a flag, in the order of the fields."""
    flags = []
    for of in classes:
        for field in (f for f in dataclasses.fields(of) if "setting" in f.metadata):
            one, default = _type_of(field, of), field.default
            if typing.get_origin(one) in (types.UnionType, typing.Union):  # tuple[int, ...] | None
                one = next(part for part in typing.get_args(one) if part is not types.NoneType)
            is_list = typing.get_origin(one) is tuple
            one = typing.get_args(one)[0] if is_list else one
            own = {"field": field.name, "default": default, "one": one, "is_list": is_list}
            flags.append(dataclasses.replace(field.metadata["setting"], **own))
    return tuple(flags)


def _type_of(field: dataclasses.Field[Any], of: type) -> Any:
    """Of one field; ``typing.get_type_hints`` reads all, which --help would wait for."""
    if not isinstance(field.type, str):
        return field.type
    owner = next(base for base in of.__mro__ if field.name in vars(base).get("__annotations__", {}))
    return eval(field.type, vars(sys.modules[owner.__module__]))


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
        if flag.field in only:
            flag = dataclasses.replace(flag, help="", shown="")
        elif shown and flag.field in shown:
            flag = dataclasses.replace(flag, shown=shown[flag.field])
        is_inherited = flag in flags.get(flag.name, [])  # told once
        if not is_inherited and (not only or flag.field in only):
            flags.setdefault(flag.name, []).append(flag)
    for name, homes in flags.items():
        first = homes[0]
        facts: dict[str, Any] = {"help": _help_of(homes).replace("%", "%%")}
        if first.is_switch:
            is_one_way = first.default is False and not first.negated
            facts["action"] = "store_true" if is_one_way else argparse.BooleanOptionalAction
            facts["default"] = None  # not typed, see ``given``
        else:
            words = [str(word) for flag in homes for word in flag.among]
            one_type = {flag.plain_type for flag in homes}
            if words and not first.is_list:
                facts["choices"] = words if len(homes) == 1 else sorted(set(words))
            elif len(one_type) == 1:
                facts["type"] = one_type.pop()
            facts |= {"metavar": first.metavar, "action": "append" if first.repeated else "store"}
        group.add_argument(name, *([first.short] if first.short else []), **facts)


def _help_of(homes: list[Flag]) -> str:
    """What each class says of a flag, with the default of each behind."""
    parts: list[tuple[str, list[str]]] = []
    for flag in homes:
        if not parts or flag.help not in ("", parts[-1][0]):
            parts.append((flag.help, []))
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
        value = getattr(config, flag.field)
        if value == flag.default or not flag.keyed:
            continue
        if flag.is_switch:
            switches.append(flag.name if value else f"--no-{flag.name[2:]}")
            continue
        for one in value if flag.repeated else (value,):
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
        takes = f" {flag.metavar}" if flag.metavar else ""
        among = f" {', '.join(map(str, flag.among))}" if flag.among else ""
        cells = (f"`{flag.name}{takes}`{among}", flag.usual, flag.help)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _listed(value: Any) -> str:
    """A value for people: floats by six digits."""
    if isinstance(value, tuple):
        return ",".join(map(_listed, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
