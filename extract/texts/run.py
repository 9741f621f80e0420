"""``extract --text``: class prompts as features, in a file of their own with a key of their own."""

import dataclasses
import hashlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cache import RequestError
from cache.errors import Failure
from cache.format.key import feature_path
from cache.format.spec import FileSpec, Samples
from cache.format.units import unit_rows
from cache.store import FeatureWriter
from cache.task import MULTI_CLASS
from extract.config import ExtractConfig
from extract.datasets.sources import FileWishes, Source, find_source
from extract.encoders.anatomy import Statistics
from extract.encoders.encoder import DTYPES, Description, describe, find_weights, read_weights
from extract.encoders.resolve import find_entry
from extract.job import Job, Say
from extract.key import encoder_name
from extract.loaded import LazyEncoder
from extract.machine.digests import DigestMemory
from extract.machine.network import offline
from extract.plan import plan_jobs
from extract.prepare.protocols import preprocess
from extract.run import run_jobs
from extract.spec import command_line, encoder_notes, versions
from extract.texts.prompts import TEMPLATES, make_prompts, prompt_classes, read_prompts
from extract.texts.tower import (
    TextOutline,
    TextTower,
    load_text_tower,
    make_tokenizer,
    outline_text,
    refuse_textless,
)

NO_PICTURES = Statistics(
    (0.0,) * 3, (1.0,) * 3
)  # what an encoder wants of them, texts needn't know


@dataclass
class TextJob(Job):
    """The prompts of one data set for one encoder."""

    outline: TextOutline
    classes: tuple[str, ...]
    prompts: dict[str, list[str]]  # of each class

    @property
    def texts(self) -> list[str]:
        """All prompts, class by class."""
        return [text for name in self.classes for text in self.prompts[name]]

    @property
    def places(self) -> list[tuple[int, int]]:
        """Class number and prompt number of each text."""
        counts = [len(self.prompts[name]) for name in self.classes]
        return [(label, n) for label, count in enumerate(counts) for n in range(count)]

    def __str__(self) -> str:
        return f"{self.label}: {len(self.texts)} prompts of {len(self.classes)} classes"


class LazyText(LazyEncoder):
    """An encoder whose text tower, alone, is loaded when there is work to do."""

    def __init__(self, job: TextJob, config: ExtractConfig, memory: DigestMemory) -> None:
        self.outline = job.outline
        self.tokenize = make_tokenizer(job.outline)  # or else weights would be fetched in vain
        super().__init__(job.description, config, memory)
        self._tower: TextTower | None = None

    def tower(self) -> TextTower:
        """The tower on its device.

        Raises:
            RequestError: the weights don't fit.
        """
        if self._tower is None:
            self.refused = True
            tensors = None
            if self.weights.path:
                checkpoint, digest = read_weights(self.weights)
                self.check(digest)
                tensors = checkpoint.tensors
            tower = load_text_tower(self.outline, tensors, str(self.weights.path), self.config.seed)
            tower.module.to(device=self.device, dtype=DTYPES[self.config.precision])
            self._tower, self.refused = tower, False
        return self._tower


def run_texts(config: ExtractConfig, say: Say) -> list[Failure]:
    """Store the prompts' features of every encoder for every data set.

    Returns:
        What couldn't be done, and why.

    Raises:
        RequestError: nothing at all can be done.
    """
    plan = plan_jobs(config, partial(_describe, config), partial(_make_job, config))
    if config.dry_run:
        for _, jobs in itertools.groupby(plan.jobs, key=lambda job: id(job.description)):
            first = next(jobs)
            for line in [_describe_weights(first.description, config), first, *jobs]:
                say(str(line))
        return plan.problems
    memory = DigestMemory(config.root / ".digests.json")
    problems, n_done = run_jobs(plan, lambda job: LazyText(job, config, memory), _run_job, say)
    problems = list(dict.fromkeys(problems))
    if not n_done:
        raise RequestError("; ".join(why for _, why in problems))
    return problems


def _describe(config: ExtractConfig, model: str) -> tuple[Description, TextOutline]:
    """Both sides of an encoder, before any weight is read.

    Raises:
        RequestError: it has no text side.
    """
    entry = find_entry(model)
    refuse_textless(entry)  # first: others needn't be built
    description = describe(model, None, "-1")
    outline = outline_text(entry)
    find_weights(description, config.weights, config.seed, download=False)
    return description, outline


def _describe_weights(description: Description, config: ExtractConfig) -> str:
    weights = find_weights(description, config.weights, config.seed, download=False)
    if weights.random:
        where = f"RANDOM (seed {config.seed})"
    elif weights.to_download:
        missing = weights.to_download
        where = f"{missing} isn't here" if offline() else f"download {missing} first"
    else:
        where = str(weights.path)
    name = encoder_name(description, config)
    return f"{description.entry.name} = {name} · texts · weights: {where}"


def _make_job(
    config: ExtractConfig, encoder: tuple[Description, TextOutline], name: str
) -> TextJob:
    description, outline = encoder
    wishes = FileWishes(table=config.table, only_classes=True)
    source = find_source(name, description.size, None, config.data_root, files=wishes)
    settings = preprocess(config, description.entry, NO_PICTURES)
    return TextJob(description, source, settings, outline, *choose_prompts(source, config))


class NoDigests(DigestMemory):
    """For opening a data set whose images aren't wanted: reading gigabytes would be in vain."""

    def get(self, kind: str, file: Path, compute: Callable[[Path], str]) -> str:
        return ""


def choose_prompts(
    source: Source, config: ExtractConfig
) -> tuple[tuple[str, ...], dict[str, list[str]]]:
    """The prompted classes of a data set, and the prompts of each.

    Raises:
        RequestError: the user's prompts don't fit, or the classes have no names to ask for.
    """
    if source.classes is not None:  # official ones are known without their images
        task, names = source.classes
    else:
        dataset = source.open(NoDigests(config.root))
        task, names = dataset.task, dataset.class_names
    classes = prompt_classes(task, names)
    if config.prompts:
        return classes, read_prompts(config.prompts.expanduser(), classes)
    if not config.templates and source.name not in TEMPLATES and all(map(str.isdecimal, names)):
        raise RequestError(
            f"the classes of {source.name} are numbers ({', '.join(names[:3])}...), which say "
            "nothing to a text tower; give --prompts FILE, or a --template in which they mean "
            "something"
        )
    return classes, make_prompts(source.name, classes, config.templates)


def _run_job(job: TextJob, text: LazyText) -> str:
    """One file of texts.

    Returns:
        What was done, in one line.

    Raises:
        RequestError, CacheError, OSError: as the message says.
    """
    config = text.config
    tokens = text.tokenize(job.texts)
    spec = make_spec(job, text, tokens)
    path = feature_path(config.root, spec.dataset, spec.model, None, spec.key)
    vectors = None
    if not path.exists() or config.overwrite:  # first: weights that don't fit must leave no file
        tower = text.tower()
        vectors = tower(tokens).numpy()
        scales = {"logit_scale": tower.logit_scale}
        scales |= {} if tower.logit_bias is None else {"logit_bias": tower.logit_bias}
        spec = dataclasses.replace(spec, notes={**spec.notes, **scales})
    with FeatureWriter(path, spec, overwrite=config.overwrite) as writer:
        if writer.was_complete:
            return f"{job.label}, texts: complete already, every checksum right · {path}"
        if vectors is None:  # of a file that was complete, and is damaged
            vectors = text.tower()(tokens).numpy()
        for unit in writer.todo:
            start, stop = unit_rows(unit, spec.n_rows)
            writer.write_unit(unit, {"proj": vectors[start:stop]})
        finished = datetime.now(timezone.utc).isoformat(timespec="seconds")
        writer.finish({"device": text.device.type, "finished": finished})
    return f"{job} · {path}"


def make_spec(job: TextJob, text: LazyText, tokens: Tensor) -> FileSpec:
    """All that the file will say of itself, but for the scale, which the weights hold.

    Args:
        job: the prompts.
        text: the tower.
        tokens: (P, T) of the prompts: what a tokenizer makes of them is part of the key.
    """
    config, outline = text.config, text.outline
    description, dataset = job.description, job.source.name
    digest = hashlib.sha256(f"{tuple(tokens.shape)} ".encode() + tokens.numpy().tobytes())
    key: dict[str, Any] = {
        "format": 1,
        "encoder": encoder_name(description, config),
        "arguments": outline.arguments,
        "weights": text.words,
        "dataset": dataset,
        "text": {"prompts": job.prompts, "tokens": f"sha256:{digest.hexdigest()}"},
        "layers": {"of": outline.n_layers},
        "precision": config.precision,
        "store": config.store,
    }
    places = job.places
    ids = np.array([f"{label}/{n}" for label, n in places])
    labels = np.array([label for label, _ in places], np.int64)
    return FileSpec(
        model=description.entry.name,
        encoder=key["encoder"],
        size=0,
        dataset=dataset,
        task=MULTI_CLASS,
        class_names=job.classes,
        key=key,
        arrays={"proj": outline.width},
        dtype=config.store,
        row_ids=ids,
        row_sample=np.arange(len(ids)),
        samples=Samples(ids, np.zeros(len(ids), np.uint8), labels),
        command=command_line(job, config),
        notes=encoder_notes(job, text.weights, config),
        versions=versions(),
    )
