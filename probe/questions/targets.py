"""What is to be predicted: a file's own labels, one of them, a meta column, or a table's columns.

Everything is joined by the samples' ids, whatever the order of the rows.
"""

import dataclasses
import difflib
import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.commands.names import counted
from cache.errors import RequestError
from cache.features import Features
from cache.format.key import canonical_json
from cache.format.read import read_table
from cache.labels.columns import read_label, read_target
from cache.labels.tables import Table, column, read_csv
from cache.labels.target import UNCERTAIN_RULES, Target, apply_uncertain, select_label
from cache.splits.make import meta_texts
from cache.task import MISSING, MULTI_LABEL, REGRESSION, UNCERTAIN
from probe.arrays import Texts
from probe.questions.overlay import META, OverlayConfig

META_TABLES = "samples/meta/"
LARGEST = 1e100  # of a continuous label: errors are squared and summed, and float64 ends at 1e308


def choose_target(
    config: OverlayConfig, features: Features
) -> tuple[Target, dict[str, Any], list[str]]:
    """The labels that are asked for, none of them UNCERTAIN.

    Returns:
        The target of S samples; what the row's question says of it, nothing where it is the stored
        one; and what a reader must know.

    Raises:
        RequestError: a table that can't be read or names no sample, no labels, no such column or
            label, or uncertain labels of which nobody says what they count as.
    """
    said: dict[str, Any] = {}
    notes: list[str] = []
    if config.labels:
        target, notes = _read_labels(config, config.labels, features)
        said["file"] = config.labels.name
    elif config.target and config.target.startswith(META):
        target = _read_meta(config, config.target.removeprefix(META), features)
    else:
        target = Target(features.task, tuple(features.class_names), features.labels)
        if target.is_unlabelled:
            raise RequestError(
                f"the images of {features.dataset} were stored without labels; lay some over them "
                "with --labels FILE, or score them with `probe apply`"
            )
        if config.target:
            target = _narrow(target, config.target)
    if config.target:
        said["target"] = config.target
    if target.task == MULTI_LABEL and (target.labels == UNCERTAIN).any():
        target = dataclasses.replace(target, labels=_resolve(config, target, features))
        said["uncertain"] = config.uncertain
    if target.task == MULTI_LABEL and len(target.class_names) == 1:
        target = select_label(target, target.class_names[0])
    if target.task == REGRESSION and np.nanmax(np.abs(target.labels), initial=0) > LARGEST:
        raise RequestError(
            f"{target.class_names[0]} of {features.dataset} reaches "
            f"{np.nanmax(np.abs(target.labels)):g}, and the square of such a number is lost; is that "
            "a code for a missing value? Leave it empty"
        )
    return target, said, notes


def _narrow(target: Target, text: str) -> Target:
    """The stored labels that are named; a name may hold a comma itself."""
    names = (text,) if text in target.class_names else tuple(map(str.strip, text.split(",")))
    if target.task != MULTI_LABEL:
        raise RequestError(
            f"--target {text}: the stored labels are one target of {len(target.class_names)} "
            f"classes; name a column of --labels FILE, or {META}COLUMN"
        )
    for name in names:
        refuse_unknown(name, target.class_names, "label")
    return Target(
        target.task, names, target.labels[:, [target.class_names.index(name) for name in names]]
    )


def _resolve(config: OverlayConfig, target: Target, features: Features) -> NDArray[np.int64]:
    if config.uncertain is None:
        n = int((target.labels == UNCERTAIN).sum())
        raise RequestError(
            f"{n:_} labels of {features.dataset} are uncertain; say what they count as: "
            f"--uncertain {', '.join(UNCERTAIN_RULES[:-1])} or {UNCERTAIN_RULES[-1]}"
        )
    return apply_uncertain(target.labels, config.uncertain)


def refuse_unknown(name: str, known: Sequence[str], what: str) -> None:
    """Refuse a name that isn't known; near ones come first.

    Raises:
        RequestError: it isn't.
    """
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    cure = (
        f"did you mean {' or '.join(near)}?" if near else f"there is {', '.join(known) or 'none'}"
    )
    raise RequestError(f"no {what} {name!r}; {cure}")


def _read_labels(config: OverlayConfig, path: Path, features: Features) -> tuple[Target, list[str]]:
    """The labels of a table, put beside the samples by their ids, and a note on other ids."""
    table = read_csv(path)
    id_column = "id" if "id" in table.columns else next(iter(table.columns))
    wanted = _column_names(config.target, table) if config.target else ()
    names = wanted or tuple(name for name in table.columns if name != id_column)
    if not names:
        raise RequestError(f"{path} has no column beside {id_column!r}; expected labels in one")
    columns = {name: column(table, name) for name in names}
    ids = features.ids.tolist()
    place = _places(table, id_column, set(ids))
    rows = np.array([place.get(name, -1) for name in ids])
    if (rows < 0).all():
        raise RequestError(
            f"{path} names no sample of {features.dataset}: column {id_column!r} holds "
            f"{next(iter(place))!r} and the like, ids there look like {str(features.ids[0])!r}"
        )
    try:
        # Of all rows, not of ours alone: the classes are then the same for every data set it covers.
        target = _read_columns(config, columns, str(path), table.lines)
    except RequestError as error:
        if wanted or len(names) == 1:
            raise
        raise RequestError(f"{error}; or name one of {', '.join(names)} with --target") from error
    labels = target.labels[rows]
    labels[rows < 0] = np.nan if target.task == REGRESSION else MISSING
    others = sorted(place.keys() - {*ids})
    notes = []
    if others:
        first = others[0] + ("..." if len(others) > 1 else "")
        notes = [f"{counted(len(others), 'id')} of {path.name} not among the samples ({first})"]
    return dataclasses.replace(target, labels=labels), notes


def _column_names(text: str, table: Table) -> tuple[str, ...]:
    """The columns that are named; a name may hold a comma itself."""
    return (text,) if text in table.columns else tuple(map(str.strip, text.split(",")))


def _read_columns(
    config: OverlayConfig,
    columns: Mapping[str, Sequence[str]],
    where: str,
    lines: Sequence[int] | None = None,
) -> Target:
    if config.uncertain is None or config.separator is not None or len(columns) > 1:
        return read_target(
            columns,
            where=where,
            lines=lines,
            task=config.task,
            separator=config.separator,
            positive=config.positive,
            missing=config.missing,
        )
    # Read as classes, a -1 would be one of them, and --uncertain without a meaning.
    ((name, cells),) = columns.items()
    for flag, value in {"--task": config.task, "--positive": config.positive}.items():
        if value is not None:
            raise RequestError(
                f"{where}, column {name}: --uncertain reads it as 1, 0, and -1 for uncertain; leave "
                f"out {flag} {value}, or --uncertain"
            )
    return read_label(name, cells, where=where, lines=lines, missing=config.missing)


def _places(table: Table, id_column: str, known: AbstractSet[str]) -> dict[str, int]:
    """Id -> row of the table; ``known`` are those of the samples."""
    place: dict[str, int] = {}
    for row, text in enumerate(column(table, id_column)):
        # macOS writes é as two characters, ids hold one.
        name = text if text in known else unicodedata.normalize("NFC", text)
        if place.setdefault(name, row) != row:
            raise RequestError(
                f"{table.path}, line {table.lines[row]}, column {id_column}: {text!r} stands there "
                "twice"
            )
    return place


def _read_meta(config: OverlayConfig, name: str, features: Features) -> Target:
    if not (known := meta_columns(features)):
        raise RequestError(
            f"no meta column {name!r}: {features.path.name} has none; if its images stand in a "
            f"table, extract with --meta-cols {name} adds it and keeps the features"
        )
    refuse_unknown(name, known, f"meta column of {features.path.name},")
    where = f"{features.path.name}, {META}{name}"
    return _read_columns(config, {name: read_meta(features, name).tolist()}, where)


def meta_columns(features: Features) -> list[str]:
    """The names of what is known of each sample beside its label: age, sex, site..."""
    tables = features.header.tables
    return [name.removeprefix(META_TABLES) for name in tables if name.startswith(META_TABLES)]


def read_meta(features: Features, name: str) -> Texts:
    """(S,) one of ``meta_columns``, as texts."""
    return meta_texts(read_table(features.header, META_TABLES + name))


def labels_digest(target: Target, features: Features) -> str:
    """SHA-256 of task, classes and every sample's labels, whatever the order of the samples."""
    words = zip(features.ids.tolist(), target.labels.tolist(), strict=True)
    lines = sorted(f"{name}\0{labels}\n" for name, labels in words)
    head = canonical_json([target.task, *target.class_names])
    return f"sha256:{hashlib.sha256(''.join([head, *lines]).encode()).hexdigest()}"
