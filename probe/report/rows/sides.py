"""The two sides of a comparison: what they name, and which contenders of theirs belong together."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.commands.names import choose_named, counted, near_names
from cache.errors import RequestError
from probe.report.rows.beside import layer_from_end, layer_of, pool_of
from probe.report.rows.comparable import describe_conflicts, make_blocks
from probe.report.rows.contenders import Contender, contenders_of
from probe.report.rows.fields import OPERATOR, find_field, read_condition, written
from probe.report.rows.stored import StoredRow, model_names

AND = re.compile(r"\s+and\s+")
# What --where may call a difference: a field, or the path of a setting.
PATHS = ("{}", "probe.{}", "probe.few_shot.{}")
ID = re.compile("[0-9a-f]{4,64}")  # the start of a row's id
# What two encoders may differ in, though nobody named it: each has its own. But where they can agree
# in it, they do.
OF_ENCODER = ("size", "prepared", "layer", "depth", "pool")
# What two kinds of probe share; every other setting is one kind's own.
OF_ALL_KINDS = (
    *("shots", "episodes", "draw", "episode_seed", "measured", "target", "split", "trained"),
    *("trainings", "protocol.name"),
)
# Of a condition, what makes no other question: folds that both were asked on are compared alone.
UNASKED = ("probe.read", "probe.n_resamples", "folds")
FIELD_OF = {"probe.scores_of": "measured", "probe.weights": "averaging"}
FITTED = "fitted"  # on train, or train and val, as the size of val decided


UNREAD = "that haven't read test"
MOST_NAMES = 2  # of differences that are said of a contender without a counterpart


@dataclass(frozen=True)
class Side:
    """What a user typed, and the rows that it means."""

    text: str
    rows: tuple[StoredRow, ...]
    named: frozenset[str] = frozenset()  # fields
    is_free: bool = False  # rows by file, id or tag: they may differ in anything


@dataclass(frozen=True)
class Apart:
    """Something that two contenders differ in."""

    name: str
    a: str
    b: str

    def __str__(self) -> str:
        return f"{self.name} {self.a or 'none'} and {self.b or 'none'}"


@dataclass(frozen=True)
class Pair:
    """Two contenders that were asked alike, but for what their sides name."""

    a: Contender
    b: Contender
    apart: tuple[Apart, ...] = ()  # in what they differ that neither side names
    block: str = ""  # of several: which

    @property
    def dataset(self) -> str:
        return self.a.dataset


@dataclass(frozen=True)
class Pairs:
    """What two sides have to compare on one data set."""

    dataset: str
    pairs: tuple[Pair, ...]
    lacking: str = ""  # why there is none
    left_out: tuple[str, ...] = ()  # of each contender without a counterpart, why: a word or more


def read_side(text: str, rows: Sequence[StoredRow]) -> Side:
    """The rows of one side.

    Args:
        text: an encoder as --model calls it, a tag, a row's file, its stem or the start of its id, or
            a condition as of --where; several with "and" between them.
        rows: to choose from.

    Raises:
        RequestError: nothing is called so.
    """
    found, named, is_free = list(rows), set(), False
    for word in AND.split(text.strip()):
        if by_encoder := choose_named([word], found, _names):
            found = by_encoder
            named.add("model")
        elif by_row := [of for of in found if _is_row(of, word)]:
            found, is_free = by_row, True
        elif condition := OPERATOR.match(word):
            is_so = read_condition(word)
            found = [of for of in found if is_so(of)]
            named.add(condition[1].strip())
        else:
            raise RequestError(_unknown(word, rows))
    if not found:
        raise RequestError(f'no row is {text}; `report ls` lists them, "kind=knn" names a field')
    return Side(text, tuple(found), frozenset(named), is_free)


def _names(of: StoredRow) -> tuple[str, ...]:
    return model_names(of)


def _is_row(of: StoredRow, word: str) -> bool:
    """Whether a word is a row's tag, its file, the file's name, or the start of its id."""
    if word in of.names:
        return True
    if of.path and word in (of.path.name, of.path.stem):
        return True
    if ID.fullmatch(word) and of.id.startswith(word):
        return True
    return bool(of.path and word.endswith(".json") and Path(word).resolve() == of.path.resolve())


def _unknown(word: str, rows: Sequence[StoredRow]) -> str:
    encoders = sorted({name for of in rows for name in _names(of)})
    tags = sorted({name for of in rows for name in of.names})
    known = "encoders are " + ", ".join(encoders)
    known += f"; tags are {', '.join(tags)}" if tags else ""
    return (
        f"{word!r} is no encoder, tag, file or id of a row that was read, nor a condition such as "
        f"kind=knn; {near_names(word, [*encoders, *tags], known)}"
    )


def pair_up(a: Side, b: Side) -> list[Pairs]:
    """The pairs of each data set that either side has rows of, in the order of the rows."""
    of_a, of_b = contenders_of(a.rows), contenders_of(b.rows)
    datasets = list(dict.fromkeys(c.dataset for c in [*of_a, *of_b]))
    return [
        _pair_up(d, a, b, [c for c in of_a if c.dataset == d], [c for c in of_b if c.dataset == d])
        for d in datasets
    ]


def _pair_up(
    dataset: str, a: Side, b: Side, of_a: Sequence[Contender], of_b: Sequence[Contender]
) -> Pairs:
    every = [*of_a, *of_b]
    for side, there in ((a, of_a), (b, of_b)):
        if not there:
            return Pairs(dataset, (), f"no row of {side.text}")
        if not any(map(_is_tested, there)):
            return Pairs(dataset, (), f"no row of {side.text} has read test")
    of_a, of_b = [*filter(_is_tested, of_a)], [*filter(_is_tested, of_b)]
    blocks = make_blocks([*of_a, *of_b])
    pairs: list[Pair] = []
    for number, block in enumerate(blocks, start=1):
        inside = {id(c) for c in block.contenders}
        which = f"block {number} of {len(blocks)}" if len(blocks) > 1 else ""
        here = ([c for c in of_a if id(c) in inside], [c for c in of_b if id(c) in inside])
        pairs += [Pair(p.a, p.b, p.apart, which) for p in _nearest(a, b, *here)]
    if not pairs:
        return Pairs(dataset, (), _why_none(a, b, of_a, of_b))
    paired = {_rows(c) for pair in pairs for c in (pair.a, pair.b)}
    left = {_rows(c): c for c in every if _rows(c) not in paired}
    is_of_a = set(map(id, of_a))
    whys = [_why_left(a, b, c, of_b if id(c) in is_of_a else of_a) for c in left.values()]
    return Pairs(dataset, tuple(pairs), left_out=tuple(whys))


def _is_tested(of: Contender) -> bool:
    return bool(of.first.row.measured.test)


def _why_left(a: Side, b: Side, of: Contender, others: Sequence[Contender]) -> str:
    """Why a contender has no counterpart: what it differs in from the nearest of the other side."""
    if not _is_tested(of):
        return UNREAD
    ways = []
    for y in others:
        named = named_by(a, b, of, y)
        ways.append([d.name for d in differences_of(of, y) if not named(d.name)])
    names = min(ways, key=len)[:MOST_NAMES]
    return f"other in {' and '.join(names)}" if names else "others are nearer, or of other samples"


def _nearest(a: Side, b: Side, of_a: Sequence[Contender], of_b: Sequence[Contender]) -> list[Pair]:
    """The pairs that differ in no more than they may, and for both in as little as can be."""
    able: list[Pair] = []
    for x in of_a:
        for y in of_b:
            named = named_by(a, b, x, y)
            apart = tuple(d for d in differences_of(x, y) if not named(d.name))
            is_same = _rows(x) == _rows(y)
            if not is_same and (a.is_free or b.is_free or all(_may(d.name, x, y) for d in apart)):
                able.append(Pair(x, y, apart))
    least: dict[int, int] = {}
    far = [len(p.apart) + (p.a.model != p.b.model) for p in able]  # another encoder is farther
    for pair, steps in zip(able, far, strict=True):
        for c in (pair.a, pair.b):
            least[id(c)] = min(least.get(id(c), steps), steps)
    near = zip(able, far, strict=True)
    kept = [p for p, steps in near if steps == least[id(p.a)] == least[id(p.b)]]
    # Where rows are of both sides, a pair is there twice, once turned round.
    seen: set[frozenset[frozenset[int]]] = set()
    once = []
    for pair in kept:
        both = frozenset([_rows(pair.a), _rows(pair.b)])
        once += [] if both in seen else [pair]
        seen.add(both)
    return once


def _rows(of: Contender) -> frozenset[int]:
    """What tells a contender from others."""
    return frozenset(map(id, of.rows))


def named_by(a: Side, b: Side, x: Contender, y: Contender):
    """Whether a difference is one that the sides name."""
    named = a.named | b.named
    is_kind = "kind" in named and x.field("kind") != y.field("kind")
    # A kind without seeds has one training, whatever another kind has.
    has_seeds = [c.first.row.answered.training_seed is not None for c in (x, y)]

    def is_named(name: str) -> bool:
        if any(path.format(name) in named for path in PATHS):
            return True
        if "protocol" in named and name.startswith("protocol."):
            return True
        if "place" in named and name in ("place", "layer", "pool", "depth"):
            return True
        if name == "trainings":
            return is_kind and not all(has_seeds)
        return is_kind and name not in (*OF_ALL_KINDS, *OF_ENCODER, "place", FITTED)

    return is_named


def _may(name: str, x: Contender, y: Contender) -> bool:
    is_other = x.model != y.model
    return name == FITTED or (is_other and name in OF_ENCODER)


def asked(of: Contender) -> dict[str, Any]:
    """How a contender was asked, by names that --where knows as far as they can be."""
    row, settings = of.first.row, of.first.row.answered.settings
    found: dict[str, Any] = {}
    for name, value in of.condition().items():
        if name in FIELD_OF:
            found[FIELD_OF[name]] = value
        elif name not in UNASKED:
            found[name.removeprefix("probe.").removeprefix("few_shot.")] = value
    found["size"] = row.encoded.size
    if "place_chosen" not in settings:
        found |= {"layer": layer_from_end(row), "depth": settings.get("n_last", 1)}
        found["pool"] = pool_of(row)
    found[FITTED] = settings.get("refit", "train")
    return found | ({"fold": row.posed.fold} if row.posed.fold and not of.is_of_folds else {})


def differences_of(x: Contender, y: Contender) -> list[Apart]:
    """Everything that two contenders were asked otherwise in; encoder and data are nothing of it."""
    of_x, of_y = asked(x), asked(y)
    return [
        Apart(name, written(of_x.get(name)), written(of_y.get(name)))
        for name in dict.fromkeys([*of_x, *of_y])
        if of_x.get(name) != of_y.get(name)
    ]


def facts(of: Contender) -> dict[str, str]:
    """What tells a contender from others of its data set, in words: "kind" -> "knn"."""
    row = of.first.row
    settings, posed, e = row.answered.settings, row.posed, row.encoded
    shots, protocol = row.answered.shots, row.answered.protocol.get("name")
    place = f"layer {layer_of(row)} {pool_of(row) or ''}".rstrip()
    place = "" if settings.get("layer") is None else place
    found = {
        "encoder": of.model,
        "size": f"{e.size} px" if e.size else "",
        "kind": row.answered.kind,
        "pooling": f"pooling {settings['pooling']}" if "pooling" in settings else "",
        "averaging": f"{settings['weights']} weights" if row.answered.kind == "stack" else "",
        "mode": str(settings.get("mode", "")),
        "k": f"k {'chosen' if 'k' in row.answered.chosen else settings['k']}"
        if "k" in settings
        else "",
        "shots": counted(shots, "shot") if shots else "",
        "protocol": str(protocol or ""),
        "split": str(posed.split.get("rule", "")),
        "target": f"target {posed.target['target']}" if posed.target.get("target") else "",
        "trained": f"trained on {posed.trained_on.dataset}" if posed.trained_on else "",
        "measured": "patients measured" if settings.get("scores_of") else "",
        "trainings": counted(len(of.rows), "training") if of.is_of_seeds else "",
        "place": "layer chosen" if "place_chosen" in settings else place,
        FITTED: f"fitted on {settings['refit']}" if settings.get("refit") else "",
    }
    return {name: words for name, words in found.items() if words}


def facts_of_both(a: Contender, b: Contender) -> dict[str, str]:
    """``facts`` of two: "knn", or "112 px | 224 px" where they differ."""
    of_a, of_b = facts(a), facts(b)
    found = {}
    for name in dict.fromkeys([*of_a, *of_b]):
        one, other = of_a.get(name, "-"), of_b.get(name, "-")
        found[name] = one if one == other else f"{one} | {other}"
    return found


def describe(of: Contender) -> str:
    """A contender in a few words: "vit, 224 px, knn, k 20, layer 11 cls"."""
    return ", ".join(facts(of).values())


def _why_none(a: Side, b: Side, of_a: Sequence[Contender], of_b: Sequence[Contender]) -> str:
    """Why nothing of one side belongs to anything of the other, and the next command."""
    closest: tuple[int, list[Apart], Contender, Contender] | None = None
    for x in of_a:
        for y in of_b:
            conflicts = _conflict(x, y)
            named = named_by(a, b, x, y)
            apart = [
                d for d in differences_of(x, y) if not named(d.name) and not _may(d.name, x, y)
            ]
            rank = len(apart) + 100 * bool(conflicts)
            if closest is None or rank < closest[0]:
                closest = rank, apart, x, y
    assert closest is not None
    _, apart, x, y = closest
    have = f"{a.text} has {_list(of_a)}; {b.text} has {_list(of_b)}"
    if said := _conflict(x, y):
        return (
            f"{have}; the nearest are of {said}, so nothing of one says anything beside the other: "
            "lay one table over both files by `extract`, and ask again"
        )
    if not apart:
        return f"{have}: these are the same rows"
    differ = ", ".join(map(str, apart))
    why = f"{have}; the nearest differ in {differ}: ask one as the other with `probe`"
    texts = _spelt_out(a, b, x, y, apart)
    return f"{why}, or name the difference, as in `report compare {texts}`" if texts else why


def _spelt_out(a: Side, b: Side, x: Contender, y: Contender, apart: Sequence[Apart]) -> str:
    """Two sides that name each difference of two contenders, as words of a command line.

    Nothing where no condition can say one of them: the number of trainings, say. To name folds would
    help nothing, for they have no sample in common.
    """
    if any(difference.name == "fold" for difference in apart):
        return ""
    texts = [a.text, b.text]
    for difference in apart:
        for path in PATHS:
            word = path.format(difference.name)
            try:
                field = find_field(word)
            except RequestError:
                continue
            values = [written(field.of(of.first)) for of in (x, y)]
            if values[0] != values[1]:
                texts = [f"{t} and {word}={v}" for t, v in zip(texts, values, strict=True)]
                break
        else:
            return ""
    try:
        sides = read_side(texts[0], a.rows), read_side(texts[1], b.rows)
    except RequestError:
        return ""
    here = [[c for c in contenders_of(of.rows) if c.dataset == x.dataset] for of in sides]
    is_plain = not any(mark in text for text in texts for mark in '"$`\\')
    return " ".join(f'"{t}"' for t in texts) if is_plain and _nearest(*sides, *here) else ""


def _conflict(x: Contender, y: Contender) -> str:
    blocks = make_blocks([x, y])
    return describe_conflicts(blocks[1], blocks[0]) if len(blocks) > 1 else ""


def _list(of: Sequence[Contender], most: int = 3) -> str:
    said = list(dict.fromkeys(map(describe, of)))
    more = [f"{len(said) - most} more"] if len(said) > most else []
    return " | ".join([*said[:most], *more])
