"""What a picture calls answers, and which of them it can draw."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cache.commands.names import counted
from cache.errors import RequestError
from probe.report.figures.frame import Asked
from probe.report.pages.sensitivity import word_of
from probe.report.rows.answers import TestSet, test_sets
from probe.report.rows.contenders import Contender
from probe.report.rows.fields import BY_NAME, written

ALWAYS = ("data", "model", "kind")
TELLING = (
    *("target", "split", "trained", "protocol", "mode", "k", "place", "size", "layer", "pool"),
    *("depth", "aggregate", "measured", "control", "prepared", "fitted", "weights", "features"),
    "id",
)
BARE = {*ALWAYS, "target", "split", "protocol", "mode", "pool", "control"}
N_DIGITS = 8  # of a digest


@dataclass(frozen=True)
class Drawn:
    """One answer to one test set, under the name that tells it from all others of the picture."""

    name: str
    contender: Contender
    test: TestSet


def names_of(contenders: Sequence[Contender], leave: Sequence[str] = ()) -> list[str]:
    """Each one's name: data set, encoder and kind, and as much of the rest as tells all apart.

    Args:
        contenders: to name.
        leave: fields that stand elsewhere.
    """
    fields: list[str] = list(ALWAYS)

    def words(names: Sequence[str]) -> list[tuple[str, ...]]:
        return [tuple(filter(None, (_word(c, name) for name in names))) for c in contenders]

    for name in TELLING:
        said = words(fields)
        if len(set(said)) == len(said):
            break
        if len(set(words([*fields, name]))) > len(set(said)):
            fields.append(name)
    return [", ".join(of) for of in words([name for name in fields if name not in leave])]


def _word(of: Contender, name: str) -> str:
    if name == "place":
        return word_of(of, name) if of.field(name) else ""
    word = written(of.field(name))
    if name in ("features", "id"):
        word = word[:N_DIGITS]
    if not word or name in BARE:
        return word
    if name == "size":
        return f"{word}\N{NO-BREAK SPACE}px"
    return f"{BY_NAME[name].title}\N{NO-BREAK SPACE}{word}"


def answers_of(
    asked: Asked, can: Callable[[Contender], str], what: str, command: str
) -> tuple[list[Drawn], tuple[str, ...]]:
    """Those that a picture of single answers can draw, with what is left out and why.

    Args:
        asked: rows.
        can: why one can't be drawn; "": it can.
        what: that the picture needs.
        command: that makes it.

    Raises:
        RequestError: there is none.
    """
    left: dict[str, int] = {}
    found: list[tuple[Contender, TestSet]] = []
    for c in asked.contenders:
        try:
            if why := _unread(c) or can(c):
                raise RequestError(why)
            (test,) = test_sets([c], asked.people)
        except RequestError as error:
            left[str(error)] = left.get(str(error), 0) + 1
        else:
            found.append((c, test))
    notes = tuple(f"left out: {counted(n, 'answer')}: {why}" for why, n in left.items())
    if not found:
        raise RequestError(
            "; ".join([f"nothing to draw: it needs {what}; `{command}` makes it", *notes])
        )
    names = names_of([c for c, _ in found])
    return [Drawn(name, *of) for name, of in zip(names, found, strict=True)], notes


def _unread(of: Contender) -> str:
    row = of.first.row
    if not row.measured.test:
        return "test wasn't read"
    if row.answered.shots is not None:
        return "means over few-shot episodes are no single answers"
    if len(of.rows) > 1:
        return "of folds or trainings, each of which is a model of its own"
    return ""
