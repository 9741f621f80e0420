"""Stored rows, of probes and of fine-tuned encoders alike: finding, reading and choosing them."""

import contextlib
import dataclasses
import errno
import gc
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.commands.names import choose_named, short_label
from cache.errors import RequestError
from probe.arrays import Array
from probe.report.rows.beside import joined_names
from probe.report.rows.index import RowIndex
from probe.results import NO_ROW, BrokenRow, Row, from_json, read_scores

# What opening a pipe or a folder, a link to nothing, a loop of links ends in.
NO_FILE = (errno.EINVAL, errno.ENOENT, errno.ELOOP)
CURE = "delete it, or move it elsewhere; the command that made a row makes it again"
# Of files that someone named, which aren't ours to have deleted.
EXPECTED = "expected DATA_SET/NAME.json below a folder of results, as it was written"
FOLDER = f"{NO_ROW}, but a folder; name a folder of results by --results DIR"
LATEST = 9e9  # seconds since 1970 that pandas has a time for, in 2255; a file's may be any


@dataclass(frozen=True)
class StoredRow:
    """A row, and where it lies."""

    row: Row  # without scores, but where ``path`` is None
    path: Path | None = None  # None: it was just made, and has its scores
    content: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # as ``read_row`` gives it
    written: float = 0.0  # when, in seconds since 1970
    lacking: str = ""  # what is wrong with its scores; "": nothing

    @property
    def names(self) -> tuple[str, ...]:
        """Its tags."""
        return tuple(self.content.get("names", ()))

    @property
    def id(self) -> str:
        """SHA-256 of the question."""
        return str(self.content.get("id") or self.row.digest)

    def scores(self) -> Mapping[str, Array]:
        """Each sample's scores, labels and ids, see ROW.md.

        Raises:
            RequestError: they are missing or damaged.
        """
        if self.path is None:
            return self.row.scores
        try:
            return read_scores(self.path, self.content)
        except (OSError, BrokenRow) as error:
            why = self.lacking or str(error)
            raise RequestError(f"{self.path}: its {why}") from error


@dataclass(frozen=True)
class Problem:
    """A file that holds no row, or whose scores are lost."""

    path: Path
    why: str


@dataclass(frozen=True)
class Wanted:
    """Which rows; empty means any."""

    datasets: Sequence[str] = ()
    models: Sequence[str] = ()
    kinds: Sequence[str] = ()
    name: str | None = None  # a tag
    where: Sequence[Callable[[StoredRow], bool]] = ()  # what else must be so of each


def stored_files(root: Path) -> list[Path]:
    """The files of a folder of results that may be rows, by name."""
    return sorted(root.glob("*/*.json"))


def read_stored(
    root: Path,
    paths: Iterable[Path],
    wanted: Wanted = Wanted(),
) -> tuple[list[StoredRow], list[Problem]]:
    """Stored rows, by data set, encoder, kind and seed.

    Args:
        root: the folder of results, whose index is used.
        paths: of rows' JSON files.
        wanted: which.

    Returns:
        The rows, without scores, and the files that aren't any, or whose scores are missing or
        damaged; those rows are whole, and have a mark.
    """
    with _uncollected():
        rows, problems = _read_all(root, paths, wanted)
    kept = _split_by_one_name(choose_named(wanted.models, rows, model_names))
    problems += [Problem(r.path, f"its {r.lacking}") for r in kept if r.lacking and r.path]
    return sorted(kept, key=_place), problems


def _split_by_one_name(rows: Sequence[StoredRow]) -> list[StoredRow]:
    """A split that a rule makes and a file keeps is one, and called as the file.

    ``--split 60/20/20 --split-file F`` writes the file, and its row names the rule; later ones name F.
    """

    def which(of: StoredRow) -> tuple[str, str]:
        return of.row.encoded.dataset, str(of.row.posed.split.get("digest"))

    of_files: dict[tuple[str, str], Mapping[str, Any]] = {}
    for of in rows:
        if of.row.posed.split.get("rule") == "file":
            of_files.setdefault(which(of), of.row.posed.split)
    found = []
    for of in rows:
        split = of_files.get(which(of), of.row.posed.split)
        if split != of.row.posed.split and not of.row.posed.fold:
            posed = dataclasses.replace(of.row.posed, split=split)
            of = dataclasses.replace(of, row=dataclasses.replace(of.row, posed=posed))
        found.append(of)
    return found


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without the search for cycles: of the millions of objects that are made here none is let go,
    and to look at them again and again takes a quarter of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _read_all(
    root: Path, paths: Iterable[Path], wanted: Wanted
) -> tuple[list[StoredRow], list[Problem]]:
    """The rows that are wanted, but for their encoder, and the files that are none."""
    rows, problems, index = [], [], RowIndex(root)
    for path in paths:
        cure = _cure(root, path)
        try:
            content = index.read(path)
            row = from_json(content.row)
            if content.lacking:
                row = dataclasses.replace(row, marks=(*row.marks, content.lacking))
            written = min(max(content.written, 0), LATEST)
            found = StoredRow(row, path, content.row, written, content.lacking)
        except OSError as error:
            is_odd = error.errno in NO_FILE and os.path.lexists(path)
            why = f"not a regular file; {cure}" if is_odd else error.strerror or str(error)
            problems.append(Problem(path, FOLDER if cure != CURE and path.is_dir() else why))
        except BrokenRow as error:
            problems.append(Problem(path, f"{error}; {cure}"))
        else:
            rows += [found] if _is_wanted(found, wanted) else []
    index.save()
    return rows, problems


def _cure(root: Path, path: Path) -> str:
    """What becomes of a file that holds no row: only one where rows are written is to be deleted."""
    is_ours = path.suffix == ".json" and path.absolute().parent.parent == root.absolute()
    return CURE if is_ours else EXPECTED


def _is_wanted(found: StoredRow, wanted: Wanted) -> bool:
    e, kind = found.row.encoded, found.row.answered.kind
    return (
        (not wanted.datasets or e.dataset in wanted.datasets)
        and (not wanted.kinds or kind in wanted.kinds)
        and (wanted.name is None or wanted.name in found.names)
        and all(is_so(found) for is_so in wanted.where)
    )


def model_names(found: StoredRow) -> tuple[str, ...]:
    """What --model may call the encoder of a row."""
    e = found.row.encoded
    if e.joined:
        return joined_names(e)
    return e.label, e.model, short_label(e.label)


def _place(found: StoredRow) -> tuple[Any, ...]:
    row = found.row
    e, settings = row.encoded, row.answered.settings
    last = (
        str(settings.get("mode", "")),
        settings.get("layer", -1),
        str(settings.get("pool", "")),
    )
    return (
        e.dataset,
        e.model,
        e.label,
        int(e.size or 0),
        row.answered.kind,
        *(str(part).zfill(4) for part in last),
        int(row.answered.shots or 0),
        row.question,
        row.posed.fold,
        int(row.answered.training_seed or 0),
    )
