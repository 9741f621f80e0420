"""Which contenders a table of one metric holds: those asked alike, each in its cell."""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cache.commands.names import counted
from cache.format.key import canonical_json
from probe.report.rows.comparable import Block, describe_conflicts, make_blocks
from probe.report.rows.contenders import Contender, differing
from probe.report.rows.fields import BY_NAME, is_number, natural, written

# What tells contenders of one cell apart, the first that does.
TELLING = (
    *(
        "size",
        "layer",
        "pool",
        "depth",
        "aggregate",
        "pooling",
        "averaging",
        "weights",
        "scale",
        "fitted",
    ),
    "features",
)
N_DIGITS = 8  # of a digest
# Axis -> parts of a condition that it spells out, and that therefore divide no table.
SPELT: Mapping[str, Collection[str]] = {
    "k": ("probe.k", "chosen.k"),
    "shots": ("probe.few_shot.shots",),
    "episodes": ("probe.few_shot.episodes",),
    "scale": ("probe.standardised",),
    "prompts": ("probe.text.n_prompts",),
    "measured": ("probe.scores_of",),
    "fold": ("folds",),
    "seed": ("trainings",),
}
OF_TWO_ROWS = ("probe.weights", "probe.pooling")  # of kinds that always write two: stack, abmil
# Another kind, mode or protocol has other settings anyway, but for those of any kind.
OTHERWISE = ("kind", "mode", "protocol")
SHOTS = "probe.few_shot.shots"
OF_ANY_KIND = re.compile(r"probe\.(few_shot\..*|scores_of|aggregate)")
A_COLUMN, WHOLE_TABLE = "column", "table"
LONGEST, MOST_SAID = 40, 3  # letters of a value, and settings, that are said
COUNTED = {  # last part of a setting's name -> what it is a number of
    **{"shots": "shot", "episodes": "episode"},
    **{"n_prompts": "prompt", "n_resamples": "resample"},
}
WITHOUT = {  # setting -> what is said of a condition that hasn't it
    SHOTS: "all of train",
    "probe.scores_of": "samples measured",
    "chosen.k": "k named",
    "split": "the stored split",
    "target": "the stored labels",
}
WITH = {
    **{"probe.scores_of": "{} measured", "probe.weights": "{} weights"},
    **{"chosen.k": "k chosen", "place": "layer {}"},
}


@dataclass(frozen=True)
class Shape:
    """What stands where."""

    by: tuple[str, ...] = ("model",)  # fields of a line
    across: str = "data"  # field of the columns
    family: str = A_COLUMN  # tests that keep the level together
    level: float = 0.05
    is_tested: bool = True
    sort: str = ""  # "": as rows stand; a column, "average", "-average"


@dataclass
class Part:
    """Contenders that may be compared: asked alike, about the same samples."""

    condition: Mapping[str, Any]
    block: Block
    differs: str = ""  # from the first part, in words that no other has
    cells: dict[tuple[tuple[str, ...], str], Contender] = field(default_factory=dict)
    names: tuple[str, ...] = ()  # fields of a line

    @property
    def contenders(self) -> list[Contender]:
        return self.block.contenders

    @property
    def lines(self) -> list[tuple[str, ...]]:
        return list(dict.fromkeys(line for line, _ in self.cells))

    @property
    def columns(self) -> list[str]:
        found = list(dict.fromkeys(column for _, column in self.cells))
        return sorted(found, key=natural) if all(map(is_number, filter(None, found))) else found

    def sets(self) -> list[list[Contender]]:
        """Its contenders, those of each data set together."""
        found: dict[str, list[Contender]] = defaultdict(list)
        for contender in self.cells.values():
            found[contender.dataset].append(contender)
        return list(found.values())


def make_parts(contenders: Sequence[Contender], shape: Shape) -> list[Part]:
    """Contenders that were asked alike and about the same samples, together."""
    axes = {*shape.by, shape.across}
    alike: dict[str, list[Contender]] = defaultdict(list)
    conditions: dict[str, dict[str, Any]] = {}
    for contender in contenders:
        condition = _without_axes(contender.condition(), axes)
        if shape.across != "data" and "data" not in shape.by:
            condition = {"data": contender.dataset, **condition}
        text = canonical_json(condition)
        conditions[text] = condition
        alike[text].append(contender)
    parts = [
        Part(conditions[text], block)
        for text, members in alike.items()
        for block in make_blocks(members)
    ]
    for part, said in zip(parts, tell_apart(parts), strict=True):
        part.differs = said
        _place(part, shape)
    return parts


def tell_apart(parts: Sequence[Part]) -> list[str]:
    """What tells each part from the first, and from those of which that is true too; "" of the first."""
    first, alike = parts[0], defaultdict(list)
    for number, part in enumerate(parts[1:], 2):
        samples = describe_conflicts(part.block, first.block)
        said = "; ".join(filter(None, [_differences(part.condition, first.condition), samples]))
        alike[said or f"part {number}"].append(part)
    found = {id(first): ""}
    for said, members in alike.items():
        for part, more in zip(members, tell_apart(members), strict=True):
            found[id(part)] = "; ".join(filter(None, [said, more]))
    return [found[id(part)] for part in parts]


def titled(parts: Sequence[Part], title_of: Callable[[Part], str]) -> list[str]:
    """Each part's title, with what tells it from others that have the same; no two are equal."""
    alike: dict[str, list[Part]] = defaultdict(list)
    for part in parts:
        alike[title_of(part)].append(part)
    found = {
        id(part): f"{title} ({said})" if said else title
        for title, members in alike.items()
        for part, said in zip(members, tell_apart(members), strict=True)
    }
    return [found[id(part)] for part in parts]


def _without_axes(condition: Mapping[str, Any], axes: Collection[str]) -> dict[str, Any]:
    spelt = {name for axis in axes for name in SPELT.get(axis, (axis, f"probe.{axis}"))}
    is_otherwise = any(axis in axes for axis in OTHERWISE)

    def is_spelt(name: str) -> bool:
        of_kind = name.startswith(("probe.", "protocol.")) and not OF_ANY_KIND.fullmatch(name)
        return name in spelt or (is_otherwise and of_kind)

    found = {name: value for name, value in condition.items() if not is_spelt(name)}
    if changed := found.pop("protocol.changed", ()):  # in words: "encoder lr 0.001"
        of_axes = tuple(f"{axis.rpartition('.')[2].replace('_', ' ')} " for axis in axes)
        if left := [words for words in changed if not words.startswith(of_axes)]:
            found["protocol.changed"] = left
    return found


def _differences(condition: Mapping[str, Any], first: Mapping[str, Any]) -> str:
    """What is other than in the first table: "kind linear, not knn"."""
    # Another kind, or way of training, has other settings anyway.
    telling = [n for n in ("probe.kind", "probe.mode", SHOTS) if condition.get(n) != first.get(n)]
    if "probe.kind" in telling and not (condition.get("probe.mode") and first.get("probe.mode")):
        telling = [name for name in telling if name != "probe.mode"]
    telling += [name for name in OF_TWO_ROWS if telling and name in condition]
    telling += ["place"] if telling and condition["place"] != first["place"] else []
    names = telling or differing([condition, first])
    said = [describe(name, condition.get(name), first.get(name)) for name in names]
    shown = said[:MOST_SAID]
    n_more = len(said) - len(shown)
    return "; ".join(shown) + (f"; and {counted(n_more, 'more setting')}" if n_more else "")


def describe(name: str, value: Any, other: Any = None) -> str:
    """A setting in words, and what it is elsewhere: "1 shot", "k 5, not 20", "not prepared wu2025"."""
    mine, theirs = _said(value), _said(other)
    if not mine:
        return WITHOUT.get(name) or f"not {_phrase(name, other)}"
    return f"{_phrase(name, value)}, not {theirs}" if theirs else _phrase(name, value)


def _phrase(name: str, value: Any) -> str:
    last = name.rpartition(".")[2]
    if last in COUNTED and isinstance(value, int):
        return counted(value, COUNTED[last])
    words = _said(value)
    if name in WITH:
        return WITH[name].format(words)
    title = BY_NAME[last].title if last in BY_NAME else last.replace("_", " ")
    return title if value is True else f"{title} {words}"


def _said(value: Any) -> str:
    if isinstance(value, Mapping):  # a split's rule and seed, say; of a file its name is enough
        value = [v for n, v in value.items() if n != "rule" or "file" not in value]
    if isinstance(value, bool):
        value = "yes" if value else ""
    text = ", ".join(map(written, value)) if isinstance(value, list | tuple) else written(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _place(part: Part, shape: Shape) -> None:
    """Give each contender its cell; where a cell has several, lines say more."""
    names = list(shape.by)
    while True:
        cells: dict[tuple[tuple[str, ...], str], list[Contender]] = defaultdict(list)
        for c in part.contenders:
            line = tuple(word_of(c, name) for name in names)
            cells[line, word_of(c, shape.across)].append(c)
        crowded = [members for members in cells.values() if len(members) > 1]
        if not crowded:
            break
        settings = [n for m in crowded for n in differing([c.condition() for c in m]) if "." in n]
        telling = next((n for n in (*TELLING, *settings, "id") if _tells(n, crowded)), None)
        if telling is None:  # the same row twice, by file
            break
        names.append(telling)
    part.names = tuple(names)
    part.cells = {place: members[0] for place, members in cells.items()}


def _tells(name: str, crowded: Sequence[Sequence[Contender]]) -> bool:
    return any(len({word_of(c, name) for c in members}) > 1 for members in crowded)


def word_of(contender: Contender, name: str) -> str:
    """A field in words, of a digest its first digits."""
    word = written(contender.field(name))
    return word[:N_DIGITS] if name in ("features", "id") else word
