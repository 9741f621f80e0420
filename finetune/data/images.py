"""A data set ready to train on: its samples' tables, and its images for random access.

One pass over the images writes two things below the folder of features, in ``.images/{data set}``:

``{digest}.h5``
    A feature file without features: the sample tables, and each image's hash and thumbnail. So
    labels, splits, overlays, patients and leaks are read by the same code as a probe's, and labels
    or a split that changed rewrite its tables and nothing else.
``{digest}.pixels``
    The images as they are stored, or as Pillow resized them where it does the resizing: those are
    small. See pixels.py.

Both may be deleted; the next run makes them anew. An interrupted pass does too, but for the hashes
that are done. Of several processes that start together one makes them and the others wait.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from cache.aggregate import RowsOfSamples
from cache.commands.names import format_bytes
from cache.errors import BrokenCache, RequestError
from cache.features import Features, open_features
from cache.format.key import N_DIGEST, canonical_json, file_stem, key_digest
from cache.format.spec import HASH, HASH_BYTES, LOOKS, THUMBNAIL, FileSpec
from cache.geometry import NEVER_ENLARGED
from cache.places import IMAGES
from cache.store import FeatureWriter
from cache.task import BINARY
from extract import loaded
from extract.config import ExtractConfig
from extract.datasets.dataset import Dataset, as_stored
from extract.describe import existing_parent
from extract.forward import Run, decode_pieces
from extract.job import Job
from extract.key import make_transform
from extract.machine.digests import DigestMemory
from extract.machine.prefetch import prefetch
from extract.machine.progress import Progress
from extract.prepare.transforms import Transform
from extract.spec import command_line, versions
from finetune.data.pixels import Pixels, PixelWriter

STORED, PREPARED = "as stored", "resized by Pillow"  # forms of the pixels that are kept
ON_HOST = ("resize", "interpolation")  # of a transform's key: what ``on_host`` does
AT_ONCE = 64  # images that are decoded together
# Of a folder that can't be made or written.
CANT_WRITE = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EEXIST, errno.ENOTDIR),
    *(errno.ENOSPC, errno.EFBIG, errno.EDQUOT),
}
SLACK_BYTES = 1 << 24  # beside the pixels: their index, and the sample tables

Say = Callable[[str], None]


@dataclass(frozen=True)
class Images:
    """One data set, ready to train on. N rows (images), S samples (what carries a label)."""

    features: Features  # no layers, but all tables, hashes and thumbnails: for probe's overlays
    pixels: Pixels  # (N,) as the transform takes them: behind its ``on_host``
    stored: Pixels | None  # (N,) as they are stored, for an augmentation that resizes them itself
    dataset: Dataset  # as it was opened, for what feature keys have of it

    @cached_property
    def rows(self) -> RowsOfSamples:
        """The rows by sample."""
        return RowsOfSamples(self.features.row_sample, self.features.header.n_samples)


def rows_of(
    images: Images, samples: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of some samples, each sample's in their order.

    Args:
        images: the data set.
        samples: (n,) positions among its samples.

    Returns:
        (B,) rows, and (B,) the place in ``samples`` that each row belongs to.
    """
    of = images.rows
    n_rows = of.counts[samples]
    within = np.arange(n_rows.sum()) - np.repeat(np.cumsum(n_rows) - n_rows, n_rows)
    rows = of.order[np.repeat(of.starts[samples], n_rows) + within]
    return rows, np.repeat(np.arange(len(samples)), n_rows)


def find_transform(job: Job, memory: DigestMemory, say: Say) -> Transform:
    """The job's transform, with the data set's own mean and std where its protocol wants them.

    A data set that isn't here is downloaded.

    Raises:
        RequestError: no such data set, no training images to take the mean of, or settings that
            contradict each other.
    """
    p = job.preprocessing
    if p.of_data_set:
        dataset = loaded.open_images(job, memory)
        return loaded.find_transform(job, dataset, memory, _saying_of(job, say))
    return make_transform(job.description.size, p, job.source.n_channels)


def open_images(
    job: Job,
    config: ExtractConfig,
    transform: Transform,
    memory: DigestMemory,
    say: Say,
    *,
    with_stored: bool = False,
) -> Images:
    """Open a job's data set for training; the first time, unpack it.

    Args:
        job: which data set, at which size.
        config: where things are kept, and how files are read.
        transform: of the job; its host part, if it has one, is done once and kept.
        memory: of digests.
        say: told a line before work that takes long.
        with_stored: see ``finetune.data.augment.Augmentation.needs_stored``.

    Raises:
        RequestError: the data set can't be had or read, or the disk has too little room.
        CacheError: the tables that are kept are damaged.
        OSError: the folder can't be written.
    """
    dataset, tell = loaded.open_images(job, memory), _saying_of(job, say)
    spec = _make_spec(job, dataset, config)
    first = PREPARED if transform.backend == "pil" else STORED
    forms = dict.fromkeys([first, STORED] if with_stored else [first])
    keys = {form: _pixels_key(spec.key, form, transform) for form in forms}
    folder = config.root / IMAGES / file_stem(dataset.name)
    looks = folder / f"{key_digest(spec.key)[:N_DIGEST]}.h5"
    paths = {f: folder / f"{key_digest(key)[:N_DIGEST]}.pixels" for f, key in keys.items()}
    with _writing_to(folder), _alone(looks, tell), _open_looks(looks, spec, tell) as writer:
        if writer.changed_tables:
            changed = ", ".join(f"{name} {how}" for name, how in writer.changed_tables.items())
            tell(f"tables rewritten, images kept: {changed}")
        missing = [form for form in forms if not _is_there(paths[form], keys[form])]
        if missing or writer.todo:
            _check_space(job, dataset, transform, missing, config.root)
            tell(f"unpacking {dataset.n_rows:_} images once, to {folder}")
            with contextlib.ExitStack() as stack:
                packs = {
                    form: stack.enter_context(PixelWriter(paths[form], keys[form]))
                    for form in missing
                }
                _unpack(dataset, writer, transform, packs)
                for pack in packs.values():
                    pack.finish()
        writer.finish({})
    pixels = {form: Pixels(path) for form, path in paths.items()}
    return Images(
        open_features(looks),
        pixels[first],
        pixels[STORED] if with_stored else None,
        dataset,
    )


def _saying_of(job: Job, say: Say) -> Say:
    return lambda line: say(f"  {job.source.name}: {line}")


def _make_spec(job: Job, dataset: Dataset, config: ExtractConfig) -> FileSpec:
    """A feature file's, of no encoder: what such a file says of one is "images"."""
    key: dict[str, Any] = {
        "format": 1,
        "dataset": dataset.name,
        "images": dataset.images_digest,
        "source_size": dataset.source_size or "various",
        "layers": {"of": 0},  # as every file has it
    }
    if dataset.reading is not None:
        key["reading"] = dict(dataset.reading)
    if dataset.slicing is not None:
        key["slices"] = dataset.slicing.key
    return FileSpec(
        model="images",
        encoder="images",
        size=dataset.source_size or 1,
        dataset=dataset.name,
        task=dataset.task,
        class_names=dataset.class_names,
        positive_class=dataset.class_names[1] if dataset.task == BINARY else None,
        key=key,
        arrays={HASH: HASH_BYTES, THUMBNAIL: dataset.thumbnail_side**2},
        dtype="float32",
        row_ids=dataset.row_ids,
        row_sample=dataset.row_sample,
        samples=dataset.samples,
        command="finetune" + command_line(job, config).removeprefix("extract"),
        notes={"licence": dataset.licence, "data": [], **dataset.said},
        versions=versions(),
    )


def _pixels_key(images: Mapping[str, Any], form: str, transform: Transform) -> dict[str, Any]:
    """What pixels are: which images, and what was done to them before they were kept."""
    if form == STORED:
        return {"images": images, "form": form}
    done = {"size": transform.side, **{name: transform.key[name] for name in ON_HOST}}
    return {"images": images, "form": form, "transform": done}


def _is_there(path: Path, key: Mapping[str, Any]) -> bool:
    """Whether a file of these pixels is there and whole; one that isn't is made anew."""
    try:
        return canonical_json(Pixels(path).key) == canonical_json(key)
    except (BrokenCache, FileNotFoundError):
        return False


def _open_looks(looks: Path, spec: FileSpec, tell: Say) -> FeatureWriter:
    """The tables of a data set; damaged ones are made anew, as damaged pixels are."""
    try:
        return FeatureWriter(looks, spec)
    except BrokenCache:
        tell(f"{looks} is damaged and made anew")
        return FeatureWriter(looks, spec, overwrite=True)


@contextlib.contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    """Make a folder, and say what to do where it can't be written.

    Raises:
        OSError: with a cure.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        is_ours = error.filename is None or Path(error.filename).is_relative_to(folder)
        if error.errno not in CANT_WRITE or (folder.exists() and not is_ours):
            raise  # of an image, or with a cure already
        raise OSError(
            f"can't write unpacked images to {folder} ({error.strerror}); free some space, or choose "
            "another place with --features DIR"
        ) from error


@contextlib.contextmanager
def _alone(looks: Path, tell: Say) -> Iterator[None]:
    """Hold a lock that the kernel frees on any death; wait for it where another process has it."""
    lock = FileLock(looks.with_name(f".{looks.name}.making.lock"), fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        tell("waiting for another process that unpacks the images")
        lock.acquire()
    try:
        yield
    finally:
        # Unlinked while held: whoever waits on it finds the file nameless and starts over.
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


def _check_space(
    job: Job, dataset: Dataset, transform: Transform, forms: Sequence[str], root: Path
) -> None:
    """Refuse before the first image what the disk can't hold."""
    needed = SLACK_BYTES + sum(_most_bytes(job, dataset, transform, form) for form in forms)
    needed += dataset.n_rows * (HASH_BYTES + dataset.thumbnail_side**2)
    free = shutil.disk_usage(existing_parent(root)).free
    if needed <= free:
        return
    cures = ["free some space", "choose another place with --features DIR"]
    if forms == [STORED] and transform.backend != "pil":
        resized = _most_bytes(job, dataset, transform, PREPARED)
        if resized < _most_bytes(job, dataset, transform, STORED):
            cures += [f"pack resized images, {format_bytes(resized)}, with --resize-backend pil"]
    raise RequestError(
        f"the unpacked images of {dataset.name} take {format_bytes(needed)}, and {root} has "
        f"{format_bytes(free)} free; {', or '.join([', '.join(cures[:-1]), cures[-1]])}"
    )


def _most_bytes(job: Job, dataset: Dataset, transform: Transform, form: str) -> int:
    """How many bytes the pixels take; of prepared ones a bound."""
    files, side = job.source.files, dataset.source_size or 0
    stored = np.full(dataset.n_rows, side**2 * dataset.n_channels)
    level = np.ones_like(stored)  # bytes of a level: 4 of float images
    if dataset.row_bytes is not None:
        stored = dataset.row_bytes
    if files is not None:
        areas = [facts.height * facts.width for facts in files.facts]
        level = stored // (np.repeat(areas, files.n_frames) * dataset.n_channels)
    if form == STORED:
        return int(stored.sum())
    prepared = transform.side**2 * dataset.n_channels * level
    if transform.resize in NEVER_ENLARGED:
        prepared = np.minimum(prepared, stored)
    return int(prepared.sum())


def _unpack(
    dataset: Dataset, writer: FeatureWriter, transform: Transform, packs: Mapping[str, PixelWriter]
) -> None:
    """One pass over the images: their pixels into the packs, their looks into the file."""
    todo = writer.todo
    units = [*range(writer.header.n_units)] if packs else todo
    # Where prepared pixels alone are kept, those who decode prepare them too.
    on_host = transform.on_host if [*packs] == [PREPARED] else as_stored
    rows = {unit: writer.header.rows_of(unit) for unit in units}
    runs = [Run(*of, ((unit, *of),)) for unit, of in rows.items()]
    pieces = decode_pieces(dataset, runs, AT_ONCE, pin=False, prepare=on_host)
    of_unit: list[Mapping[str, NDArray[np.uint8]]] = []
    with (
        closing(prefetch(pieces, 1 if dataset.piece_bytes else 2)) as ahead,
        Progress(dataset.name, dataset.n_rows) as progress,
    ):
        for run, is_last, groups, looks in ahead:
            ((unit, *_),) = run.units
            of_unit.append(looks)
            for group in groups:
                for form, pack in packs.items():
                    is_ready = form == STORED or on_host is not as_stored
                    images = group.numpy()
                    pack.add(images if is_ready else transform.on_host(images))
                progress.advance(len(group))
            if is_last and unit in todo:
                arrays = {name: np.concatenate([look[name] for look in of_unit]) for name in LOOKS}
                writer.write_unit(unit, arrays)
            if is_last:
                of_unit.clear()
