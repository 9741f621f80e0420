"""Data sets of the user's own, named once: ``extract data add NAME csv:FILE ...``.

One small JSON file for each, in the user's own settings folder, so that later commands say
``--data NAME`` wherever they are run.
"""

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from cache.errors import RequestError
from cache.files import write_whole
from extract.datasets.arrays.medmnist import FLAGS
from extract.datasets.arrays.medsegbench import NAMES as MEDSEG
from extract.datasets.files.folders import list_folder
from extract.datasets.files.listing import Listing
from extract.datasets.files.options import TableOptions
from extract.datasets.files.seg_folders import list_seg_folder
from extract.datasets.files.tables import list_table

VERSION = 1
KINDS = {"csv": list_table, "folder": list_folder, "seg-folder": list_seg_folder}
FIELDS = {"version", "kind", "path", "options"}
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
RESERVED = (
    "all",
    "all3d",
    "demo",
    "demo-masks",
    *FLAGS,
    *MEDSEG,
)  # what these words mean to --data is settled


@dataclass(frozen=True)
class Definition:
    """A data set as its user described it."""

    name: str
    kind: str  # one of KINDS
    path: Path  # absolute: of the table or the folder
    options: TableOptions

    def list(self) -> Listing:
        """Its images, under its own name.

        Raises:
            RequestError: they aren't there any more, or not as they were described.
        """
        return KINDS[self.kind](self.path, options=self.options, name=self.name)


def definitions_dir() -> Path:
    """``$MEDPROBE_DATASETS``, else ``medprobe/datasets`` in the user's settings folder."""
    named = os.environ.get("MEDPROBE_DATASETS")
    if named:
        return Path(named)
    settings = os.environ.get("XDG_CONFIG_HOME")
    return (Path(settings) if settings else Path.home() / ".config") / "medprobe" / "datasets"


def save(
    name: str,
    kind: str,
    path: Path,
    options: TableOptions | None = None,
    reserved: Iterable[str] = (),
) -> Definition:
    """Keep a definition.

    Args:
        name: what ``--data`` will call it.
        kind: one of KINDS.
        path: of the table or the folder; made absolute, and so is the options' root.
        options: what is said of its columns.
        reserved: names that are taken besides ``RESERVED``: those of recipes.

    Raises:
        RequestError: the name can't be used, or stands for another definition already.
    """
    if kind not in KINDS:
        raise RequestError(f"a definition is of {' or '.join(KINDS)}, not {kind!r}")
    if not NAME.fullmatch(name):
        raise RequestError(
            f"{name!r} can't name a data set; expected a-z, 0-9, dot, dash and underscore, a letter "
            "or digit first"
        )
    if name in (*RESERVED, *reserved):
        raise RequestError(f"{name} is the name of a published set; choose another")
    options = options or TableOptions()
    if options.root is not None:
        options = replace(options, root=str(Path(options.root).expanduser().absolute()))
    definition = Definition(name, kind, path.expanduser().absolute(), options)
    known = load(name)
    if known is not None and known != definition:
        raise RequestError(
            f"{name} is {known.kind}:{known.path} already; `extract data remove {name}` first, or "
            "choose another name"
        )
    content = {
        "version": VERSION,
        "kind": kind,
        "path": str(definition.path),
        "options": options.as_json(),
    }
    file = _path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(file) as out:
        out.write(f"{json.dumps(content, indent=1)}\n".encode())
    return definition


def load(name: str) -> Definition | None:
    """The definition of this name; None where there is none.

    Raises:
        RequestError: its file is damaged, or of another version.
    """
    path = _path(name)
    # A name that no definition can have is no path either: "../x" reads nothing.
    if not NAME.fullmatch(name) or not path.is_file():
        return None
    try:
        return _parse(name, path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:  # RequestError is a ValueError
        raise RequestError(
            f"{path} is no definition of a data set ({error}); `extract data remove {name}` and add "
            "it anew"
        ) from error


def names() -> tuple[str, ...]:
    """All that are defined, sorted."""
    folder = definitions_dir()
    stems = (path.name.removesuffix(".json") for path in folder.glob("*.json") if path.is_file())
    return tuple(sorted(stem for stem in stems if NAME.fullmatch(stem)))


def remove(name: str) -> None:
    """Forget a definition; images and features stay.

    Raises:
        RequestError: there is none of this name.
    """
    if name not in names():
        known = ", ".join(names()) or "none"
        raise RequestError(f"no data set {name!r} was added; there are: {known}")
    _path(name).unlink()


def _path(name: str) -> Path:
    return definitions_dir() / f"{name}.json"


def _parse(name: str, text: str) -> Definition:
    content = json.loads(text)
    if not isinstance(content, dict):
        raise RequestError("expected a JSON object")
    if content.get("version") != VERSION:
        raise RequestError(f"expected version {VERSION}, found {content.get('version')!r}")
    if content.keys() != FIELDS:
        odd = ", ".join(sorted(content.keys() ^ FIELDS))
        raise RequestError(f"expected {', '.join(sorted(FIELDS))}; missing or unknown: {odd}")
    kind, path, options = content["kind"], content["path"], content["options"]
    if not isinstance(kind, str) or kind not in KINDS:
        raise RequestError(f"unknown kind {kind!r}")
    if not (isinstance(path, str) and Path(path).is_absolute()):
        raise RequestError(f"the path must be absolute, found {path!r}")
    if not isinstance(options, dict):
        raise RequestError(f"expected options as a JSON object, found {options!r}")
    return Definition(name, kind, Path(path), TableOptions.from_json(options))
