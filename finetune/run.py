"""A request from end to end: data sets, trainings, the choice on val, test read once, rows.

A trial is one training: one encoder learning rate, one seed. Of several rates that one is taken whose
best checks on val are the highest, in the mean over seeds; test is read for its trials alone. Rows
are a probe's rows (probe/results.py), so that one table compares both.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch

from cache.errors import CacheError, Failure, RequestError
from extract.encoders.encoder import (
    choose_device,
    find_weights,
    load_encoder,
    set_precision,
    weights_digest,
)
from extract.job import Job
from extract.key import feature_key, weights_words
from extract.machine.digests import DigestMemory
from extract.machine.workers import default_workers
from extract.plan import Plan
from extract.spec import encoder_notes
from finetune.config import FinetuneConfig, Request, settle
from finetune.data.augment import make_augmentation
from finetune.data.batches import Loader
from finetune.data.images import find_transform, open_images
from finetune.episodes import answer_episodes
from finetune.model.classifier import check_model
from finetune.model.deit import find_deit
from finetune.rows import make_answer
from finetune.setting import OF_EPISODES, READ, Say, Setting, Trial, subject_of
from finetune.training.objective import make_objective
from finetune.training.ranks import Ranks, join_ranks
from finetune.training.training import Learned, measure_length
from finetune.trials import (
    check_measures,
    choose_rate,
    describe_choice,
    files_of,
    forget_trials,
    make_first_head,
    refit_files,
    run_trial,
)
from probe.questions.describe import describe_questions
from probe.questions.laying import lay_over
from probe.questions.leaks import refuse_leaks, with_leaks
from probe.questions.question import Asked
from probe.results import Row, check_folder, write_row


def run_request(
    request: Request, plan: Plan, memory: DigestMemory, say: Say
) -> tuple[list[Row], list[Failure]]:
    """Train and test every encoder on every data set of the plan.

    Under torchrun every rank runs this; the first one writes and speaks.

    Returns:
        The rows, already written, and what couldn't be done. Of other ranks than the first none.

    Raises:
        RequestError: the folder of results can't be written, or no such device.
    """
    device = choose_device(request.run.device)
    rows: list[Row] = []
    problems = list(plan.problems)
    with join_ranks(device) as ranks:
        if not ranks.is_first:
            say = _silent
        else:
            check_folder(request.results_dir)
        for job in plan.jobs:
            try:
                for row in run_job(request, job, memory, device, ranks, say):
                    if ranks.is_first:
                        write_row(request.results_dir, row, request.name)
                        rows.append(row)
            except BrokenPipeError:  # of say: nobody listens any more
                raise
            except (CacheError, RequestError, OSError) as error:
                if ranks.size > 1:  # the others may have come further: they can't go on together
                    raise
                problems.append(Failure(job.label, str(error)))
    return rows, problems


def _silent(line: str) -> None:
    pass


def run_job(
    request: Request, job: Job, memory: DigestMemory, device: torch.device, ranks: Ranks, say: Say
) -> Iterator[Row]:
    """One encoder on one data set: a row for each seed, and each fold.

    Raises:
        RequestError, CacheError, OSError: as the message says; rows and checkpoints stay.
    """
    setting = prepare(request, job, memory, device, ranks, say)
    questions = lay_over(request.overlay, setting.images.features)
    for line in describe_questions(questions):
        say(line)
    read = OF_EPISODES if request.few_shot else READ
    questions = [with_leaks(asked, read, say) for asked in questions]
    for asked in questions:
        if request.strict:
            refuse_leaks(asked)
    for asked in questions:
        yield from answer(setting, asked)


def prepare(
    request: Request, job: Job, memory: DigestMemory, device: torch.device, ranks: Ranks, say: Say
) -> Setting:
    """Everything before the first training."""
    d = job.description
    config, followed = settle(request, subject_of(d))
    check_model(d, config.model)
    set_precision(config.train.precision, device)
    weights = find_weights(d, request.images.weights, request.images.seed, download=True)
    transform = find_transform(job, memory, say)
    augmentation = make_augmentation(config.train.augment, d.size)
    with_stored = augmentation is not None and augmentation.needs_stored
    images = open_images(job, request.images, transform, memory, say, with_stored=with_stored)
    wish = request.images.workers
    n_workers = default_workers() if wish is None else wish
    digest = (
        load_encoder(d, weights)[1] if weights.path is None else weights_digest(weights, memory)
    )
    key = feature_key(
        d,
        request.images,
        transform,
        weights=weights_words(weights, digest),
        dataset=job.source.name,
        images=images.digest,
        source_size=images.source_size,
        slicing=images.slicing,
        reading=images.reading,
    )
    return Setting(
        request,
        job,
        config,
        followed,
        weights,
        images,
        Loader(images, transform, augmentation, device, n_workers),
        Loader(images, transform, None, device),
        key,
        encoder_notes(job, weights, request.images),
        device,
        ranks,
        say,
        _deit_digest(config, memory),
    )


def _deit_digest(config: FinetuneConfig, memory: DigestMemory) -> str | None:
    """SHA-256 of the weights that a DeiT head begins with; None: it has none, or random ones."""
    m = config.model
    weights = find_deit(m.head_weights) if m.head == "deit" else None
    return weights_digest(weights, memory) if weights and weights.path else None


def answer(setting: Setting, asked: Asked) -> Iterator[Row]:
    """The rows of one question: every rate is trained with every seed, the best is tested.

    Raises:
        RequestError: nothing can be learned, or every rate diverged; rows of seeds that ended
            before the only rate diverged are there.
    """
    started = time.perf_counter()
    if setting.request.few_shot:
        yield from answer_episodes(setting, asked, started)
        return
    learned = make_learned(setting, asked)
    t = setting.config.train
    rates = setting.config.rates
    length = measure_length(t, learned)
    if t.iterations not in (None, length.n_iterations):
        setting.say(f"  length     {length}")
    head = make_first_head(setting, asked, learned.objective)
    todo = [Trial(rate, seed, head) for rate in rates for seed in t.seeds]
    files = [files_of(setting, asked, trial) for trial in todo]
    # A refit of what was trained before is none of this; there needn't be any.
    refits = [refit for refit in map(refit_files, files) if refit.folder.exists()]
    forget_trials(setting, [*files, *refits])
    if len(rates) == 1:  # nothing to choose: each seed's row is there when its training ends
        for trial in todo:
            one = run_trial(setting, learned, trial)
            yield make_answer(setting, learned, one, [one], started)
            started = time.perf_counter()
        return
    tried = [run_trial(setting, learned, trial) for trial in todo]
    best = choose_rate(tried)
    by = learned.objective.choose_by
    setting.say(f"  {setting.label}: {describe_choice(setting.config, by, tried, best)}")
    for one in tried:
        if one.trial.encoder_lr == best:
            yield make_answer(setting, learned, one, tried, started)
            started = time.perf_counter()


def make_learned(setting: Setting, asked: Asked) -> Learned:
    """What is learned from which samples.

    Raises:
        RequestError: a split that is needed is empty, or nothing can be learned.
    """
    train, val, test = (np.flatnonzero(asked.is_in(name)) for name in READ)
    for name, samples in (("training", train), ("val", val), ("test", test)):
        if not len(samples):
            raise RequestError(f"{asked.title} has no {name} images; --split makes some")
    objective = make_objective(
        asked.task, asked.class_names, asked.labels[train], setting.config.train
    )
    check_measures(setting, asked, objective, {"val": val, "test": test})
    return Learned(asked, objective, train, val)
