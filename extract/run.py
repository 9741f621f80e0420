"""Stage one: decode -> resize -> one forward pass -> pooled layers -> feature file.

Everything beside the forward pass overlaps with it: a thread decodes ahead, the device resizes
and normalises, a thread stores the unit before while the next one is computed.
"""

import contextlib
import dataclasses
import importlib.metadata
import platform
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cache import CacheError, RequestError
from cache.commands.settings import words
from cache.features import Features
from cache.format.fingerprint import summarise
from cache.format.key import feature_path
from cache.format.spec import HASH, HASH_BYTES, LOOKS, THUMBNAIL, FileSpec
from cache.format.units import unit_rows
from cache.leak_memory import count_leaks
from cache.leaks import describe_leaks
from cache.store import FeatureWriter, check_storable
from cache.task import BINARY
from extract.config import (
    ExtractConfig,
    FeaturesConfig,
    OutputConfig,
    PreparingConfig,
    ProtocolConfig,
    ReadingConfig,
    SourceConfig,
    TextConfig,
    default_batch_size,
)
from extract.datasets.arrays.medmnist import download
from extract.datasets.dataset import Dataset, Prepare, as_stored
from extract.datasets.files.images import USUAL_SPLIT
from extract.datasets.origins import describe_seen
from extract.datasets.sources import CSV, FOLDER
from extract.datasets.statistics import dataset_statistics
from extract.encoders.encoder import (
    Description,
    Encoder,
    Weights,
    choose_device,
    find_weights,
    load_encoder,
    set_precision,
    weights_digest,
)
from extract.encoders.weights.published import Hub
from extract.leak_guard import refuse_leaks
from extract.machine.digests import DigestMemory
from extract.machine.prefetch import prefetch
from extract.machine.progress import Progress, per_second
from extract.plan import (
    Job,
    Plan,
    Problem,
    encoder_name,
    feature_key,
    fit_words,
    make_transform,
    protocol_words,
    weights_words,
)
from extract.prepare.transforms import Transform
from extract.table_update import share_tables

Say = Callable[[str], None]
TRAINED = "medprobe_trained"  # in the metadata of finetune's encoders: what on, and how


class LazyEncoder:
    """An encoder whose weights are digested at once, but loaded only when there is work to do."""

    def __init__(self, description: Description, config: ExtractConfig, memory: DigestMemory):
        self.description, self.config = description, config
        self.device = choose_device(config.device)
        set_precision(config.precision, self.device)
        self.weights = find_weights(description, config.weights, config.seed, download=True)
        self.refused = False  # whether its weights turned out not to fit
        self._encoder: Encoder | None = None
        if self.weights.path is None:
            self._encoder, digest = load_encoder(description, self.weights)
            self._encoder.to(self.device, config.precision)
        else:
            digest = weights_digest(self.weights, memory)
        self.words = weights_words(self.weights, digest)

    def get(self, say: Say) -> Encoder:
        """The encoder on its device."""
        if self._encoder is None:
            self.refused = True
            self._encoder, digest = load_encoder(self.description, self.weights)
            if weights_words(self.weights, digest) != self.words:
                raise RequestError(f"{self.weights.path} changed while it was read; run again")
            for line in self._encoder.said:
                say(f"  weights: {line}")
            self._encoder.to(self.device, self.config.precision)
            self.refused = False
        return self._encoder


def run_plan(plan: Plan, memory: DigestMemory, say: Say) -> list[Problem]:
    """Do every job; what fails is noted and the others go on.

    Returns:
        What couldn't be done, and why.
    """
    problems = list(plan.problems)
    encoder: LazyEncoder | None = None
    refused = ""
    for job in plan.jobs:
        name = job.description.entry.name
        if name == refused:
            continue
        if encoder is None or encoder.description is not job.description:
            encoder = None  # free the last one before the next is loaded
            try:
                encoder = LazyEncoder(job.description, plan.config, memory)
            except (RequestError, OSError) as error:
                problems.append((name, str(error)))
                refused = name
                continue
        try:
            say(run_job(job, encoder, plan.config, memory, say))
        except BrokenPipeError:  # of say: nobody listens any more
            raise
        except (CacheError, RequestError, OSError) as error:
            problems.append((name if encoder.refused else job.label, str(error)))
            if encoder.refused:  # the other sets would only hear the same
                refused = name
    return problems


def run_job(
    job: Job, encoder: LazyEncoder, config: ExtractConfig, memory: DigestMemory, say: Say
) -> str:
    """One encoder over one data set.

    Returns:
        What was done, in one line.

    Raises:
        RequestError, CacheError, OSError: as the message says; what was stored stays.
    """
    if job.source.file and not job.source.present:
        encoder.get(say)  # before a download: weights that don't fit would make it in vain
        with Progress(f"download {job.source.file.path.name}", None, "bytes") as progress:
            download(job.source.file, progress.reach)
    dataset = job.source.open(memory)
    p, statistics = job.preprocessing, None
    if p.of_data_set:
        statistics = dataset_statistics(
            job.source, dataset, memory, lambda line: say(f"  {job.label}: {line}")
        )
    transform = make_transform(job.description.size, p, dataset.n_channels, statistics)
    spec = make_spec(job, dataset, encoder, config, transform)
    d = job.description
    path = feature_path(config.root, dataset.name, d.entry.name, d.size, spec.key)
    if config.strict:
        refuse_leaks(dataset, path, say)
    share_tables(dataset, config.root, path, data_words(job, config), config.shard, say)
    if config.overwrite or not path.exists():
        # First: weights that don't fit must not leave a reserved file behind.
        fingerprint = make_fingerprint(encoder.get(say), transform, dataset.n_channels)
        spec = dataclasses.replace(spec, fingerprint=fingerprint)
    with FeatureWriter(path, spec, shard=config.shard, overwrite=config.overwrite) as writer:
        if writer.changed_tables:
            changed = ", ".join(f"{name} {how}" for name, how in writer.changed_tables.items())
            say(f"  {job.label}: tables rewritten, features kept: {changed}")
        if writer.was_complete:
            return f"{job.label}: complete already, every checksum right · {path}"
        if not spec.fingerprint and writer.todo:
            encoder_now = encoder.get(say)
            writer.check_fingerprint(make_fingerprint(encoder_now, transform, dataset.n_channels))
        if writer.bad_units:
            say(f"  {job.label}: {len(writer.bad_units)} damaged units are computed again")
        todo = writer.todo
        n_before = spec.n_rows - sum(stop - start for start, stop in _ranges(todo, spec.n_rows))
        if todo and n_before and config.shard[1] == 1:
            say(f"  {job.label}: going on after {n_before:_} of {spec.n_rows:_} images")
        started = time.monotonic()
        with Progress(job.label, spec.n_rows, done=n_before) as progress:
            if todo:
                network = encoder.get(say)
                with same_threads(writer, encoder.device, say):
                    compute_units(network, dataset, writer, todo, config, transform, progress)
        n_done = progress.done - progress.first
        cost = _cost(encoder, config, n_done, time.monotonic() - started)
        whole = writer.whole()
        if whole is not None:
            with contextlib.suppress(FileNotFoundError):  # another shard has just finished it
                leaks = count_leaks(Features(whole), say=lambda line: say(f"  {line}"))
                if leaks is not None:
                    cost["leaks"] = leaks.summary()
                    say(f"  {job.label}: leaks across splits: {describe_leaks(cost['leaks'])}")
        complete = writer.finish(cost)
    if not complete:
        return f"{job.label}: this shard is done, others aren't yet · {writer.partial_path}"
    return f"{job.label}: {n_done:_} images, {per_second(cost['images_per_s'], 'images')} · {path}"


@contextlib.contextmanager
def same_threads(writer: FeatureWriter, device: torch.device, say: Say) -> Iterator[None]:
    """Compute a file with as many threads as it was begun with: sums of some networks depend on it.

    Of ViTs and ResNets nothing does; of Swin, EfficientNet, DenseNet and SAM the last bits do.
    """
    usual = torch.get_num_threads()
    begun = usual if device.type != "cpu" else writer.agree({"threads": usual})["threads"]
    if begun != usual:
        say(
            f"  with {begun} threads, as the file was begun, not {usual}: its last bits depend on it"
        )
    torch.set_num_threads(begun)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def make_spec(
    job: Job,
    dataset: Dataset,
    encoder: LazyEncoder,
    config: ExtractConfig,
    transform: Transform,
) -> FileSpec:
    """All that the file will say of itself."""
    d = job.description
    key = feature_key(
        d,
        config,
        transform,
        weights=encoder.words,
        dataset=dataset.name,
        images=dataset.images_digest,
        source_size=dataset.source_size,
        slicing=dataset.slicing,
        reading=dataset.reading,
    )
    notes = {
        "transform": str(transform),
        "licence": dataset.licence,
        **encoder_notes(job, encoder.weights, config),
    }
    if config.protocol:
        notes["protocol"] = protocol_words(job, config)
    notes |= dataset.said
    return FileSpec(
        model=d.entry.name,
        encoder=encoder_name(d, config),
        size=d.size,
        dataset=dataset.name,
        task=dataset.task,
        class_names=dataset.class_names,
        positive_class=dataset.class_names[1] if dataset.task == BINARY else None,
        key=key,
        arrays={**d.arrays, HASH: HASH_BYTES, THUMBNAIL: dataset.thumbnail_side**2},
        dtype=config.store,
        row_ids=dataset.row_ids,
        row_sample=dataset.row_sample,
        samples=dataset.samples,
        command=command_line(job, config),
        notes=notes,
        versions=versions(),
    )


def encoder_notes(job: Job, weights: Weights, config: ExtractConfig) -> dict[str, Any]:
    """What a file says of the encoder beside its key; rows carry it on."""
    entry = job.description.entry
    made = "random" if weights.random else "made by the encoder's own code"
    published = config.weights == "pretrained"
    fitted = fit_words(job, config)
    # Random weights saw nothing; of a user's own file nobody knows.
    seen = () if weights.random else entry.seen if published else None
    return {
        "weights": _describe_file(job, weights, weights.path, published) if weights.path else made,
        "random_weights": weights.random,
        "own_weights": config.weights not in ("pretrained", "random"),
        "raw_layers": not job.description.anatomy.known,
        "weights_licence": job.description.outline.licence if published else "",
        "seen": describe_seen(seen, job.source.name),
        **({"fitted": fitted} if fitted else {}),
    }


def _describe_file(job: Job, weights: Weights, path: Path, published: bool) -> str:
    """A weight file's name; of the hub's, which are all called alike, the repository's too.

    And ``finetune``'s say what they were trained on.
    """
    place = job.description.outline.place
    if published:
        return f"{place.repository}/{path.name}" if isinstance(place, Hub) else path.name
    trained = _read_metadata(path).get(TRAINED)
    return weights.named(path.name) + (f", {trained}" if trained else "")


def _read_metadata(path: Path) -> Mapping[str, str]:
    """What the writer of a safetensors file said of it; nothing of other files."""
    try:
        with safe_open(path, "np") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError):  # another format: whoever reads its tensors says more
        return {}


def _named_source_size(job: Job, config: ExtractConfig) -> int | None:
    """What a command must say of it: what was said, or what was taken instead of the usual size."""
    file = job.source.file
    return file.source_size if file and file.usual_size else config.source_size


def command_line(job: Job, config: ExtractConfig) -> str:
    """The command that makes this one file."""
    found = ["extract", "--model", job.description.typed]
    content = job.preprocessing.content
    found += [] if config.text else ["--size", str(content or job.description.size)]
    found += ["--fit-size", str(config.fit_size)] if content else []
    found += data_words(job, config)
    said = dataclasses.replace(config, source_size=_named_source_size(job, config))
    # The order that files have kept since there are files.
    found += words(
        said,
        *(TextConfig, ProtocolConfig, PreparingConfig, SourceConfig),
        *(FeaturesConfig, ReadingConfig, OutputConfig),
    )
    return shlex.join(found)


def data_words(job: Job, config: ExtractConfig) -> list[str]:
    """Of ``command_line``, what says which labels and which split there are."""
    found = ["--data", job.source.wish]
    if job.source.wish.startswith((CSV, FOLDER)):
        found += words(config.table)
    if drawn := job.source.files and job.source.files.drawn:
        usual = str(drawn.rule) == USUAL_SPLIT and not config.split
        found += [] if usual else ["--split", str(drawn.rule)]
        found += ["--split-seed", str(drawn.seed)] if drawn.seed else []
    return found


def versions() -> dict[str, str]:
    """The versions of what computes the features."""
    names = (
        "medprobe",
        "torch",
        "timm",
        "open_clip_torch",
        "transformers",
        "numpy",
        "h5py",
        "pillow",
        "pydicom",
        "python-gdcm",
        "nibabel",
    )
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # of an extra
            continue
    return found | {"python": platform.python_version()}


# ---------------------------------------------------------------------------- the hot path


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


PICTURE_SIDE = 96  # px of the fingerprint's picture


def fingerprint_picture(n_channels: int) -> NDArray[np.uint8]:
    """(1, 96, 96) grey or (1, 96, 96, 3): waves and edges at several scales, different by channel.

    Made of integers alone, so it is the same everywhere. It must never change: every stored
    fingerprint would look like drift.
    """
    y, x = np.mgrid[:PICTURE_SIDE, :PICTURE_SIDE]
    planes = [
        (x * (3 + c) + y * (5 - c)) % 97 + 120 * ((x // 12 + y // (8 + c)) % 2)
        for c in range(n_channels)
    ]
    picture = np.stack(planes, axis=-1).astype(np.uint8)[None]
    return picture[..., 0].copy() if n_channels == 1 else picture


def make_fingerprint(
    encoder: Encoder, transform: Transform, n_channels: int
) -> dict[str, list[float]]:
    """Features of one fixed picture, shortened: other libraries or weights would move them.

    Args:
        encoder: with its weights, on its device.
        transform: of the data set.
        n_channels: of the data set's images.

    Returns:
        As ``cache.format.fingerprint.summarise`` gives it; empty where the features overflow.
    """
    images = torch.from_numpy(transform.on_host(fingerprint_picture(n_channels)))
    device = next(encoder.model.parameters()).device
    vectors = {
        name: vector[0].cpu().numpy()
        for name, vector in _forward(encoder, transform, images, device).items()
    }
    if not all(np.isfinite(vector).all() for vector in vectors.values()):
        return {}  # the first batch will say what overflowed
    return summarise(vectors)


def _forward(
    encoder: Encoder, transform: Transform, images: Tensor, device: torch.device
) -> dict[str, Tensor]:
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
    for unit, whole in zip(units, _ranges(units, dataset.n_rows), strict=True):
        cut = dataset.cut([whole], batch_size)
        ranges += cut
        owners += [(unit, last == whole[1]) for _, last in cut]
    for (unit, is_last), piece in zip(owners, dataset.pieces(ranges, prepare), strict=True):
        images = [torch.from_numpy(np.require(i, requirements=["C", "W"])) for i in piece.images]
        yield unit, is_last, [i.pin_memory() for i in images] if pin else images, piece.looks


def _ranges(units: Sequence[int], n_rows: int) -> list[tuple[int, int]]:
    return [unit_rows(unit, n_rows) for unit in units]


def _cost(encoder: LazyEncoder, config: ExtractConfig, n: int, seconds: float) -> dict[str, Any]:
    device = encoder.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "images": n,
        "seconds": round(seconds, 3),
        "images_per_s": round(n / seconds, 3) if seconds else 0.0,
        "device": f"{device.type} ({name})",
        "batch_size": config.batch_size
        or default_batch_size(device.type, encoder.description.size),
        "shards": config.shard[1],
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
