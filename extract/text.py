"""``extract --text``: class prompts as features, in a file of their own with a key of their own."""

from collections.abc import Callable
from typing import Any

import numpy as np

from cache import CacheError, RequestError
from cache.key import text_path
from cache.layout import FileSpec, Samples
from cache.store import FeatureWriter
from cache.units import unit_rows
from extract.config import ExtractConfig
from extract.datasets.prompts import make_prompts, prompt_classes, read_prompts
from extract.datasets.sources import Source, expand_names, find_source
from extract.digests import DigestMemory
from extract.encoders.checkpoints import read_checkpoint
from extract.encoders.encoder import DTYPES, describe
from extract.encoders.resolve import find_entry
from extract.encoders.text_tower import TextTower, build_text_tower, has_text_tower
from extract.plan import Job, Problem, encoder_name
from extract.preprocessing import preprocess, wished_size
from extract.run import LazyEncoder, command_line, encoder_notes, versions

Say = Callable[[str], None]


def run_texts(config: ExtractConfig, say: Say) -> list[Problem]:
    """Store the prompts' features of every encoder for every data set.

    Returns:
        What couldn't be done, and why.

    Raises:
        RequestError: nothing at all can be done.
    """
    memory = DigestMemory(config.root / ".digests.json")
    problems: list[Problem] = []
    done = 0
    for model in dict.fromkeys(config.models):
        try:
            entry = find_entry(model)
            if not has_text_tower(entry):
                build_text_tower(entry, None, "")  # says why not
            size = wished_size(config, entry)
            description = describe(model, size, "-1")
        except RequestError as error:
            problems.append((model, str(error)))
            continue
        jobs = []
        for name in expand_names(config.data):
            try:
                source = find_source(name, description.size, config.source_size, config.data_root)
            except RequestError as error:
                problems.append((name, str(error)))
            else:
                settings = preprocess(config, entry, description.statistics)
                jobs.append(Job(description, source, settings))
        if config.dry_run:
            for job in jobs:
                classes = describe_classes(job.source, memory)[1]
                say(f"{job.label}: prompts of {len(classes)} classes")
            done += len(jobs)
            continue
        try:
            encoder = LazyEncoder(description, config, memory)
            path = encoder.weights.path
            tensors = read_checkpoint(path) if path else None
            tower = build_text_tower(entry, tensors, str(path), config.seed)
            tower.module.to(device=encoder.device, dtype=DTYPES[config.precision])
        except (RequestError, OSError) as error:
            problems.append((model, str(error)))
            continue
        for job in jobs:
            try:
                say(_run_job(job, encoder, tower, config, memory))
                done += 1
            except (CacheError, RequestError, OSError) as error:
                problems.append((job.label, str(error)))
    problems = list(dict.fromkeys(problems))
    if not done:
        raise RequestError("; ".join(why for _, why in problems))
    return problems


def describe_classes(source: Source, memory: DigestMemory) -> tuple[str, tuple[str, ...]]:
    """Task and class names of a data set; official ones are known without their images."""
    if source.classes is not None:
        return source.classes
    dataset = source.open(memory)
    return dataset.task, dataset.class_names


def _run_job(
    job: Job, encoder: LazyEncoder, tower: TextTower, config: ExtractConfig, memory: DigestMemory
) -> str:
    task, class_names = describe_classes(job.source, memory)
    classes = prompt_classes(task, class_names)
    if config.prompts:
        prompts = read_prompts(config.prompts.expanduser(), classes)
    else:
        prompts = make_prompts(job.source.name, classes, config.templates)
    texts = [text for name in classes for text in prompts[name]]
    labels = [label for label, name in enumerate(classes) for _ in prompts[name]]
    ids = [f"{label}/{n}" for label, name in enumerate(classes) for n in range(len(prompts[name]))]
    vectors = tower(texts).numpy()
    spec = _make_spec(job, encoder, tower, config, prompts, ids, labels, vectors.shape[1])
    d = job.description
    path = text_path(config.root, job.source.name, d.entry.name, spec.key)
    with FeatureWriter(path, spec, overwrite=config.overwrite) as writer:
        if writer.was_complete:
            return f"{job.label}, texts: complete already, every checksum right · {path}"
        for unit in writer.todo:
            start, stop = unit_rows(unit, spec.n_rows)
            writer.write_unit(unit, {"proj": vectors[start:stop]})
        writer.finish({"prompts": len(texts), "device": encoder.device.type})
    return f"{job.label}: {len(texts)} prompts of {len(classes)} classes · {path}"


def _make_spec(
    job: Job,
    encoder: LazyEncoder,
    tower: TextTower,
    config: ExtractConfig,
    prompts: dict[str, list[str]],
    ids: list[str],
    labels: list[int],
    width: int,
) -> FileSpec:
    d = job.description
    key: dict[str, Any] = {
        "format": 1,
        "encoder": encoder_name(d, config),
        "weights": encoder.words,
        "dataset": job.source.name,
        "text": {"prompts": prompts},
        "layers": {"of": d.anatomy.n_layers},
        "precision": config.precision,
        "store": config.store,
    }
    return FileSpec(
        model=d.entry.name,
        encoder=key["encoder"],
        size=0,
        dataset=job.source.name,
        task="multi-class",
        class_names=tuple(prompts),
        key=key,
        arrays={"proj": width},
        dtype=config.store,
        row_ids=np.array(ids),
        row_sample=np.arange(len(ids)),
        samples=Samples(np.array(ids), np.zeros(len(ids), np.uint8), np.array(labels, np.int64)),
        command=command_line(job, config),
        notes={**encoder_notes(job, encoder, config), "logit_scale": tower.logit_scale},
        versions=versions(),
    )
