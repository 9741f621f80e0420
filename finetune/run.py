"""A request from end to end: data sets, trainings, the choice on val, test read once, rows.

A trial is one training: one encoder learning rate, one seed. Of several rates that one is taken whose
best checks on val are the highest, in the mean over seeds; test is read for its trials alone. Rows
are a probe's rows (probe/results.py), so that one table compares both.
"""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from cache.errors import CacheError, Failure, RequestError
from extract.encoders.encoder import (
    find_weights,
    load_encoder,
    weights_digest,
)
from extract.job import Job
from extract.key import feature_key, weights_words
from extract.machine.devices import choose_device, set_precision
from extract.machine.digests import DigestMemory
from extract.machine.workers import default_workers
from extract.spec import encoder_notes
from finetune.config import FinetuneConfig, Request, settle
from finetune.data.augment import make_augmentation
from finetune.data.batches import Loader
from finetune.data.images import find_transform, open_images
from finetune.decoder import is_of_masks
from finetune.model.classifier import check_model, load_trained, what_trains
from finetune.model.heads import find_deit
from finetune.ranks import Ranks, join_ranks
from finetune.rows import (
    as_row,
    cost_of,
    make_answer,
    marks_of_batchnorm,
    probe_settings,
    say_trains,
)
from finetune.segmenting import run_decoder
from finetune.setting import (
    OF_EPISODES,
    READ,
    Asked,
    Say,
    Setting,
    Trial,
    has_masks_alone,
    named_rate,
    subject_of,
)
from finetune.start.episodes import episodes_like
from finetune.training.objective import make_objective
from finetune.training.predict import predict
from finetune.training.rates import measure_length
from finetune.training.training import Learned
from finetune.trials import (
    build,
    check_measures,
    choose_rate,
    describe_choice,
    files_of,
    forget_trials,
    make_first_head,
    refit_files,
    run_trial,
)
from probe.answer import Answer
from probe.episodes.draw import digest_of
from probe.metrics import classification as metrics
from probe.questions.describe import describe_questions
from probe.questions.laying import lay_over
from probe.questions.leaks import refuse_leaks, with_leaks
from probe.questions.question import Question
from probe.results import Row, check_folder, write_row


def run_plans(
    asked: Sequence[Asked], memory: DigestMemory, say: Say
) -> tuple[list[Row], list[Failure]]:
    """Train and test every encoder on every data set of the plans, one after the other.

    Under torchrun every rank runs this; the first one writes and speaks.

    Args:
        asked: one, or several that differ in the value of a setting.
        memory: of digests.
        say: told what is done.

    Returns:
        The rows, already written, and what couldn't be done. Of other ranks than the first none.

    Raises:
        RequestError: the folder of results can't be written, or no such device.
    """
    device = choose_device(asked[0].request.run.device)
    rows: list[Row] = []
    problems = [problem for one in asked for problem in one.plan.problems]
    with join_ranks(device) as ranks:
        if not ranks.is_first:
            say = _silent
        else:
            check_folder(asked[0].request.results_dir)
        for number, one in enumerate(asked, start=1):
            request = one.request
            if one.value:
                say(f"{number} of {len(asked)}: {one.value}")
            for job in one.plan.jobs:
                try:
                    for row in run_job(request, job, memory, device, ranks, say):
                        if ranks.is_first:
                            write_row(request.results_dir, row, request.name)
                            rows.append(row)
                except BrokenPipeError:  # of say: nobody listens any more
                    raise
                except (CacheError, RequestError, OSError) as error:
                    if (
                        ranks.size > 1
                    ):  # the others may have come further: they can't go on together
                        raise
                    what = f"{job.label}, {one.value}" if one.value else job.label
                    problems.append(Failure(what, str(error)))
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
    if is_of_masks(request) or has_masks_alone(job, memory):
        yield from run_decoder(request, job, memory, device, ranks, say)
        return
    setting = prepare(request, job, memory, device, ranks, say)
    questions = lay_over(request.overlay, setting.images.features)
    for line in describe_questions(questions):
        say(line)
    read = OF_EPISODES if request.few_shot else READ
    questions = [with_leaks(question, read, say) for question in questions]
    for question in questions:
        if request.strict:
            refuse_leaks(question)
    for question in questions:
        yield from answer(setting, question)


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
    if weights.path is None:
        digest = load_encoder(d, weights)[1]
        gc.collect()  # networks hold themselves, and this one was built for its digest alone
    else:
        digest = weights_digest(weights, memory)
    words = weights_words(weights, digest)
    images_digest = images.dataset.images_digest
    key = feature_key(job, request.images, transform, weights=words, images=images_digest)
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
    weights = find_deit(m.head_weights, download=True) if m.head == "deit" else None
    return weights_digest(weights, memory) if weights and weights.path else None


def answer(setting: Setting, question: Question) -> Iterator[Row]:
    """The rows of one question: every rate is trained with every seed, the best is tested.

    Raises:
        RequestError: nothing can be learned, or every rate diverged; rows of seeds that ended
            before the only rate diverged are there.
    """
    started = time.perf_counter()
    if setting.request.few_shot:
        yield from answer_episodes(setting, question, started)
        return
    learned = make_learned(setting, question)
    t = setting.config.train
    rates = setting.config.rates
    length = measure_length(t, len(learned.train), len(learned.val))
    if t.iterations not in (None, length.n_iterations):
        setting.say(f"  length     {length}")
    head = make_first_head(setting, question, learned.objective)
    todo = [Trial(rate, seed, head) for rate in rates for seed in t.seeds]
    files = [files_of(setting, question, trial) for trial in todo]
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


def make_learned(setting: Setting, question: Question) -> Learned:
    """What is learned from which samples.

    Raises:
        RequestError: a split that is needed is empty, or nothing can be learned.
    """
    train, val, test = (np.flatnonzero(question.is_in(name)) for name in READ)
    for name, samples in (("training", train), ("val", val), ("test", test)):
        if not len(samples):
            raise RequestError(f"{question.title} has no {name} images; --split makes some")
    objective = make_objective(question.task, question.labels[train], setting.config.train)
    check_measures(setting, question, objective, {"val": val, "test": test})
    return Learned(question, objective, train, val)


def answer_episodes(setting: Setting, question: Question, started: float) -> Iterator[Row]:
    """A row for each seed: every episode of a probe's row is trained on, and tested.

    Nothing is chosen on val, which holds far more labels than an episode: the last weights count.

    Raises:
        RequestError: as ``check_measures`` and ``episodes_like``.
    """
    request, config = setting.request, setting.config
    assert request.few_shot
    wish, (rate,) = request.few_shot, config.rates  # see check_start
    found = episodes_like(
        wish.like, request.results_dir, question, wish.shots, wish.table, wish.n_episodes
    )
    episodes = found.samples
    test = np.flatnonzero(question.is_in("test"))
    like = found.settings["digest"]
    # Nothing is chosen: what classes alone are chosen by mustn't refuse continuous labels.
    train = dataclasses.replace(config.train, choose_by="loss")
    labels = question.labels[question.is_in("train")]
    whole = make_objective(question.task, labels, train)
    check_measures(setting, question, whole, {"test": test})
    forget_trials(
        setting,
        [
            files_of(setting, question, Trial(rate, seed, None, number, like))
            for seed in config.train.seeds
            for number in range(len(episodes))
        ],
    )
    for seed in config.train.seeds:
        scores = np.empty((len(episodes), len(test), question.task.n_outputs), np.float32)
        times = np.empty((len(episodes), 2))  # of training, and of an image of test
        for number, samples in enumerate(episodes):
            objective = make_objective(question.task, question.labels[samples], train)
            if objective.score_type != metrics.PROBABILITY and found.settings.get("prior"):
                raise RequestError(
                    "--as-published scores several classes by a sigmoid each, which can't be "
                    "corrected to train's shares as those of the probe's episodes are; leave it out"
                )
            learned = Learned(question, objective, samples, test[:0])
            one = run_trial(setting, learned, Trial(rate, seed, None, number, like))
            assert one.position
            classifier = build(setting, objective, seed)
            load_trained(classifier, one.files.load_best(one.position), one.files.folder)
            answers = predict(
                classifier, setting.plain, test, max(one.position.micro_batch, 1), setting.ranks
            )
            times[number] = one.position.seconds, answers.seconds_per_image
            scores[number] = found.to_prior(objective.scores(answers.logits), number)
        few_shot = {
            **found.settings,
            "episodes": len(episodes),
            "images": max(map(len, episodes)),
            "digest": digest_of(list(episodes), question.features.ids),
        }
        settings = probe_settings(setting, question, objective, seed, OF_EPISODES)
        probe = {**settings, "few_shot": few_shot}
        trains = what_trains(classifier)
        chosen = {
            **named_rate(config, rate),
            "trains": say_trains(trains),
            "ddof": config.train.ddof,
        }
        marks = [found.mark, *marks_of_batchnorm(setting, classifier)]
        cost = cost_of(setting, trains, *times.mean(axis=0).tolist())  # an episode's
        yield as_row(
            setting, question, Answer(probe, chosen, {"test": scores}, marks), cost, started
        )
        started = time.perf_counter()
