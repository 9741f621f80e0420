"""What a training leaves on disk: whole at any moment, and enough to go on from.

A trial is one training: one encoder's rate, seed and episode. Its folder holds

    settings.json          what is trained: every setting, rate and seed, and which features it
                           begins from
    last.pt                what going on needs: weights that train, optimiser, random state, place
    best-{n}.safetensors   weights that train, after n steps, the best on val so far
    log.jsonl              a line for each check: which rate and seed is tried, the rates now, loss
                           since the line before, val, images/s; and one where training diverged
    encoder.safetensors    of a finished trial, where the encoder trained: for ``extract --weights``
    head.safetensors       of a finished trial: the head

Every file is written beside and renamed, after its bytes have reached the disk; ``last.pt`` names
the best file that belongs to it, and is written after it. So a kill at any moment leaves a pair
that fits together. Files are read without pickled code.
"""

import contextlib
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cache.commands.names import format_bytes
from cache.errors import BrokenCache, RequestError
from cache.files import append, move_whole, remove_leftovers, work_folder, write_whole
from extract.encoders.weights.files import CHECKSUM, check_zip, tensors_crc32
from finetune.ranks import Ranks

LAST, LOG, LOCK = "last.pt", "log.jsonl", ".lock"
SETTINGS = "settings.json"
ENCODER, HEAD = "encoder.safetensors", "head.safetensors"
OLD_CHECKSUM = "crc32"  # as the best weights' metadata had it once


@dataclass
class Position:
    """How far a training has come."""

    iteration: int = 0  # steps taken
    epoch: int = 0  # of the next step, and
    batch: int = 0  # the next step's number within it
    checks: list[dict[str, Any]] = field(default_factory=list)  # as log.jsonl has them
    best: int | None = None  # the iteration after which val was best
    done: bool = False
    seconds: float = 0.0  # of training, val checks apart
    n_images: int = 0  # that went through the encoder in training
    loss: float = 0.0  # sum over the steps since the last check, and
    n_losses: int = 0  # how many they are
    micro_batch: int = 0
    halved: list[int] = field(default_factory=list)  # micro batches that memory was too small for


class Checkpoints:
    """The files of one training, in its folder.

    Args:
        folder: is made where it isn't there.
        question: what makes this training another than any other; a folder of another question is
            refused.
    """

    def __init__(self, folder: Path, question: Mapping[str, Any]) -> None:
        self.folder, self.question = folder, json.loads(json.dumps(question))

    @contextlib.contextmanager
    def held(self, ranks: Ranks) -> Iterator[None]:
        """Hold the folder: two runs must not write one training. The first rank holds it for all.

        Raises:
            RequestError: another process holds it, or the folder can't be written.
        """
        if not ranks.is_first:
            yield
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / LOCK)
            lock.acquire(timeout=0)
        except Timeout:
            raise RequestError(
                f"another process is training in {self.folder}; wait for it, or train elsewhere "
                "with --runs DIR"
            ) from None
        except OSError as error:
            raise RequestError(
                f"can't write to {self.folder} ({error.strerror}); choose another place with "
                "--runs DIR"
            ) from error
        try:
            remove_leftovers(self.folder)
            if not (self.folder / SETTINGS).exists():  # for people: nothing reads it
                with _writing(self.folder / SETTINGS) as file:
                    file.write(f"{json.dumps(self.question, indent=1)}\n".encode())
            yield
        finally:
            lock.release()

    def check_room(self, n_bytes: int) -> None:
        """Refuse before a training what the disk can't hold after hours of it.

        Args:
            n_bytes: that its files take at most, with those half-written.

        Raises:
            RequestError: the disk has less, beside what the folder holds already.
        """
        free = shutil.disk_usage(self.folder).free
        free += sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())
        if free < n_bytes:
            raise RequestError(
                f"the checkpoints of this training take up to {format_bytes(n_bytes)}, and "
                f"{self.folder} has {format_bytes(free)}; free some space, or choose another place "
                "with --runs DIR"
            )

    def forget(self) -> None:
        """Throw away what an earlier run left, for a new one."""
        # The last first: without what it names it would say that the training is done.
        (self.folder / LAST).unlink(missing_ok=True)
        for path in self.folder.glob("*"):
            if path.name == LOG or path.suffix == ".safetensors":
                path.unlink()

    def save(self, place: Position, state: Mapping[str, Any]) -> None:
        """Write ``last.pt``; best files that it doesn't name are removed."""
        content = {"question": json.dumps(self.question), "place": json.dumps(asdict(place))}
        with _writing(self.folder / LAST) as file:
            torch.save({**content, **state}, file)
        for path in self.folder.glob("best-*.safetensors"):
            if path != self.best_path(place):
                path.unlink()

    def load(self) -> tuple[Position, dict[str, Any]] | None:
        """What ``save`` wrote; None where there is nothing yet.

        Raises:
            BrokenCache: the file is damaged.
            RequestError: it belongs to another question.
        """
        path = self.folder / LAST
        if not path.exists():
            return None
        try:
            check_zip(path)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about how a foreign file was pickled
                content = torch.load(path, map_location="cpu", weights_only=True)
            question = json.loads(content.pop("question"))
            place = Position(**json.loads(content.pop("place")))
        except Exception as error:  # a garbled file can break its reader in any way
            if isinstance(error, OSError) and error.filename:
                raise  # the disk, not the content
            raise BrokenCache(
                f"{path} is damaged ({type(error).__name__}); {self._cure}"
            ) from error
        if question != self.question:
            raise RequestError(f"{path} belongs to a training with other settings; {self._cure}")
        return place, content

    @property
    def _cure(self) -> str:
        """What to do where files can't be used: of all trials of a command this one alone is lost."""
        return "delete its folder and run again, which trains this one anew"

    def best_path(self, place: Position) -> Path | None:
        """Where the best weights are."""
        return None if place.best is None else self.folder / f"best-{place.best:07d}.safetensors"

    def save_best(self, iteration: int, tensors: Mapping[str, Tensor]) -> None:
        """Write the weights that are the best so far, with their checksum."""
        path = self.folder / f"best-{iteration:07d}.safetensors"
        save_tensors(path, tensors)

    def load_best(self, place: Position) -> dict[str, Tensor]:
        """The best weights.

        Raises:
            BrokenCache: they are gone or damaged.
        """
        path = self.best_path(place)
        assert path, "nothing was checked yet"
        try:
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}
                metadata = file.metadata() or {}
        except (OSError, SafetensorError) as error:
            raise BrokenCache(f"{path} is missing or damaged; {self._cure}") from error
        if metadata.get(CHECKSUM, metadata.get(OLD_CHECKSUM)) != tensors_crc32(tensors):
            raise BrokenCache(f"{path} doesn't match its checksum; {self._cure}")
        return tensors

    def log(self, line: Mapping[str, Any]) -> None:
        """Add a line to the log."""
        append(self.folder / LOG, json.dumps(line) + "\n")

    def rewind_log(self, place: Position) -> None:
        """Write the log as it was at a checkpoint, whatever has become of it since."""
        text = "".join(json.dumps(line) + "\n" for line in place.checks)
        with _writing(self.folder / LOG) as file:
            file.write(text.encode())


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file with its checksum; tensors that share memory are written apart."""
    apart = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    # It writes by path alone, and not to the file that it finds there but to one of its own.
    with _advised(path), work_folder(path) as folder:
        made = folder / path.name
        save_file(apart, made, {CHECKSUM: tensors_crc32(apart), **(metadata or {})})
        move_whole(made, path)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[IO[bytes]]:
    """``write_whole``, whose errors say what to do."""
    with _advised(path), write_whole(path) as file:
        yield file


@contextlib.contextmanager
def _advised(path: Path) -> Iterator[None]:
    """Errors of writing ``path`` with what to do about them.

    Raises:
        OSError: it can't be written.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # torch's and safetensors' own
        why = getattr(error, "strerror", None) or str(error)
        if "inline_container" in why:  # torch's writer, of a write that came out short
            why = "the disk took only a part of it"
        raise OSError(
            f"can't write {path}: {why}; free some space, or choose another place with --runs DIR"
        ) from error
