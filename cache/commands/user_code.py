"""Running a user's own code: a name in a file, or an entry point of an installed package.

It is run only where a flag names it, once a run, and whatever it does wrong becomes one line.
"""

import hashlib
import importlib
import importlib.metadata
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from cache.commands.names import first_line
from cache.errors import RequestError
from cache.files import no_file

Function = Callable[..., Any]
Facts = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """What a flag takes of a user."""

    flag: str  # "--model"
    what: str  # "function" or "class", for messages and for the facts
    group: str  # of entry points


@contextmanager
def user_code(name: str, wanted: Wanted) -> Iterator[tuple[Function, Facts, Path]]:
    """A user's function or class, while it and what it makes can import what is beside its file.

    Args:
        name: "FILE.py:NAME", or the name of an entry point.
        wanted: which of the two, and for which flag.

    Yields:
        The function; what of it makes other numbers, complete when the block ends, for what it
        makes may import too; and its folder.

    Raises:
        RequestError: it can't be had.
    """
    path, _, attribute = name.rpartition(":")
    if not path.endswith(".py"):
        yield _find_entry_point(name, wanted)
        return
    file = Path(os.path.realpath(Path(path).expanduser()))
    if not file.is_file():
        form = f"FILE.py:{wanted.what.upper()}"
        raise RequestError(f"{no_file(Path(path))}; {wanted.flag} takes {form}")
    with _imports_beside(file.parent):
        module, source = _run_file(file, name)
        facts: Facts = {wanted.what: attribute}
        yield _pick(module, attribute, name, wanted.what), facts, file.parent
        facts["code"] = _code_digest(source, _modules_in({file.parent}))


def _run_file(file: Path, name: str) -> tuple[ModuleType, bytes]:
    """The user's file as a module, and its very bytes."""
    # Not through importlib, which may run a compiled copy that is a second older than an edit.
    source = file.read_bytes()
    module = ModuleType(f"{MODULE_PREFIX}{file.stem}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(source, str(file), "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:  # the user's code, failing in any way
        raise RequestError(f"{name}: {file.name} fails: {where(error, file.parent)}") from error
    return module, source


def _pick(module: ModuleType, attribute: str, name: str, what: str) -> Function:
    function = getattr(module, attribute, None)
    if callable(function):
        return function
    own = [n for n, f in vars(module).items() if getattr(f, "__module__", "") == module.__name__]
    words = f"it has {', '.join(own)}" if own else "it has none"
    raise RequestError(f"{name}: no {what} {attribute!r} in this file; {words}")


def where(error: BaseException, folder: Path | None = None) -> str:
    """An exception in one line, with the last line of the user's own files it came through."""
    inside = [
        f"{Path(frame.filename).name}, line {frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if folder and Path(frame.filename).is_relative_to(folder)
        if "site-packages" not in frame.filename
    ]
    # A SyntaxError says itself where it is.
    at = f" ({inside[-1]})" if inside and not isinstance(error, SyntaxError) else ""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    words = first_line(error)
    if len(lines) > 1 and words.endswith(":"):  # torch's "Error(s) in loading state_dict for X:"
        words = f"{words} {lines[1]}"
    return f"{type(error).__name__}: {words}{at}"


# ---------------------------------------------------------------------------- packages


def _find_entry_point(name: str, wanted: Wanted) -> tuple[Function, Facts, Path]:
    """A package's function or class, what of it makes other numbers, and its folder."""
    points = {  # an editable installation can be listed twice
        (point.value, point.dist.name if point.dist else ""): point
        for point in importlib.metadata.entry_points(group=wanted.group, name=name)
    }
    if not points:
        raise RequestError(f"no entry point {name!r} in the group {wanted.group}")
    if len(points) > 1:
        owners = " and ".join(sorted({owner for _, owner in points}))
        raise RequestError(
            f"{name!r} is offered more than once, by {owners}; uninstall all but one"
        )
    point = next(iter(points.values()))
    version = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"
    try:
        function = point.load()
    except (Exception, SystemExit) as error:  # somebody's package, failing in any way
        raise RequestError(f"the entry point {name} of {version} fails: {where(error)}") from error
    if not callable(function):
        raise RequestError(f"the entry point {name} of {version} is no {wanted.what}")
    facts = {wanted.what: point.value, "distribution": version}
    file = Path()
    with suppress(TypeError):  # an object that can be called has no file
        file = Path(inspect.getsourcefile(inspect.unwrap(function)) or "")
    if file.is_file():  # the version of an editable installation doesn't tell of an edit
        facts["code"] = _code_digest(file.read_bytes(), {})
    return function, facts, file.parent


# ---------------------------------------------------------------------------- imports beside it


MODULE_PREFIX = "medprobe_user_"
OURS = ("cache", "extract", "finetune", "probe")

_folders: set[Path] = set()  # of the users' files that this process ran


@contextmanager
def _imports_beside(folder: Path) -> Iterator[None]:
    """Imports next to the user's file work, as if Python had been started there.

    What was imported from such folders before is forgotten first: two folders may have modules of
    one name, and an edited module must be read again.
    """
    _folders.add(folder)
    for name in _modules_in(_folders):
        del sys.modules[name]
    importlib.invalidate_caches()
    with beside(folder):
        yield


@contextmanager
def beside(folder: Path) -> Iterator[None]:
    """Imports next to a user's file work; what was imported there stays as it is."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with suppress(ValueError):  # the user's code may have changed the list
            sys.path.remove(str(folder))


def _modules_in(folders: set[Path]) -> dict[str, ModuleType]:
    """Imported modules that are, or whose outermost package is, directly in one of some folders."""
    here = Path(__file__).resolve().parents[2]
    ignored = {"__main__", *(OURS if here in folders else ())}
    inside = {
        name
        for name, module in list(sys.modules.items())
        if not name.startswith(MODULE_PREFIX)
        and name not in ignored
        and "." not in name
        and _folder_of(module) in folders
    }
    return {n: m for n, m in list(sys.modules.items()) if n.partition(".")[0] in inside}


def _folder_of(module: ModuleType) -> Path | None:
    """Where a module that isn't part of a package, or a package, lies."""
    facts = getattr(module, "__dict__", {})  # not its attributes: asking a lazy one would run it
    paths = [Path(path) for path in facts.get("__path__") or ()]
    if paths:
        return paths[0].parent
    return Path(facts["__file__"]).parent if facts.get("__file__") else None


def _code_digest(source: bytes, beside: Mapping[str, ModuleType]) -> str:
    """Of the user's file and the modules beside it; not of where they are."""
    digest = hashlib.sha256(source)
    for name in sorted(beside):
        file = Path(getattr(beside[name], "__file__", None) or "")
        if file.is_file():
            digest.update(f"\0{name}\0".encode() + file.read_bytes())
    return f"sha256:{digest.hexdigest()}"
