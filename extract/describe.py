"""A plan in words, before anything is loaded: what is computed, from what, and how much it takes."""

import dataclasses
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cache import RequestError
from cache.commands.names import NORM2, format_bytes
from cache.format.key import partial_path
from cache.format.spec import HASH_BYTES, N_ERROR, PICTURE_SHAPE, RECORD_WORDS
from cache.format.units import UNIT_ROWS, count_units, fitting_rows
from cache.labels.target import describe_target
from extract.config import CHANNELS, COLOUR, ExtractConfig
from extract.datasets.arrays.official import describe_download, download_bytes
from extract.datasets.looks import thumbnail_side
from extract.datasets.sources import Source
from extract.encoders.encoder import Description, find_weights
from extract.job import Job
from extract.key import NEUTRAL, find_file, make_transform, protocol_words
from extract.machine.digests import DigestMemory
from extract.machine.network import FORBIDDEN, offline
from extract.plan import Plan
from extract.prepare.protocols import PROTOCOLS, wished_size
from extract.prepare.transforms import describe_distortion


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


def file_bytes(description: Description, config: ExtractConfig, source: Source) -> int:
    """Length of a feature file, but for its small tables."""
    n_images = min(source.n_images, len(config.ids) or source.n_images)
    looks = HASH_BYTES + thumbnail_side(source.source_size) ** 2 + picture_bytes(config)
    row = looks + sum(
        math.prod(shape if isinstance(shape, tuple) else (shape,)) * np.dtype(config.store).itemsize
        for shape in description.arrays.values()
    )
    scales = 0
    if config.store == "int8":
        scales = sum(
            4 * description.anatomy.width[layer] + 8 * N_ERROR for layer in description.layers
        )
    counted = row if picture_bytes(config) else row + math.prod(PICTURE_SHAPE)
    rows = fitting_rows(counted, scales) if description.tokens else UNIT_ROWS
    return n_images * row + count_units(n_images, rows) * (RECORD_WORDS * 4 + scales)


def picture_bytes(config: ExtractConfig) -> int:
    """Of the picture that a file of tokens holds of each row."""
    return math.prod(PICTURE_SHAPE) if config.tokens is not None and config.pictures else 0


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
        taken = file_bytes(d, config, source)
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
    lines += filter(None, [source.files.kept_words, listing.masks and listing.masks.words])
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
    if d.tokens:
        yield from _describe_tokens(d, config)
    else:
        yield (
            f"  layers     {len(d.layers)} of {anatomy.n_layers} x ({pools}) of "
            f"{'..'.join(map(str, sorted({widths[0], widths[-1]})))}{head} · norm: {_norm_words(d)}"
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


def _describe_tokens(d: Description, config: ExtractConfig) -> Iterator[str]:
    grids = ", ".join(dict.fromkeys(f"{h} x {w} x {c}" for h, w, c in d.token_shapes))
    raw = ", for the family norms pooled vectors" if d.anatomy.norm_rule == "pooled" else ""
    yield (
        f"  layers     {len(d.layers)} of {d.anatomy.n_layers} x tokens of {grids} · norm: "
        f"{_norm_words(d)}{raw if d.norm_rule == 'none' else ''}"
    )
    sizes = {math.prod(shape) * np.dtype(config.store).itemsize for shape in d.token_shapes}
    words = " to ".join(map(format_bytes, sorted({min(sizes), max(sizes)})))
    picture = format_bytes(picture_bytes(config))
    beside = f", and its picture {picture} (--no-pictures)" if config.pictures else ""
    yield f"  an image   {words} a layer{beside}"


def _norm_words(d: Description) -> str:
    if d.layer_norm != NORM2:
        return d.norm_rule
    return f"{NORM2} of the next block, of the last layer {d.final_rule}"


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


def bytes_to_reserve(job: Job, config: ExtractConfig, memory: DigestMemory) -> int:
    """What this job's file will still take: nothing once it exists, for it is made whole."""
    path = find_file(job, config, memory)
    if path and not config.overwrite and (path.exists() or partial_path(path).exists()):
        return 0
    return file_bytes(job.description, config, job.source)


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
        fewer = "fewer layers with --layers last4"
        if config.tokens is not None:
            fitting = ", ".join(_fitting(plan, free)) or "nothing less of it fits"
            fewer = f"less of it ({fitting}), a smaller --size"
        raise RequestError(
            f"the features take {format_bytes(features)}, and {root} has {format_bytes(free)} "
            f"free; free some space, choose another place with --features DIR, {fewer}, or fewer "
            "sets with --data"
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


def _fitting(plan: Plan, free: int) -> Iterator[str]:
    """What of tokens would fit: flags, and what they take."""
    config = plan.config
    most = max(len(job.description.layers) for job in plan.jobs)
    small = {"store": "int8", "pictures": False}
    ways: list[list[tuple[str, dict[str, Any], int]]] = [
        [("--store int8", {"store": "int8"}, most)],
        [("--no-pictures", {"pictures": False}, most)],
        [(f"--tokens last{n}", {}, n) for n in range(most - 1, 0, -1)],
        [("--tokens last1 --store int8 --no-pictures", small, 1)],
    ]
    for alike in ways:
        for words, change, n in alike:
            less = dataclasses.replace(config, **change)
            taken = sum(
                file_bytes(dataclasses.replace(d, layers=d.layers[-n:]), less, job.source)
                for job in plan.jobs
                for d in [job.description]
            )
            if taken <= free and (less != config or n < most):
                yield f"{words} takes {format_bytes(taken)}"
                break


def existing_parent(path: Path) -> Path:
    """The nearest folder above ``path``, itself included, that exists."""
    path = path.absolute()
    return next(p for p in (path, *path.parents) if p.is_dir())
