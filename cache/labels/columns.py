"""Labels out of columns of text: which task they make, which classes, what is missing.

Both ``extract --data csv:FILE`` and ``probe --labels FILE --target COLUMN`` read them here, so a
column means the same wherever it is read. What was inferred is to be shown: ``describe_target``.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.errors import RequestError
from cache.labels.tables import is_number
from cache.labels.target import LOOKS_MISSING, Target, is_one_hot, name_missing, same_numbers
from cache.task import (
    ASKED,
    BINARY,
    MISSING,
    MULTI_CLASS,
    MULTI_LABEL,
    ORDINAL,
    REGRESSION,
    UNCERTAIN,
)

MISSING_WORDS = ("", "nan", "na", "null")  # in any case
# Cells of a column that is one label; pandas writes 1 as 1.0 once a column has holes.
LABEL_WORDS = {
    **dict.fromkeys(("0", "0.0", "false", "no"), 0),
    **dict.fromkeys(("1", "1.0", "true", "yes"), 1),
    **dict.fromkeys(("-1", "-1.0"), UNCERTAIN),
    **dict.fromkeys(MISSING_WORDS, MISSING),
}
# A binary task's class 0, where just one of its two names is among these or begins like "no tumour",
# "non-COVID": sorted as text, "abnormal" would go before "normal" and be the negative class.
NEGATIVE_NAMES = frozenset(
    ("no", "neg", "negative", "normal", "healthy", "benign", "control", "false", "0", "absent")
)
NEGATION = re.compile(r"(no|non|not|without)[\s_-]")
NAME_PARTS = re.compile(r"[\s_,/+&-]+(?:(?:or|and)[\s_-]+)?")
# More different numbers than this are taken for measurements. MedMNIST has up to 14 classes; ages
# in years, the numbers most often met beside images, have more.
MANY_NUMBERS = 30
ORDER_BY_NUMBER = "the order of ordinal classes is that of their numbers"
PLAIN = re.compile(r"(-?\d+)(\.\d*?)0*")  # digits, and those after the point but the last zeros
MAX_CLASSES = 4000  # HDF5 holds no list of names in an attribute beyond 64 KiB


def read_target(
    columns: Mapping[str, Sequence[str]],
    *,
    where: str,
    lines: Sequence[int] | None = None,
    task: str | None = None,
    separator: str | None = None,
    positive: str | None = None,
    missing: Sequence[str] = (),
) -> Target:
    """Labels out of one column, or out of several that stand side by side.

    One column holds names or numbers: two different values make a binary task, more a multi-class
    one. Classes are in numeric order if all are numbers, else in the order of their text; of a
    binary task, a name that is clearly a negation is class 0 (``NEGATIVE_NAMES``). Empty, "nan",
    "NA" and "null" are MISSING.

    Several columns are several labels: 0, 1, true, false, yes, no; empty is MISSING, -1 UNCERTAIN.
    So is one column with a separator ("Edema|Effusion"), where an empty cell has none of the labels
    and "nan" is MISSING. With ``task="multi-class"`` several columns are one-hot.

    Args:
        columns: name -> S texts, stripped.
        where: the table, for messages.
        lines: (S,) the texts' lines in it, for messages; None: rows are counted from 1.
        task: a word of ``ASKED`` or ``cache.task.TASKS``; None: it is inferred. Continuous labels
            and ordered classes never are.
        separator: between the labels of one cell.
        positive: the class that becomes label 1 of a binary task.
        missing: further cells that are MISSING, in any case of letters.

    Raises:
        RequestError: the columns don't hold such labels, or only one class; table, column and line
            are named.
    """
    asked = _asked_task(task)
    texts = {
        name: _Texts(blank_out(cells, missing), f"{where}, column {name}", lines)
        for name, cells in columns.items()
    }
    if positive is not None and (asked not in (None, BINARY) or separator or len(columns) > 1):
        raise RequestError(
            f"{where}: --positive {positive} names a class of a binary task; leave it out"
        )
    if separator is not None:
        return _read_lists(texts, asked, separator, where)
    if len(columns) > 1 and asked == MULTI_CLASS:
        return _read_one_hot(texts, where)
    if len(columns) > 1:
        if asked not in (None, MULTI_LABEL):
            raise RequestError(
                f"{where}: {len(columns)} label columns are multi-label, or multi-class if they are "
                f"one-hot; {task} takes one column"
            )
        return _read_side_by_side(texts, where)
    if asked == MULTI_LABEL:
        raise RequestError(
            f"{where}: multi-label takes several columns, or one and the separator of its names"
        )
    ((name, of_column),) = texts.items()
    if asked == REGRESSION:
        return _read_numbers(name, of_column)
    return _read_classes(of_column, asked, positive)


def read_label(
    name: str,
    cells: Sequence[str],
    *,
    where: str,
    lines: Sequence[int] | None = None,
    missing: Sequence[str] = (),
) -> Target:
    """One column that is one label: what several of them side by side mean in ``read_target``.

    Returns:
        Of several labels, of which there is one: (S, 1).

    Raises:
        RequestError: a cell is neither 0, 1, -1 (UNCERTAIN) nor missing, or none is known.
    """
    texts = _Texts(blank_out(cells, missing), f"{where}, column {name}", lines)
    return _read_side_by_side({name: texts}, where)


def class_target(
    names: Sequence[str], *, where: str, task: str | None = None, positive: str | None = None
) -> Target:
    """Labels out of the names of classes, as a folder's class folders give them.

    As ``read_target`` with one column, but no name means MISSING, and numbers are never taken for
    measurements.

    Args:
        names: (S,) the class of each sample.
        where: the folder, for messages.
        task: "binary", "multi-class" or "ordinal"; None: by the number of classes.
        positive: the class that becomes label 1 of a binary task.

    Raises:
        RequestError: fewer than two classes, or not those that were asked for.
    """
    asked = _asked_task(task)
    if asked in (REGRESSION, MULTI_LABEL):
        raise RequestError(f"{where}: a sample has one class, and {task} needs other labels")
    words = [name for name in sorted(set(names)) if not is_number(name)]
    if asked == ORDINAL and words:
        raise RequestError(f"{where}: {words[0]!r} is no number; {ORDER_BY_NUMBER}")
    return _name_classes(names, where, asked, positive)


@dataclass(frozen=True)
class _Texts:
    """One column, and what to call its cells in messages."""

    texts: Sequence[str]
    where: str
    lines: Sequence[int] | None

    def place(self, row: int) -> str:
        return f"row {row + 1}" if self.lines is None else f"line {self.lines[row]}"

    def at(self, row: int) -> str:
        return f"{self.where}, {self.place(row)}"

    def first(self, value: str) -> str:
        return self.at(next(row for row, text in enumerate(self.texts) if text == value))


def _asked_task(task: str | None) -> str | None:
    if task is None or task in ASKED.values():
        return task
    if task not in ASKED:
        raise RequestError(f"--task takes {', '.join(ASKED)}, not {task!r}")
    return ASKED[task]


def is_missing(text: str) -> bool:
    """Whether a cell says that nobody knows, without anybody having said which cells do."""
    return text.lower() in MISSING_WORDS


def blank_out(cells: Sequence[str], missing: Sequence[str]) -> Sequence[str]:
    """Cells, with "nan" for those that are named as missing, in any case of letters."""
    if not missing:
        return cells
    words = {word.lower() for word in missing}
    return ["nan" if cell.lower() in words else cell for cell in cells]


def _cure(text: str) -> str:
    return f" ({name_missing(text)} if nobody knows it)" if text.lower() in LOOKS_MISSING else ""


# ---------------------------------------------------------------------------- one column


def _read_classes(texts: _Texts, asked: str | None, positive: str | None) -> Target:
    known = [None if is_missing(text) else text for text in texts.texts]
    distinct = {text for text in known if text is not None}
    if not distinct:
        raise RequestError(f"{texts.where}: no label in {len(known):_} rows")
    if asked is None and len(distinct) > MANY_NUMBERS:
        _refuse_many(texts, distinct, sum(text is not None for text in known))
    if asked is None and all(map(is_number, distinct)):
        broken = next((text for text in known if text and not float(text).is_integer()), None)
        if broken is not None:
            raise RequestError(
                f"{texts.first(broken)}: {broken} is no class number ({len(distinct)} different "
                "numbers); say --task regression if they are measurements, --task multi-class if "
                "they are classes"
            )
    if asked == ORDINAL and not all(map(is_number, distinct)):
        word = next(text for text in known if text is not None and not is_number(text))
        raise RequestError(f"{texts.first(word)}: {word!r} is no number; {ORDER_BY_NUMBER}")
    return _name_classes(known, texts.where, asked, positive)


def _refuse_many(texts: _Texts, distinct: set[str], n_known: int) -> None:
    """Numbers that look like measurements, and names that look like ids."""
    if all(map(is_number, distinct)):
        low, high = min(distinct, key=float), max(distinct, key=float)
        raise RequestError(
            f"{texts.where}: {len(distinct):_} different numbers, {low} to {high}; say --task "
            "regression if they are measurements, --task multi-class if they are classes"
        )
    if 2 * len(distinct) > n_known:
        raise RequestError(
            f"{texts.where}: {len(distinct):_} different texts in {n_known:_} rows look like ids; "
            "name the column of the labels, or say --task multi-class if they are classes"
        )


def _name_classes(
    texts: Sequence[str | None], where: str, asked: str | None, positive: str | None
) -> Target:
    """Number the classes; None becomes MISSING."""
    names = _canonical_names({text for text in texts if text is not None})
    classes = _in_order(set(names.values()))
    found = ", ".join(classes[:5]) + (" ..." if len(classes) > 5 else "")
    if len(classes) < 2:
        raise RequestError(f"{where}: one class only ({found}); a probe needs at least two")
    if len(classes) > MAX_CLASSES:
        raise RequestError(
            f"{where}: {len(classes):_} classes; at most {MAX_CLASSES:_} are possible"
        )
    if asked == BINARY and len(classes) != 2:
        raise RequestError(f"{where}: {len(classes)} classes ({found}), and a binary task has two")
    if asked == ORDINAL and (alike := same_numbers(classes)):
        raise RequestError(
            f"{where}: {' and '.join(alike)} are one number, and {ORDER_BY_NUMBER}; write it one way"
        )
    task = asked or (BINARY if len(classes) == 2 else MULTI_CLASS)
    if task == BINARY:
        classes = _order_binary(classes, positive, where)
    elif positive is not None:
        raise RequestError(
            f"{where}: --positive {positive} names a class of a binary task, and there are "
            f"{len(classes)} classes ({found}); leave it out"
        )
    number = {text: classes.index(name) for text, name in names.items()}
    labels = [MISSING if text is None else number[text] for text in texts]
    return Target(task, tuple(classes), np.array(labels, np.int64))


def _canonical_names(distinct: set[str]) -> dict[str, str]:
    """Text -> name of its class: of numbers 1.0 and 1 are one, of names both forms of é.

    pandas writes 1 as 1.0 once a column has holes. Other texts of one number (01 and 1, 1E1 and
    10) may be codes: they are classes of their own, and ``warn_of_classes`` says so.
    """
    if not all(map(is_number, distinct)):
        return {text: unicodedata.normalize("NFC", text) for text in distinct}
    return {text: _without_zeros(text) for text in distinct}


def _without_zeros(text: str) -> str:
    found = PLAIN.fullmatch(text)
    return text if found is None else found[1] + found[2].rstrip(".")


def _in_order(names: set[str]) -> list[str]:
    # As text first, so that numbers too long for a float have one order as well.
    return sorted(sorted(names), key=float) if all(map(is_number, names)) else sorted(names)


def _order_binary(classes: list[str], positive: str | None, where: str) -> list[str]:
    """Class 0, class 1."""
    if positive is None:
        negations = [_is_negation(name) for name in classes]
        return classes[::-1] if negations == [False, True] else classes
    positive = _canonical_names({positive})[positive]
    if positive not in classes:
        raise RequestError(f"{where}: --positive {positive}; the classes are {', '.join(classes)}")
    return [name for name in classes if name != positive] + [positive]


def _is_negation(name: str) -> bool:
    lower = name.lower()
    words = [word for word in NAME_PARTS.split(lower) if word]
    each_is = bool(words) and NEGATIVE_NAMES.issuperset(words)  # "normal or benign"
    return each_is or NEGATION.match(lower) is not None


def _read_numbers(name: str, texts: _Texts) -> Target:
    values = np.full(len(texts.texts), np.nan)
    for row, text in enumerate(texts.texts):
        if is_missing(text):
            continue
        if not is_number(text):
            raise RequestError(
                f"{texts.at(row)}: {text!r} is no number, and regression needs them{_cure(text)}"
            )
        values[row] = float(text)
    known = values[~np.isnan(values)]
    if not len(known) or known.min() == known.max():
        found = f"all values are {known[0]:g}" if len(known) else "no value"
        raise RequestError(f"{texts.where}: {found} in {len(values):_} rows; nothing to predict")
    return Target(REGRESSION, (name,), values)


# ---------------------------------------------------------------------------- several labels


def _read_side_by_side(columns: Mapping[str, _Texts], where: str) -> Target:
    labels = np.stack([*map(_read_cells, columns.values())], axis=1)  # (S, C)
    if (labels < 0).all():
        raise RequestError(f"{where}: no label is known in {', '.join(columns)}")
    return Target(MULTI_LABEL, _normalised(columns), labels)


def _read_cells(texts: _Texts) -> NDArray[np.int64]:
    """(S,) of 0, 1, MISSING, UNCERTAIN."""
    meaning = {text: LABEL_WORDS.get(text.lower()) for text in set(texts.texts)}
    for row, text in enumerate(texts.texts):
        if meaning[text] is None:
            raise RequestError(
                f"{texts.at(row)}: {text!r}; where several columns are labels, each holds 0 or 1, "
                f"-1 for uncertain, or nothing{_cure(text)}"
            )
    return np.array([meaning[text] for text in texts.texts], np.int64)


def _read_one_hot(columns: Mapping[str, _Texts], where: str) -> Target:
    labels = _read_side_by_side(columns, where).labels
    unknown = (labels == MISSING).all(axis=1)
    wrong = np.flatnonzero(~(is_one_hot(labels) | unknown))
    if len(wrong):
        row = int(wrong[0])
        found = [name for name, label in zip(columns, labels[row], strict=True) if label == 1]
        place = next(iter(columns.values())).place(row)
        raise RequestError(
            f"{where}, {place}: {', '.join(found) or 'no class'}; one-hot columns hold one 1 and "
            "zeros; without --task multi-class they are several labels"
        )
    numbers = np.where(unknown, MISSING, labels.argmax(axis=1))
    if len(np.unique(numbers[~unknown])) < 2:
        raise RequestError(f"{where}: one class only in {', '.join(columns)}")
    return Target(MULTI_CLASS, _normalised(columns), numbers)


def _read_lists(
    columns: Mapping[str, _Texts], asked: str | None, separator: str, where: str
) -> Target:
    if not separator or len(columns) > 1 or asked not in (None, MULTI_LABEL):
        raise RequestError(
            f"{where}: a separator ({separator!r}) is for one column that lists several labels"
        )
    (texts,) = columns.values()
    if not any(separator in cell for cell in texts.texts):
        raise RequestError(
            f"{texts.where}: no cell has the separator {separator!r}, so each has one class; leave "
            "the separator out, or name the right one"
        )
    normal = [unicodedata.normalize("NFC", cell) for cell in texts.texts]
    missing = np.array([cell != "" and is_missing(cell) for cell in normal])
    found = [
        set() if absent else {part.strip() for part in cell.split(separator)} - {""}
        for cell, absent in zip(normal, missing, strict=True)
    ]
    classes = _in_order(set().union(*found))
    if not 2 <= len(classes) <= MAX_CLASSES:
        raise RequestError(f"{texts.where}: {len(classes)} labels; expected 2 to {MAX_CLASSES:_}")
    number = {label: index for index, label in enumerate(classes)}
    labels = np.zeros((len(normal), len(classes)), np.int64)
    for row, names in enumerate(found):
        labels[row, [number[label] for label in names]] = 1
    labels[missing] = MISSING
    return Target(MULTI_LABEL, tuple(classes), labels)


def _normalised(names: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(unicodedata.normalize("NFC", name) for name in names)
