"""What a feature file says of itself: its spec, notes, versions, and the command that makes it."""

import dataclasses
import platform
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from cache.commands.names import NOT_INSTALLED, version_of
from cache.commands.settings import words
from cache.format.spec import HASH, HASH_BYTES, PICTURE, PICTURE_SHAPE, THUMBNAIL, FileSpec
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
    TokensConfig,
)
from extract.datasets.dataset import Dataset
from extract.datasets.files.images import USUAL_SPLIT
from extract.datasets.origins import describe_seen
from extract.datasets.sources import CSV, FOLDER, SEG_FOLDER
from extract.describe import fit_words
from extract.encoders.encoder import Weights
from extract.encoders.weights.published import Hub
from extract.job import Job
from extract.key import encoder_name, feature_key, protocol_words
from extract.loaded import LazyEncoder
from extract.prepare.transforms import Transform

TRAINED = "medprobe_trained"  # in the metadata of finetune's encoders: what on, and how


def make_spec(
    job: Job,
    dataset: Dataset,
    encoder: LazyEncoder,
    config: ExtractConfig,
    transform: Transform,
) -> FileSpec:
    """All that the file will say of itself."""
    d = job.description
    key = feature_key(job, config, transform, weights=encoder.words, images=dataset.images_digest)
    key |= {"rows": dict(dataset.rows)} if dataset.rows else {}
    notes = {
        "transform": str(transform),
        "licence": dataset.licence,
        **encoder_notes(job, encoder.weights, config),
    }
    if d.tokens and d.norm_rule != d.anatomy.norm_rule == "pooled":
        notes["tokens"] = f"raw: {d.anatomy.family} norms the pooled vector, and no tokens"
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
        arrays={
            **d.arrays,
            HASH: HASH_BYTES,
            THUMBNAIL: dataset.thumbnail_side**2,
            **({PICTURE: PICTURE_SHAPE} if d.tokens and config.pictures else {}),
        },
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
    seen = () if weights.random else entry.pretraining.seen if published else None
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
        *(TextConfig, TokensConfig, ProtocolConfig, PreparingConfig, SourceConfig),
        *(FeaturesConfig, ReadingConfig, OutputConfig),
    )
    return shlex.join(found)


def data_words(job: Job, config: ExtractConfig) -> list[str]:
    """Of ``command_line``, what says which labels and which split there are."""
    found = ["--data", job.source.wish]
    if job.source.wish.startswith((CSV, FOLDER, SEG_FOLDER)):
        found += words(config.table)
    if drawn := job.source.files and job.source.files.drawn:
        usual = str(drawn.rule) == USUAL_SPLIT and not config.split
        found += [] if usual else ["--split", str(drawn.rule)]
        found += ["--split-seed", str(drawn.seed)] if drawn.seed else []
    return found


PACKAGES = (
    *("medprobe", "torch", "timm", "open_clip_torch", "transformers", "numpy", "h5py", "pillow"),
    *("pydicom", "python-gdcm", "nibabel"),
)


def versions() -> dict[str, str]:
    """The versions of what computes the features."""
    found = {name: version_of(name) for name in PACKAGES}
    here = {name: version for name, version in found.items() if version != NOT_INSTALLED}
    return here | {"python": platform.python_version()}
