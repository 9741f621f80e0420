"""The hot path: images are decoded, cut, sent to the device, and their features stored.

``compute_blocks`` makes features and ``write_blocks`` stores them; neither knows of the other.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache import RequestError
from cache.format.spec import LOOKS, PICTURE
from cache.format.units import UNIT_ROWS, block_of, unit_rows
from cache.store import FeatureWriter, check_storable
from extract.config import ExtractConfig, default_batch_size
from extract.datasets.dataset import Dataset, Prepare, as_stored
from extract.encoders.encoder import Encoder
from extract.machine.prefetch import prefetch
from extract.machine.stopwatch import Stopwatch
from extract.prepare.transforms import Transform

V = TypeVar("V", Tensor, NDArray[np.uint8])


@dataclass
class Block:
    """The features of one unit, on the device that they were computed on."""

    unit: int
    parts: list[dict[str, Tensor]]  # of each batch: name -> (B, D), of tokens (B, h, w, D)
    looks: list[dict[str, NDArray[np.uint8]]]  # of each piece

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Name -> (n, ...) of the unit's n images, and their looks; waits for the device."""
        names = self.parts[0]
        arrays = {n: torch.cat([part[n] for part in self.parts]).cpu().numpy() for n in names}
        return arrays | {n: np.concatenate([look[n] for look in self.looks]) for n in LOOKS}


@dataclass(frozen=True)
class Run:
    """Neighbouring rows of one block of 256, from the first of a batch to the last of another.

    A batch is the same ones whichever units are there already, so that a resumed file equals an
    uninterrupted one: of a batch that reaches over the units to do, the other rows are dropped.
    """

    start: int
    stop: int
    units: tuple[tuple[int, int, int], ...]  # to do: number, first row, row behind the last

    def n_wanted(self, start: int, stop: int) -> int:
        """How many of some rows are of units to do."""
        return sum(max(0, min(stop, e) - max(start, s)) for _, s, e in self.units)


def plan_runs(units: Sequence[int], rows: int, n_rows: int, batch_size: int) -> list[Run]:
    """The rows to compute for some units.

    Args:
        units: ascending.
        rows: of a unit.
        n_rows: of the data set.
        batch_size: batches are cut from the beginning of a block of 256 rows.
    """
    runs: list[Run] = []
    for unit in units:
        first, last = unit_rows(unit, n_rows, rows)
        start, stop = unit_rows(block_of(unit, rows), n_rows)
        begin = first - (first - start) % batch_size
        end = min(stop, last + (start - last) % batch_size)
        own = (unit, first, last)
        if runs and start < runs[-1].stop and begin <= runs[-1].stop:
            runs[-1] = Run(runs[-1].start, end, (*runs[-1].units, own))
        else:
            runs.append(Run(begin, end, (own,)))
    return runs


def compute_blocks(
    encoder: Encoder,
    dataset: Dataset,
    transform: Transform,
    units: Sequence[int],
    config: ExtractConfig,
    note: Callable[[int], None] = lambda n: None,
    watch: Stopwatch | None = None,
    rows: int = UNIT_ROWS,
    *,
    pictures: bool = False,
) -> Generator[Block]:
    """Run the encoder over some units of a data set; stores nothing.

    Args:
        encoder: with its weights, on its device.
        dataset: the images.
        transform: of the data set.
        units: which of its units.
        config: for batch size and the type that will be stored.
        note: told of every few images that are done.
        watch: of its device; runs while the encoder does.
        rows: of a unit.
        pictures: with what the encoder sees of each row, see ``Transform.pictures``.

    Yields:
        Each unit as soon as its last row is there.

    Raises:
        RequestError: a value can't be stored, or the device's memory is too small.
    """
    device = next(encoder.model.parameters()).device
    batch_size = config.batch_size or default_batch_size(device.type, encoder.description.size)
    prepare = transform.on_host if transform.backend == "pil" else as_stored
    runs = plan_runs(units, rows, dataset.n_rows, batch_size)
    pieces = decode_pieces(dataset, runs, batch_size, pin=device.type == "cuda", prepare=prepare)
    watch = watch or Stopwatch(device)
    batches = _Batches(encoder, transform, device, batch_size, watch, pictures)
    checked = False
    features, looks = _Rows[Tensor](0), _Rows[NDArray[np.uint8]](0)
    waiting: deque[tuple[int, int, int]] = deque()
    with closing(prefetch(pieces, 1 if dataset.piece_bytes else 2)) as ahead:
        for run, is_last, images, seen in ahead:
            if not waiting:
                features, looks = _Rows[Tensor](run.start), _Rows[NDArray[np.uint8]](run.start)
                waiting.extend(run.units)
            looks.add(seen)
            for part in batches.run(images, is_last):
                if not checked:  # the first batch tells what the long run would end with
                    for name, vectors in part.items():
                        check_storable(name, vectors.cpu().numpy(), config.store)
                    checked = True
                start = features.stop
                features.add(part)
                note(run.n_wanted(start, features.stop))
                while waiting and waiting[0][2] <= features.stop:
                    unit, first, last = waiting.popleft()
                    yield Block(unit, features.take(first, last), looks.take(first, last))


class _Rows(Generic[V]):
    """What came of neighbouring rows, until all of a unit is there.

    Args:
        start: the first row.
    """

    def __init__(self, start: int) -> None:
        self.stop = start  # behind the last row that came
        self._parts: deque[tuple[int, Mapping[str, V]]] = deque()

    def add(self, part: Mapping[str, V]) -> None:
        """The next rows: name -> one value each."""
        self._parts.append((self.stop, part))
        self.stop += len(next(iter(part.values())))

    def take(self, start: int, stop: int) -> list[dict[str, V]]:
        """Rows start to stop - 1; what lies before them is forgotten."""
        taken = []
        while self._parts and (at := self._parts[0][0]) < stop:
            part = self._parts[0][1]
            end = at + len(next(iter(part.values())))
            if end > start:
                own = slice(max(0, start - at), stop - at)
                taken.append({name: values[own] for name, values in part.items()})
            if end > stop:
                break
            self._parts.popleft()
        return taken


def write_blocks(writer: FeatureWriter, blocks: Generator[Block], ahead: int = 1) -> None:
    """Store blocks, each in a thread of its own while the next ones are computed.

    Memory is flat: besides the batch that is computed, one unit is stored and one waits. A unit of
    tokens is under 64 MB as stored, and in float32 twice that of float16, four times that of int8:
    176 and 253 MB more than a run of pools were measured, of 300 images as of 1200.

    Args:
        writer: of their file.
        blocks: in the order of their units.
        ahead: so many may be with the thread: one, or as many as a batch brings at once.

    Raises:
        RequestError, CacheError, OSError: of whoever makes them, or of the writer.
    """
    pending: deque[Future[None]] = deque()
    with closing(blocks), ThreadPoolExecutor(1, "store") as storer:
        for block in blocks:
            if len(pending) == ahead:
                pending.popleft().result()
            pending.append(storer.submit(_store, writer, block))
        for stored in pending:
            stored.result()


def _store(writer: FeatureWriter, block: Block) -> None:
    writer.write_unit(block.unit, block.arrays())


class _Batches:
    """Images become batches, as they come in; batches become features."""

    def __init__(
        self,
        encoder: Encoder,
        transform: Transform,
        device: torch.device,
        batch_size: int,
        watch: Stopwatch,
        pictures: bool,
    ) -> None:
        self._encoder, self._transform = encoder, transform
        self._device, self._batch_size, self._watch = device, batch_size, watch
        self._pictures = pictures
        self._inputs: list[Tensor] = []  # of the batch that isn't full yet

    def run(self, images: Sequence[Tensor], is_last: bool) -> Iterator[dict[str, Tensor]]:
        """Features of each batch that becomes full, or that is the last of a run.

        Args:
            images: (n, H, W[, 3]) each, more of the run.
            is_last: whether the run ends with them.
        """
        for group in images:
            left = group
            while len(left):
                room = self._batch_size - sum(map(len, self._inputs))
                with naming_memory(self._encoder, self._device, self._batch_size):
                    x = left[:room].to(self._device, non_blocking=True)
                    self._inputs.append(self._transform(x))
                left = left[room:]
                if sum(map(len, self._inputs)) == self._batch_size:
                    yield self._flush()
        if is_last and self._inputs:
            yield self._flush()

    def _flush(self) -> dict[str, Tensor]:
        inputs, self._inputs = self._inputs, []
        with naming_memory(self._encoder, self._device, self._batch_size):
            batch = inputs[0] if len(inputs) == 1 else torch.cat(inputs)
            with self._watch.running():
                features = self._encoder(batch)
            return features | ({PICTURE: self._transform.pictures(batch)} if self._pictures else {})


@contextlib.contextmanager
def naming_memory(encoder: Encoder, device: torch.device, batch_size: int) -> Iterator[None]:
    """A device without memory becomes a message with a cure."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        cure = "a smaller --size, --precision bf16, or --device cpu"
        if batch_size > 1:
            cure = f"--batch-size {batch_size // 2}"
        raise RequestError(
            f"{device} has too little memory for {batch_size} images of "
            f"{encoder.description.size} px at once; use {cure}"
        ) from error


def decode_pieces(
    dataset: Dataset,
    runs: Sequence[Run],
    batch_size: int,
    *,
    pin: bool,
    prepare: Prepare = as_stored,
) -> Iterator[tuple[Run, bool, list[Tensor], Mapping[str, NDArray[np.uint8]]]]:
    """Images, decoded piece by piece; none crosses a run.

    Args:
        dataset: the images.
        runs: which of its rows.
        batch_size: a piece is at most so many images, but of volumes.
        pin: copy them to memory from which a GPU reads at once.
        prepare: what is done to them on the host.

    Yields:
        run, whether this is its last piece, (n, H, W) or (n, H, W, 3) for neighbours of one shape,
        and their looks.
    """
    ranges, owners = [], []
    for run in runs:
        cut = dataset.cut([(run.start, run.stop)], batch_size)
        ranges += cut
        owners += [(run, last == run.stop) for _, last in cut]
    for (run, is_last), piece in zip(owners, dataset.pieces(ranges, prepare), strict=True):
        images = [torch.from_numpy(np.require(i, requirements=["C", "W"])) for i in piece.images]
        yield run, is_last, [i.pin_memory() for i in images] if pin else images, piece.looks
