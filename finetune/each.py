"""``--each SETTING=V1,V2``: the command once with each value of a setting.

Every flag whose setting changes numbers may be named, by its declaration: a new setting is one at once.
"""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cache.commands.names import near_names
from cache.commands.settings import Flag, flags_of, setting
from cache.commands.terminal import split_words
from cache.errors import RequestError

SWITCH = {"yes": True, "no": False}


@dataclass(frozen=True)
class EachConfig:
    """What the command is repeated with."""

    each: tuple[str, ...] = setting(
        (),
        "the command once with each value of a setting that changes numbers: encoder-lr=1e-4,1e-5 "
        "gives the rows of --encoder-lr 1e-4 and those of --encoder-lr 1e-5, where "
        "--encoder-lr 1e-4,1e-5 lets val choose; of a switch yes,no. Of several every combination",
        metavar="SETTING=V1,V2",
        repeated=True,
    )


def each_of(
    options: argparse.Namespace, *settings: type
) -> Iterator[tuple[str, argparse.Namespace]]:
    """The flags as if each value had been typed: its name, "freeze-until 3", and they.

    Args:
        options: as typed. Without ``--each`` they come once, and the name is empty.
        settings: that it may name, whose flags these are.

    Raises:
        RequestError: it names none of them, one twice, one that is typed, or no value it takes.
    """
    flags = {flag.name[2:]: flag for flag in flags_of(*settings)}
    each: dict[str, Sequence[str]] = {}
    for text in options.each or ():
        typed, sign, values = text.partition("=")
        name = typed.strip().replace("_", "-")
        if not sign:
            raise RequestError(
                f"--each takes SETTING=V1,V2, as in encoder-lr=1e-4,1e-5; not {text!r}"
            )
        if name not in flags:
            otherwise = f"settings are {', '.join(flags)}"
            raise RequestError(
                f"--each {name}: no setting that changes numbers; {near_names(name, flags, otherwise)}"
            )
        if name in each:
            raise RequestError(f"--each {name} stands there twice; name all its values in one")
        if getattr(options, flags[name].dest) is not None:
            raise RequestError(f"--{name} and --each {name}: leave one of them out")
        each[name] = _values(flags[name], values)
    for chosen in itertools.product(*each.values()):
        named = dict(zip(each, chosen, strict=True))
        dests = {
            flags[name].dest: SWITCH[value] if flags[name].is_switch else value
            for name, value in named.items()
        }
        told = ", ".join(" ".join(pair) for pair in named.items())
        yield told, argparse.Namespace(**{**vars(options), **dests})


def _values(flag: Flag, text: str) -> tuple[str, ...]:
    """The values of a setting, as they would be typed behind its flag."""
    what = f"--each {flag.name[2:]}"
    values = split_words(what, text)
    if len({*values}) < len(values):
        raise RequestError(f"{what} takes one or more, each once; not {text}")
    among = [*SWITCH] if flag.is_switch else [str(word) for word in flag.among]
    for value in values:
        if among and value not in among:
            raise RequestError(f"{what} takes {', '.join(among)}, not {value!r}")
    return values
