"""Stage one: decode -> resize -> one forward pass -> pooled layers -> feature file.

Everything beside the forward pass overlaps with it: a thread decodes ahead, the device resizes
and normalises, a thread stores the unit before while the next one is computed.

A plan's jobs can be pickled, what computes a job's features knows of no file, and one loop writes: so
another engine may compute the blocks elsewhere.
"""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any, TypeVar

import torch

from cache import CacheError, RequestError
from cache.errors import Failure
from cache.features import Features
from cache.format.key import feature_path
from cache.format.spec import PICTURE
from cache.leak_memory import count_leaks
from cache.leaks import describe_leaks
from cache.masks import open_masks, write_masks
from cache.store import FeatureWriter
from extract.config import ExtractConfig, default_batch_size
from extract.datasets.chosen import choose_rows
from extract.datasets.masks import describe_masks
from extract.fingerprint import make_fingerprint
from extract.forward import compute_blocks, write_blocks
from extract.job import Job, Say
from extract.leak_guard import refuse_leaks
from extract.loaded import LazyEncoder, find_transform, open_images
from extract.machine.digests import DigestMemory
from extract.machine.progress import Progress, per_second
from extract.machine.stopwatch import Stopwatch, describe_device
from extract.plan import Plan
from extract.spec import data_words, make_spec
from extract.table_update import share_tables

J = TypeVar("J", bound=Job)
E = TypeVar("E", bound=LazyEncoder)


def run_plan(plan: Plan[Job], memory: DigestMemory, say: Say) -> list[Failure]:
    """Do every job; what fails is noted and the others go on.

    Returns:
        What couldn't be done, and why.
    """
    config = plan.config
    problems, _ = run_jobs(
        plan,
        lambda job: LazyEncoder(job.description, config, memory),
        lambda job, encoder: run_job(job, encoder, config, memory, say),
        say,
    )
    return problems


def run_jobs(
    plan: Plan[J], load: Callable[[J], E], do: Callable[[J, E], str], say: Say
) -> tuple[list[Failure], int]:
    """Do jobs in order; those of one encoder stand together, and it is loaded once.

    Args:
        plan: the jobs, and what failed before.
        load: of a job, the encoder.
        do: the job with it; what was done, in one line.
        say: told that line.

    Returns:
        What couldn't be done, and why; and how many jobs were.
    """
    problems, n_done = list(plan.problems), 0
    for _, same in itertools.groupby(plan.jobs, key=lambda job: id(job.description)):
        jobs = list(same)
        name = jobs[0].description.entry.name
        try:
            encoder = load(jobs[0])
        except (RequestError, OSError) as error:
            problems.append(Failure(name, str(error)))
            continue
        for job in jobs:
            try:
                say(do(job, encoder))
                n_done += 1
            except BrokenPipeError:  # of say: nobody listens any more
                raise
            except (CacheError, RequestError, OSError) as error:
                problems.append(Failure(name if encoder.refused else job.label, str(error)))
                if encoder.refused:  # the other sets would only hear the same
                    break
        del encoder  # freed before the next is loaded
    return problems, n_done


def run_job(
    job: Job, encoder: LazyEncoder, config: ExtractConfig, memory: DigestMemory, say: Say
) -> str:
    """One encoder over one data set.

    Returns:
        What was done, in one line.

    Raises:
        RequestError, CacheError, OSError: as the message says; what was stored stays.
    """
    if not job.source.present:
        encoder.get(say)  # before a download: weights that don't fit would make it in vain
    dataset = all_images = open_images(job, memory)
    transform = find_transform(job, dataset, memory, lambda line: say(f"  {job.label}: {line}"))
    if config.ids:  # behind the transform, which may be of all training images
        dataset = choose_rows(dataset, config.ids)
    spec = make_spec(job, dataset, encoder, config, transform)
    d = job.description
    path = feature_path(config.root, dataset.name, d.entry.name, d.size, spec.key)
    if not config.ids:
        if config.strict:
            refuse_leaks(dataset, path, say)
        share_tables(dataset, config.root, path, data_words(job, config), config.shard, say)
    if d.tokens and all_images.masks is not None:  # whatever was chosen: one file serves all
        masks = write_masks(path.parent, dataset.name, all_images.row_ids, all_images.masks)
        say(f"  {job.label}: {describe_masks(open_masks(masks), all_images)}")
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
        ranges = [writer.header.rows_of(unit) for unit in todo]
        n_before = spec.n_rows - sum(stop - start for start, stop in ranges)
        if todo and n_before and config.shard[1] == 1:
            say(f"  {job.label}: going on after {n_before:_} of {spec.n_rows:_} images")
        started, watch = time.monotonic(), Stopwatch(encoder.device)
        with Progress(job.label, spec.n_rows, done=n_before) as progress:
            if todo:
                network, note = encoder.get(say), progress.advance
                with same_threads(writer, encoder.device, say):
                    rows = writer.header.unit_rows
                    pictures = PICTURE in writer.header.arrays  # as the file was begun
                    blocks = compute_blocks(
                        *(network, dataset, transform, todo, config, note, watch, rows),
                        pictures=pictures,
                    )
                    write_blocks(writer, blocks, max(1, batch_size(config, encoder) // rows))
        n_done = progress.done - progress.first
        cost = _cost(encoder, config, n_done, time.monotonic() - started, watch.seconds)
        whole = writer.whole()
        if whole is not None and not config.ids:
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


def batch_size(config: ExtractConfig, encoder: LazyEncoder) -> int:
    """Images of a batch."""
    usual = default_batch_size(encoder.device.type, encoder.description.size)
    return config.batch_size or usual


def _cost(
    encoder: LazyEncoder, config: ExtractConfig, n: int, seconds: float, forward: float | None
) -> dict[str, Any]:
    device = encoder.device
    return {
        "images": n,
        "seconds": round(seconds, 3),
        "images_per_s": round(n / seconds, 3) if seconds else 0.0,
        **({} if forward is None else {"forward_seconds": round(forward, 6)}),
        "parameters": encoder.description.anatomy.n_parameters,
        "device": describe_device(device),
        "batch_size": batch_size(config, encoder),
        "shards": config.shard[1],
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
