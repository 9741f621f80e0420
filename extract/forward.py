"""The hot path: images are decoded, cut, sent to the device, and their features stored."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing

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
from extract.machine.progress import Progress
from extract.prepare.transforms import Transform


def compute_units(
    encoder: Encoder,
    dataset: Dataset,
    writer: FeatureWriter,
    units: Sequence[int],
    config: ExtractConfig,
    transform: Transform,
    progress: Progress,
) -> None:
    """Run the encoder over some units of a data set and store them.

    Raises:
        RequestError: a value can't be stored, or the device's memory is too small.
    """
    device = next(encoder.model.parameters()).device
    batch_size = config.batch_size or default_batch_size(device.type, encoder.description.size)
    prepare = transform.on_host if transform.backend == "pil" else as_stored
    pieces = decode_pieces(dataset, units, batch_size, pin=device.type == "cuda", prepare=prepare)
    work = _UnitWork(encoder, transform, device, batch_size)
    checked = False
    pending: Future[None] | None = None
    with (
        closing(prefetch(pieces, 1 if dataset.piece_bytes else 2)) as ahead,
        ThreadPoolExecutor(1, "store") as storer,
    ):
        for unit, is_last, images, looks in ahead:
            n_before = len(work.parts)
            work.add(images, looks)
            if is_last:
                work.flush()
            if not checked and work.parts:  # the first batch tells what the long run would end with
                for name, vectors in work.parts[0].items():
                    check_storable(name, vectors.cpu().numpy(), writer.spec.dtype)
                checked = True
            progress.advance(sum(len(next(iter(part.values()))) for part in work.parts[n_before:]))
            if is_last:
                if pending:
                    pending.result()  # at most one unit waits: memory stays flat
                pending = storer.submit(_store, writer, unit, work.parts, work.looks)
                work = _UnitWork(encoder, transform, device, batch_size)
        if pending:
            pending.result()


class _UnitWork:
    """Images of one unit become batches, as they come in; batches become features."""

    def __init__(
        self, encoder: Encoder, transform: Transform, device: torch.device, batch_size: int
    ) -> None:
        self._encoder, self._transform = encoder, transform
        self._device, self._batch_size = device, batch_size
        self._inputs: list[Tensor] = []  # of the batch that isn't full yet
        self.parts: list[dict[str, Tensor]] = []
        self.looks: list[Mapping[str, NDArray[np.uint8]]] = []

    def add(self, images: Sequence[Tensor], looks: Mapping[str, NDArray[np.uint8]]) -> None:
        """Take more of the unit's images: (n, H, W[, 3]) each."""
        self.looks.append(looks)
        for group in images:
            left = group
            while len(left):
                room = self._batch_size - sum(map(len, self._inputs))
                with _naming_memory(self._encoder, self._device, self._batch_size):
                    x = left[:room].to(self._device, non_blocking=True)
                    self._inputs.append(self._transform(x))
                left = left[room:]
                if sum(map(len, self._inputs)) == self._batch_size:
                    self.flush()

    def flush(self) -> None:
        """Run the encoder over what is waiting."""
        if not self._inputs:
            return
        inputs, self._inputs = self._inputs, []
        with _naming_memory(self._encoder, self._device, self._batch_size):
            self.parts.append(self._encoder(inputs[0] if len(inputs) == 1 else torch.cat(inputs)))


def run_batch(
    encoder: Encoder, transform: Transform, images: Tensor, device: torch.device
) -> dict[str, Tensor]:
    """Features of (B, ...) images as they come from a data set, on the device."""
    with _naming_memory(encoder, device, len(images)):
        return encoder(transform(images.to(device)))


@contextlib.contextmanager
def _naming_memory(encoder: Encoder, device: torch.device, batch_size: int) -> Iterator[None]:
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


def _store(
    writer: FeatureWriter,
    unit: int,
    parts: list[dict[str, Tensor]],
    looks: list[Mapping[str, NDArray[np.uint8]]],
) -> None:
    arrays = {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}
    for name in LOOKS:
        arrays[name] = np.concatenate([look[name] for look in looks])
    writer.write_unit(unit, arrays)


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
    for unit, whole in zip(units, row_ranges(units, dataset.n_rows), strict=True):
        cut = dataset.cut([whole], batch_size)
        ranges += cut
        owners += [(unit, last == whole[1]) for _, last in cut]
    for (unit, is_last), piece in zip(owners, dataset.pieces(ranges, prepare), strict=True):
        images = [torch.from_numpy(np.require(i, requirements=["C", "W"])) for i in piece.images]
        yield unit, is_last, [i.pin_memory() for i in images] if pin else images, piece.looks


def row_ranges(units: Sequence[int], n_rows: int) -> list[tuple[int, int]]:
    """The (start, stop) of each unit's rows."""
    return [unit_rows(unit, n_rows) for unit in units]
