"""What an extraction will do and take, before it does anything."""

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cache import CacheError, RequestError
from cache.commands.names import format_bytes
from cache.format.key import feature_path, partial_path, untagged
from cache.format.spec import HASH_BYTES, RECORD_WORDS
from cache.format.units import count_units
from cache.labels.target import describe_target
from cache.places import memory_root
from extract.config import CHANNELS, COLOUR, INTENSITIES, ExtractConfig
from extract.datasets.arrays.medmnist import describe_download, download_bytes, refuse_offline
from extract.datasets.drawn import SplitWish
from extract.datasets.files.images import Reading
from extract.datasets.looks import thumbnail_side
from extract.datasets.sources import INDEX, FileWishes, Source, expand_names, find_source
from extract.datasets.statistics import recall_statistics
from extract.datasets.volumes import Slicing
from extract.encoders.encoder import (
    Description,
    Weights,
    describe,
    find_weights,
    recall_weights_digest,
)
from extract.encoders.outline_memory import OutlineMemory
from extract.encoders.resolve import find_entry
from extract.encoders.sizes import SizeError
from extract.machine.digests import DigestMemory
from extract.machine.network import FORBIDDEN, offline
from extract.machine.workers import default_workers
from extract.prepare.protocols import PROTOCOLS, Preprocessing, preprocess, wished_norm, wished_size
from extract.prepare.transforms import Transform, describe_distortion

Problem = tuple[str, str]  # what couldn't be done, and why
Report = Callable[[str, int, int], None]  # of a data set: files just opened, and all


@dataclass
class Job:
    """One encoder on one data set."""

    description: Description
    source: Source
    preprocessing: Preprocessing

    @property
    def label(self) -> str:
        return f"{self.description.entry.name} on {self.source.name}"


@dataclass
class Plan:
    """All jobs in order, and what can already be seen to fail."""

    config: ExtractConfig
    jobs: list[Job] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def make_plan(config: ExtractConfig, report: Report = lambda name, n, n_all: None) -> Plan:
    """Resolve every name; a data set or encoder that can't be had doesn't stop the others.

    Args:
        config: the user's wishes.
        report: told of files of images that were just opened for the first time.

    Raises:
        RequestError: nothing at all can be done; the message says why.
    """
    plan = Plan(config)
    find = SourceFinder(config, report)
    for model in dict.fromkeys(config.models):
        try:
            entry = find_entry(model)
            size, norm = wished_size(config, entry), wished_norm(config, entry)
            description, content = describe_fitting(model, size, norm, config)
            make_transform(
                description.size, preprocess(config, entry, description.statistics), 1, NEUTRAL
            )
            find_weights(description, config.weights, config.seed, download=False)
        except RequestError as error:
            plan.problems.append((model, str(error)))
            continue
        for name in expand_names(config.data):
            try:
                source = find(name, description.size)
            except (RequestError, OSError) as error:
                plan.problems.append((name, str(error)))
            else:
                usual = source.usual_resize
                preprocessing = dataclasses.replace(
                    preprocess(config, entry, description.statistics, usual), content=content
                )
                plan.jobs.append(Job(description, source, preprocessing))
    plan.problems = list(dict.fromkeys(plan.problems))
    if not plan.jobs:
        raise RequestError("; ".join(why for _, why in plan.problems))
    return plan


def leave_out_missing(plan: Plan) -> Plan:
    """The plan without the jobs whose images aren't here while the network is not to be used.

    Raises:
        RequestError: none is left.
    """
    jobs, problems = [], list(plan.problems)
    for job in plan.jobs:
        try:
            if job.source.file:
                refuse_offline(job.source.file)
            jobs.append(job)
        except RequestError as error:
            problems.append((job.source.name, str(error)))
    problems = list(dict.fromkeys(problems))
    if not jobs:
        raise RequestError("; ".join(why for _, why in problems))
    return dataclasses.replace(plan, jobs=jobs, problems=problems)


def describe_fitting(
    model: str, size: int | None, norm: str, config: ExtractConfig
) -> tuple[Description, int | None]:
    """An encoder at a size, or at one that takes its place as ``--fit-size`` says.

    Returns:
        What it would give, and the side that images are prepared at, where that isn't its input's.

    Raises:
        RequestError: see ``extract.encoders.encoder.describe``.
    """
    root = memory_root()
    memory = OutlineMemory(root / "encoders.json") if root else None
    try:
        return describe(model, size, config.layers, norm, memory), None
    except SizeError as error:
        if config.fit_size is None:
            raise RequestError(f"{error}{error.cure}") from error
        side = error.fitting(config.fit_size)
    description = describe(model, side, config.layers, norm, memory)
    return description, None if config.fit_size == "nearest" else size


class SourceFinder:
    """Finds what ``--data`` names, and files of images only once: no encoder changes them."""

    def __init__(self, config: ExtractConfig, report: Report) -> None:
        self._config = config
        self._wishes = FileWishes(
            Reading(
                config.window,
                None,
                config.skip_errors,
                SplitWish(config.split, config.split_seed, config.keep_split),
                default_workers() if config.workers is None else config.workers,
            ),
            config.table,
            config.root / INDEX,
            report,
            config.root,
        )
        self._found: dict[str, Source | RequestError] = {}

    def __call__(self, name: str, size: int) -> Source:
        c = self._config
        found = self._found.get(name)
        if isinstance(found, Source):
            return found
        if found is not None:
            raise found
        try:
            source = find_source(
                name, size, c.source_size, c.data_root, make_slicing(c), self._wishes
            )
        except RequestError as error:
            self._found[name] = error
            raise
        if source.files:
            self._found[name] = source
        return source


Numbers = tuple[float, ...]
NEUTRAL = ((0.0,) * 3, (1.0,) * 3)  # where only the other settings are to be checked


def make_transform(
    size: int,
    preprocessing: Preprocessing,
    n_channels: int,
    of_data_set: tuple[Numbers, Numbers] | None = None,
) -> Transform:
    """The transform for grey (1) or colour (3) images.

    Args:
        size: side of the input, pixels.
        preprocessing: of the encoder.
        n_channels: of the stored images.
        of_data_set: its mean and std, where preprocessing wants them.

    Raises:
        RequestError: the settings contradict each other.
    """
    p = preprocessing
    mean, std = p.mean, p.std
    if of_data_set is not None:
        mean, std = mean or of_data_set[0], std or of_data_set[1]
    assert mean is not None, "the data set's mean and std are settled before its transform"
    assert std is not None
    return Transform(
        size=size,
        mean=mean,
        std=std,
        interpolation=p.interpolation,
        antialias=p.antialias,
        resize=p.resize,
        channels=CHANNELS[p.channels] if n_channels == 1 else COLOUR,
        intensity=INTENSITIES[p.intensity],
        backend=p.backend,
        content=p.content,
    )


def fit_words(job: Job, config: ExtractConfig) -> str:
    """What ``--fit-size`` did, for a row; "" where nothing was to be done."""
    d, content = job.description, job.preprocessing.content
    if content is not None:
        how = "cut to" if content > d.size else "set into mean colour of"
        return f"images of {content} px, {how} {d.size} px, for the encoder doesn't take the former"
    asked = wished_size(config, d.entry)
    if asked in (None, d.size):
        return ""
    return f"{d.size} px is the nearest to {asked} px that the encoder takes"


def protocol_words(job: Job, config: ExtractConfig) -> str:
    """The protocol, and what flags made otherwise than it has it; "" without one.

    "wu2025", or "wu2025, but interpolation bicubic". A flag that changes nothing isn't named.
    """
    if config.protocol is None:
        return ""
    d, own = job.description, job.description.statistics
    plain = ExtractConfig(config.models, protocol=config.protocol)
    usual = job.source.usual_resize
    if own is None:  # nobody says what the encoder's own are, so a user had to
        plain = dataclasses.replace(plain, mean=config.mean, std=config.std)
    has_norm = d.anatomy.norm_rule != "none"
    asked = {
        "size": wished_size(plain, d.entry),
        "layer norm": wished_norm(plain, d.entry) if has_norm else "none",
        **dataclasses.asdict(preprocess(plain, d.entry, own, usual)),
    }
    found = {
        "size": d.size,
        "layer norm": d.layer_norm if has_norm else "none",
        **dataclasses.asdict(job.preprocessing),
    }
    changed = [f"{name} {_short(value)}" for name, value in found.items() if value != asked[name]]
    return f"{config.protocol}, but {', '.join(changed)}" if changed else config.protocol


def _short(value: Any) -> str:
    """(0.5, 0.5, 0.5) as "0.5/0.5/0.5"."""
    return "/".join(f"{v:.3g}" for v in value) if isinstance(value, tuple) else str(value)


def file_bytes(description: Description, store: str, source: Source) -> int:
    """Length of a feature file, but for its small tables."""
    n_images = source.n_images
    looks = HASH_BYTES + thumbnail_side(source.source_size) ** 2
    width = sum(description.arrays.values())
    units = count_units(n_images) * RECORD_WORDS * 4
    return n_images * (width * np.dtype(store).itemsize + looks) + units


def feature_key(
    description: Description,
    config: ExtractConfig,
    transform: Transform,
    *,
    weights: str,
    dataset: str,
    images: str,
    source_size: int | None,
    slicing: Slicing | None = None,
    reading: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything that changes the features, and nothing else.

    Args:
        description: the encoder at its size.
        config: for precision and storage.
        transform: from stored images to its input.
        weights: digest of the weights as read, or the seed and digest of random ones.
        dataset: its name.
        images: digest of its images.
        source_size: side of its stored images, pixels; None: not all alike and square.
        slicing: how volumes are cut; None for images.
        reading: how files of images became pixels; None for arrays.
    """
    key = {
        "format": 1,
        "encoder": encoder_name(description, config),
        "arguments": description.arguments,
        "weights": weights,
        "dataset": dataset,
        "images": images,
        "source_size": source_size or "various",
        "size": description.size,
        "transform": transform.key,
        "layers": {
            "of": description.anatomy.n_layers,
            "stored": list(description.layers),
            "norm": description.norm_rule,
        },
        "precision": config.precision,
        "store": config.store,
    }
    if reading is not None:
        key["reading"] = dict(reading)
    if slicing is not None:
        key["slices"] = slicing.key
    return key


def make_slicing(config: ExtractConfig) -> Slicing | None:
    """How a user wants volumes cut; None where nothing was said."""
    if config.slice_axis is None and not config.slice_neighbours:
        return None
    return Slicing(config.slice_axis or 0, config.slice_neighbours)


def encoder_name(description: Description, config: ExtractConfig) -> str:
    """The encoder's full name. The tag names published weights, so other weights don't get it."""
    encoder = description.entry.encoder
    return encoder if config.weights == "pretrained" else untagged(encoder)


def weights_words(weights: Weights, digest: str) -> str:
    """The weights' entry of the key."""
    return f"{weights.words}:{digest}"


# ---------------------------------------------------------------------------- for people


def describe_plan(plan: Plan, memory: DigestMemory) -> Iterator[str]:
    """The plan as lines to print."""
    config = plan.config
    seen = ""
    told: set[str] = set()
    total = reserved = 0
    for job in plan.jobs:
        d, source = job.description, job.source
        if d.entry.name != seen:
            seen = d.entry.name
            channels = {j.source.n_channels for j in plan.jobs if j.description is d}
            yield from _describe_encoder(job, config, channels)
        taken = file_bytes(d, config.store, source)
        path = find_file(job, config, memory)
        state = "complete" if path and path.exists() else "to do"
        if state == "to do" and path and partial_path(path).exists() and not config.overwrite:
            state = "begun"
            reserved += taken
        total += bytes_to_reserve(job, config, memory)
        if not source.present and source.file:
            state = describe_download(source.file)
        elif source.file and source.file.usual_size:
            state += f"; {source.file.usual_size} px is usual, and not here"
        yield (
            f"  {source.name:<16} {source.n_images:>8_} images of {describe_side(source)}   "
            f"{format_bytes(taken):>9}   {state}"
        )
        if source.files and source.name not in told:
            told.add(source.name)
            yield from (f"    {line}" for line in describe_files(source))
        if source.shapes:
            said = describe_distortion(source.shapes, job.preprocessing.resize)
            yield from (f"    {line}" for line in said)
    free = shutil.disk_usage(existing_parent(config.root)).free
    begun = f", beside {format_bytes(reserved)} of files begun," if reserved else ""
    yield (
        f"features to make: {format_bytes(total)}{begun} in {config.root} ({format_bytes(free)} free)"
    )


def describe_side(source: Source) -> str:
    """ " 28 px", or the range where images differ."""
    if source.source_size is not None:
        return f"{source.source_size:>3} px"
    sides = [side for shape in source.shapes for side in shape]
    return f"{min(sides)} to {max(sides)} px"


def describe_files(source: Source) -> Iterator[str]:
    """What a user should see of files of images, once: task, classes, and what was found."""
    assert source.files is not None
    listing = source.files.listing
    lines = [*describe_target(listing.target), *source.files.notes, source.files.split_words]
    lines += filter(None, [source.files.kept_words])
    if source.files.window:
        lines.append(f"window: {source.files.window}")
    if source.n_images != len(listing.ids):
        lines.append(f"{source.n_images:_} images of {len(listing.ids):_} samples")
    yield from dict.fromkeys(lines)  # a listing may have said of its classes what we say
    if listing.groups is not None:
        yield f"{len({*listing.groups.tolist()})} patients"


def _describe_encoder(job: Job, config: ExtractConfig, channels: set[int]) -> Iterator[str]:
    d, anatomy = job.description, job.description.anatomy
    widths = sorted({anatomy.width[layer] for layer in d.layers})
    pools = "cls + mean" if anatomy.has_cls else "mean"
    last = [(name, d.arrays[name]) for name in ("head", "proj") if name in d.arrays]
    head = "".join(f" + {name} of {width}" for name, width in last)
    yield (
        f"{d.entry.name} = {d.entry.encoder} · {anatomy.n_parameters / 1e6:.1f} M parameters · "
        f"{d.size} px"
    )
    yield (
        f"  layers     {len(d.layers)} of {anatomy.n_layers} x ({pools}) of "
        f"{'..'.join(map(str, sorted({widths[0], widths[-1]})))}{head} · norm: {d.norm_rule}"
    )
    if not anatomy.known:
        yield f"  note       {anatomy.family} isn't in the table of families: layers are raw"
    words = str(make_transform(d.size, job.preprocessing, min(channels), NEUTRAL))
    if len(channels) > 1:
        words = words.replace(
            grey := CHANNELS[job.preprocessing.channels], f"{grey}, {COLOUR} as it is"
        )
    if job.preprocessing.of_data_set:
        words = words[: words.index("mean ")] + "mean and std of each data set's train split"
    if fitted := fit_words(job, config):
        yield f"  size       {fitted}"
    yield f"  transform  {words}"
    if config.protocol:
        paper = PROTOCOLS[config.protocol].paper
        yield f"  protocol   {protocol_words(job, config)} ({paper})"
    yield f"  weights    {_describe_weights(d, config)}"
    yield f"  precision  {config.precision}, stored as {config.store}"


def _describe_weights(d: Description, config: ExtractConfig) -> str:
    if config.weights == "random":
        return f"RANDOM (seed {config.seed}): a control, not an encoder"
    weights = find_weights(d, config.weights, config.seed, download=False)
    if weights.path is None and weights.to_download is None:
        return "made by the encoder's own code"
    if weights.path is None:
        if offline():
            return f"{weights.to_download} isn't here, and {FORBIDDEN}"
        size = format_bytes(4 * d.anatomy.n_parameters)
        return f"download {weights.to_download} first (about {size})"
    return weights.path.name if config.weights == "pretrained" else weights.named(weights.path)


def find_file(job: Job, config: ExtractConfig, memory: DigestMemory) -> Path | None:
    """Where this job's features will be, as far as remembered digests tell without any reading."""
    source = job.source
    try:
        weights = find_weights(job.description, config.weights, config.seed, download=False)
        images = _known_images(source, memory)
        if weights.path is None or images is None:
            return None
        digest = recall_weights_digest(weights, memory)
    except (RequestError, CacheError, OSError):
        return None
    statistics = recall_statistics(source, memory) if job.preprocessing.of_data_set else None
    if digest is None or (job.preprocessing.of_data_set and not statistics):
        return None
    transform = make_transform(
        job.description.size, job.preprocessing, source.n_channels, statistics
    )
    key = feature_key(
        job.description,
        config,
        transform,
        weights=weights_words(weights, digest),
        dataset=source.name,
        images=images,
        source_size=source.source_size,
        slicing=source.slicing,
        reading=source.reading,
    )
    d = job.description
    return feature_path(config.root, source.name, d.entry.name, d.size, key)


def _known_images(source: Source, memory: DigestMemory) -> str | None:
    """The images' digest as the key has it, where no file must be read for it."""
    if source.digest is not None:
        return source.digest
    if source.path is None or not source.path.is_file():
        return None
    md5 = memory.recall("md5", source.path)
    return None if md5 is None else f"md5:{md5}"


def bytes_to_reserve(job: Job, config: ExtractConfig, memory: DigestMemory) -> int:
    """What this job's file will still take: nothing once it exists, for it is made whole."""
    path = find_file(job, config, memory)
    if path and not config.overwrite and (path.exists() or partial_path(path).exists()):
        return 0
    return file_bytes(job.description, config.store, job.source)


def check_space(plan: Plan, memory: DigestMemory) -> None:
    """Refuse a plan that the disk can't hold, before the first download.

    Raises:
        RequestError: too little room for features, or for features and downloads together.
    """
    config = plan.config
    features = sum(bytes_to_reserve(job, config, memory) for job in plan.jobs)
    root = existing_parent(config.root)
    free = shutil.disk_usage(root).free
    if features > free and config.shard[1] == 1:
        raise RequestError(
            f"the features take {format_bytes(features)}, and {root} has {format_bytes(free)} "
            "free; free some space, choose another place with --features DIR, fewer layers with "
            "--layers last4, or fewer sets with --data"
        )
    files = {job.source.file for job in plan.jobs if job.source.file and not job.source.present}
    if not files:
        return
    downloads = sum(download_bytes(file) or 0 for file in files)
    folder = existing_parent(next(iter(files)).path.parent)
    free = shutil.disk_usage(folder).free
    same_disk = folder.stat().st_dev == root.stat().st_dev
    if downloads + (features if same_disk else 0) > free:
        raise RequestError(
            f"the downloads take {format_bytes(downloads)}, and {folder} has "
            f"{format_bytes(free)} free; free some space, or choose another place with --data-root"
        )


def existing_parent(path: Path) -> Path:
    """The nearest folder above ``path``, itself included, that exists."""
    path = path.absolute()
    return next(p for p in (path, *path.parents) if p.is_dir())
