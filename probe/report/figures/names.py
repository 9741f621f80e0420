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
    *("pooling", "averaging", "id"),
)
OF_SAMPLES = ("target", "split", "fold", "trained")  # which samples test is, and what was learnt
BARE = {*ALWAYS, "target", "split", "fold", "protocol", "mode", "pool", "control"}
N_DIGITS = 8  # of a digest


@dataclass(frozen=True)
class Drawn:
    """One answer to one test set."""

    name: str  # that tells it from all others of the picture
    panel: str  # data set, and what tells its samples from others of it
    short: str  # that tells it from all others of the panel
    contender: Contender
    test: TestSet


def names_of(contenders: Sequence[Contender], leave: Sequence[str] = ()) -> list[str]:
    """Each one's name: data set, encoder and kind, and as much of the rest as tells all apart.

    Rows of one question, of two folders say, are numbered.

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
    said = words(fields)
    shown = [", ".join(of) for of in words([name for name in fields if name not in leave])]
    places = [said[:i].count(each) + 1 for i, each in enumerate(said)]
    return [f"{n} ({place})" if place > 1 else n for n, place in zip(shown, places, strict=True)]


def panels_of(contenders: Sequence[Contender]) -> list[str]:
    """Data set of each, with what is measured where not samples, and what else tells samples apart."""
    found = []
    for c in contenders:
        others = [of for of in contenders if of.dataset == c.dataset]
        told = [name for name in OF_SAMPLES if len({_word(of, name) for of in others}) > 1]
        found.append(", ".join(filter(None, (_word(c, n) for n in ("data", *told, "measured")))))
    return found


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
    if name == "measured":
        return f"{word} measured"
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
    notes = tuple(f"Left out: {counted(n, 'answer')}: {why}" for why, n in left.items())
    if not found:
        raise RequestError(
            "; ".join([f"nothing to draw: it needs {what}; `{command}` makes it", *notes])
        )
    contenders = [c for c, _ in found]
    names, panels = names_of(contenders), panels_of(contenders)
    short = names_of(contenders, leave=("data", *OF_SAMPLES, "measured"))
    return [
        Drawn(*of) for of in zip(names, panels, short, *zip(*found, strict=True), strict=True)
    ], notes


def _unread(of: Contender) -> str:
    row = of.first.row
    if not row.measured.test:
        return "test wasn't read"
    if row.answered.shots is not None:
        return "means over few-shot episodes are no single answers"
    if len(of.rows) > 1:
        return "of folds or trainings, each of which is a model of its own"
    return ""
