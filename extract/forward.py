"""The hot path: images are decoded, cut, sent to the device, and their features stored.

``compute_blocks`` makes features and ``write_blocks`` stores them; neither knows of the other.
"""

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache import RequestError
from cache.format.spec import LOOKS
from cache.format.units import unit_rows
from cache.store import FeatureWriter, check_storable
from extract.config import ExtractConfig, default_batch_size
from extract.datasets.dataset import Dataset, Prepare, as_stored
from extract.encoders.encoder import Encoder
from extract.machine.prefetch import prefetch
from extract.machine.stopwatch import Stopwatch
from extract.prepare.transforms import Transform


@dataclass
class Block:
    """The features of one unit, on the device that they were computed on."""

    unit: int
    parts: list[dict[str, Tensor]] = field(default_factory=list)  # of each batch: name -> (B, D)
    looks: list[Mapping[str, NDArray[np.uint8]]] = field(default_factory=list)  # of each piece

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Name -> (n, D) of the unit's n images, and their looks; waits for the device."""
        names = self.parts[0]
        arrays = {n: torch.cat([part[n] for part in self.parts]).cpu().numpy() for n in names}
        return arrays | {n: np.concatenate([look[n] for look in self.looks]) for n in LOOKS}


def compute_blocks(
    encoder: Encoder,
    dataset: Dataset,
    transform: Transform,
    units: Sequence[int],
    config: ExtractConfig,
    note: Callable[[int], None] = lambda n: None,
    watch: Stopwatch | None = None,
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

    Raises:
        RequestError: a value can't be stored, or the device's memory is too small.
    """
    device = next(encoder.model.parameters()).device
    batch_size = config.batch_size or default_batch_size(device.type, encoder.description.size)
    prepare = transform.on_host if transform.backend == "pil" else as_stored
    pieces = decode_pieces(dataset, units, batch_size, pin=device.type == "cuda", prepare=prepare)
    batches = _Batches(encoder, transform, device, batch_size, watch or Stopwatch(device))
    checked = False
    block = None
    with closing(prefetch(pieces, 1 if dataset.piece_bytes else 2)) as ahead:
        for unit, is_last, images, looks in ahead:
            block = block or Block(unit)
            new = list(batches.run(images, is_last))
            if not checked and new:  # the first batch tells what the long run would end with
                for name, vectors in new[0].items():
                    check_storable(name, vectors.cpu().numpy(), config.store)
                checked = True
            note(sum(len(next(iter(part.values()))) for part in new))
            block.parts += new
            block.looks.append(looks)
            if is_last:
                yield block
                block = None


def write_blocks(writer: FeatureWriter, blocks: Generator[Block]) -> None:
    """Store blocks, each in a thread of its own while the next one is computed.

    Raises:
        RequestError, CacheError, OSError: of whoever makes them, or of the writer.
    """
    pending: Future[None] | None = None
    with closing(blocks), ThreadPoolExecutor(1, "store") as storer:
        for block in blocks:
            if pending:
                pending.result()  # at most one unit waits: memory stays flat
            pending = storer.submit(_store, writer, block)
        if pending:
            pending.result()


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
    ) -> None:
        self._encoder, self._transform = encoder, transform
        self._device, self._batch_size, self._watch = device, batch_size, watch
        self._inputs: list[Tensor] = []  # of the batch that isn't full yet

    def run(self, images: Sequence[Tensor], is_last: bool) -> Iterator[dict[str, Tensor]]:
        """Features of each batch that becomes full, or that is the last of a unit.

        Args:
            images: (n, H, W[, 3]) each, more of the unit.
            is_last: whether the unit ends with them.
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
                return self._encoder(batch)


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
    units: Sequence[int],
    batch_size: int,
    *,
    pin: bool,
    prepare: Prepare = as_stored,
) -> Iterator[tuple[int, bool, list[Tensor], Mapping[str, NDArray[np.uint8]]]]:
    """Images, decoded piece by piece; none crosses a unit.

    Args:
        dataset: the images.
        units: which of its units.
        batch_size: a piece is at most so many images, but of volumes.
        pin: copy them to memory from which a GPU reads at once.
        prepare: what is done to them on the host.

    Yields:
        unit, whether this is its last piece, (n, H, W) or (n, H, W, 3) for neighbours of one shape,
        and their looks.
    """
    ranges, owners = [], []
    for unit in units:
        whole = unit_rows(unit, dataset.n_rows)
        cut = dataset.cut([whole], batch_size)
        ranges += cut
        owners += [(unit, last == whole[1]) for _, last in cut]
    for (unit, is_last), piece in zip(owners, dataset.pieces(ranges, prepare), strict=True):
        images = [torch.from_numpy(np.require(i, requirements=["C", "W"])) for i in piece.images]
        yield unit, is_last, [i.pin_memory() for i in images] if pin else images, piece.looks
