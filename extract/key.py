"""What changes features: the key of a feature file, and the transform and weights it names."""

import dataclasses
from pathlib import Path
from typing import Any

from cache import CacheError, RequestError
from cache.commands.names import NORM2
from cache.format.key import feature_path, untagged
from extract.config import CHANNELS, COLOUR, INTENSITIES, ExtractConfig
from extract.datasets.sources import Source
from extract.datasets.statistics import recall_statistics
from extract.datasets.volumes import Slicing
from extract.encoders.encoder import Description, Weights, find_weights, recall_weights_digest
from extract.job import Job
from extract.machine.digests import DigestMemory
from extract.prepare.protocols import Preprocessing, preprocess, wished_norm, wished_size
from extract.prepare.transforms import Transform

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
    mean, std = preprocessing.mean, preprocessing.std
    if of_data_set is not None:
        mean, std = mean or of_data_set[0], std or of_data_set[1]
    assert mean is not None, "the data set's mean and std are settled before its transform"
    assert std is not None
    settled = {
        "mean": mean,
        "std": std,
        "channels": CHANNELS[preprocessing.channels] if n_channels == 1 else COLOUR,
        "intensity": INTENSITIES[preprocessing.intensity],
    }
    return Transform(size, **{**dataclasses.asdict(preprocessing), **settled})


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


def feature_key(
    job: Job, config: ExtractConfig, transform: Transform, *, weights: str, images: str
) -> dict[str, Any]:
    """Everything that changes the features, and nothing else.

    Args:
        job: the encoder at its size, and the data set: how its images are stored, cut and read.
        config: for precision and storage.
        transform: from stored images to the encoder's input.
        weights: digest of the weights as read, or the seed and digest of random ones.
        images: digest of the data set's images.
    """
    description, source = job.description, job.source
    key = {
        "format": 1,
        "encoder": encoder_name(description, config),
        "arguments": description.arguments,
        "weights": weights,
        "dataset": source.name,
        "images": images,
        "source_size": source.source_size or "various",
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
    if description.tokens:
        key["tokens"] = {"grids": [list(grid) for grid in description.grids]}
    if description.layer_norm == NORM2:  # the last layer is normed as always
        key["layers"]["last"] = description.final_rule
    if source.reading is not None:
        key["reading"] = dict(source.reading)
    if source.slicing is not None:
        key["slices"] = source.slicing.key
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


def find_file(job: Job, config: ExtractConfig, memory: DigestMemory) -> Path | None:
    """Where this job's features will be, as far as remembered digests tell without any reading."""
    source = job.source
    if config.ids:  # which rows they are, only the images tell
        return None
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
    words = weights_words(weights, digest)
    key = feature_key(job, config, transform, weights=words, images=images)
    d = job.description
    return feature_path(config.root, source.name, d.entry.name, d.size, key)


def _known_images(source: Source, memory: DigestMemory) -> str | None:
    """The images' digest as the key has it, where no file must be read for it."""
    if source.digest is not None:
        return source.digest
    if source.path is None or not source.path.is_file():
        return None
    md5 = memory.recall("md5", source.path)
    return None if md5 is None else f"md5:{md5} {source.part}".strip()
