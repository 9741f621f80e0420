"""A request from end to end: data sets, trainings, the choice on val, test read once, rows.

A trial is one training: one encoder learning rate, one seed. Of several rates that one is taken whose
best checks on val are the highest, in the mean over seeds; test is read for its trials alone. Rows
are a probe's rows (probe/results.py), so that one table compares both.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cache.commands.names import counted, encoder_label
from cache.errors import CacheError, RequestError
from cache.format.key import N_DIGEST, file_stem, key_digest
from cache.labels.columns import REGRESSION
from extract.encoders.encoder import (
    Description,
    Weights,
    choose_device,
    find_weights,
    load_encoder,
    set_precision,
    weights_digest,
)
from extract.encoders.libraries.families import RAW_MAPS
from extract.machine.digests import DigestMemory
from extract.machine.workers import default_workers
from extract.plan import Job, Plan, encoder_name, feature_key, protocol_words, weights_words
from extract.run import TRAINED, encoder_notes, versions
from finetune.config import FinetuneConfig, Request, settle
from finetune.data.augment import make_augmentation
from finetune.data.batches import Loader
from finetune.data.images import Images, find_transform, open_images
from finetune.model.classifier import (
    Classifier,
    build_classifier,
    check_model,
    export_encoder,
    load_trained,
    start_head_anew,
    updates_batchnorm,
    what_trains,
)
from finetune.model.deit import find_deit
from finetune.model.modes import Trains
from finetune.protocols import Subject
from finetune.start.episodes import episodes_like
from finetune.start.head import FirstHead, first_head
from finetune.start.row import find_row
from finetune.training.checkpoints import ENCODER, HEAD, Place, Trial, save_tensors
from finetune.training.objective import Objective, make_objective
from finetune.training.predict import Predicted, predict
from finetune.training.ranks import Ranks, join_ranks
from finetune.training.training import Diverged, Learned, Training, measure_length
from probe.config import ProbeConfig
from probe.episodes.draw import FewShotConfig, digest_of
from probe.features import divide_samples
from probe.kinds.protocols import Followed
from probe.kinds.ridge import RidgeConfig
from probe.metrics import classification as metrics
from probe.metrics.patients import Scored, by_patient
from probe.questions.describe import describe_questions
from probe.questions.leaks import refuse_leaks, with_leaks
from probe.questions.question import Asked, lay_over
from probe.results import Row, check_folder, write_row
from probe.row import make_row, of_patients, samples_of

KIND = "finetune"
READ = ["train", "val", "test"]
OF_EPISODES = ["train", "test"]  # an episode chooses nothing on val
Say = Callable[[str], None]
Problem = tuple[str, str]  # what couldn't be done, and why


def run_request(
    request: Request, plan: Plan, memory: DigestMemory, say: Say
) -> tuple[list[Row], list[Problem]]:
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
                problems.append((job.label, str(error)))
    return rows, problems


def subject_of(description: Description) -> Subject:
    """What of an encoder a paper's settings depend on."""
    anatomy, entry = description.anatomy, description.entry
    return Subject(
        entry.name,
        entry.encoder,
        anatomy.family in RAW_MAPS,
        (
            *anatomy.pools(anatomy.n_layers - 1),
            *(("head",) if anatomy.head_width else ()),
            *(("proj",) if anatomy.proj_width else ()),
        ),
    )


def describe_plan(request: Request, plan: Plan) -> Iterator[str]:
    """What will be trained, in lines to print.

    Raises:
        RequestError: what can be known to fail before any weight is read.
    """
    for job in plan.jobs:
        d = job.description
        config, followed = settle(request, subject_of(d))
        check_model(d, config.model)
        check_start(request, config)
        t = config.train
        rates = ", ".join(f"{rate:g}" for rate in config.rates)
        head = rates if t.head_lr is None else f"{t.head_lr:g}"
        if t.head_lr is None and config.model.encoder_trains:
            head = "that of the encoder"
        length = (
            counted(t.epochs, "epoch")
            if t.epochs
            else f"whole epochs up to {t.iterations:_} iterations"
        )
        yield f"{job.label} · {d.entry.encoder} · {d.size} px · {describe_mode(config)}"
        yield (
            f"  training   {length} of {t.batch_size} · {t.optimiser} · head lr {head}"
            + (f" · encoder lr {rates}" if config.model.encoder_trains else "")
            + f" · {t.schedule} · {t.precision}"
            + (f" · augmented: {t.augment}" if t.augment != "none" else "")
        )
        chosen = f"on val, by {t.choose_by}"
        if request.few_shot:
            chosen = "the last weights, for an episode has no val"
        elif t.refit != "train":
            chosen += "; then a new head learns from train and val"
        yield f"  choosing   {chosen}"
        if followed:
            yield f"  protocol   {followed}"
            yield from (f"             {line}" for line in followed.differs)
        n = len(t.seeds) * len(config.rates)
        seeds = counted(len(t.seeds), "seed")
        seeds += f" x {len(config.rates)} rates" if len(config.rates) > 1 else ""
        each = " of each episode" if request.few_shot else ""
        yield f"  trials     {n} ({seeds}){each}"


def check_start(request: Request, config: FinetuneConfig) -> None:
    """Refuse settings that contradict what training begins with.

    Raises:
        RequestError: a first head for another kind of head; or, of episodes, several rates, a
            plateau or a patience, all of which need a val, or a first head, which knows more labels
            than an episode has. Or there is no such row.
    """
    if request.init_head_from is not None and config.model.head != "linear":
        raise RequestError("--init-head-from is a linear head; leave out --head deit")
    if request.init_head_from is not None and not request.init_head_from.endswith(".safetensors"):
        find_row(request.init_head_from, request.results_dir, "--init-head-from")
    if not request.few_shot:
        return
    if config.train.refit != "train":
        raise RequestError("--refit train+val: an episode has no val to learn from; leave it out")
    if request.init_head_from is not None:
        raise RequestError(
            "--init-head-from: that head learnt from more labels than an episode has; leave it out"
        )
    if config.train.schedule == "plateau" or config.train.patience is not None:
        flag = "--patience" if config.train.patience is not None else "--schedule plateau"
        raise RequestError(
            f"{flag} watches val, and an episode has none; take --schedule constant, decay or "
            "cosine, without --patience"
        )
    if request.given.get("choose_by", "loss") not in ("loss", "auto"):  # which the task may need
        raise RequestError(
            "--choose-by: an episode chooses nothing on val, its last weights count; leave it out"
        )
    if len(config.rates) > 1:
        raise RequestError(
            f"an episode has nothing to choose one of {len(config.rates)} learning rates on; name "
            "one with --encoder-lr"
        )
    find_row(request.few_shot.like, request.results_dir, "--episodes-like")


def _silent(line: str) -> None:
    pass


@dataclass(frozen=True)
class Setting:
    """All that the trials of one job share."""

    request: Request
    job: Job
    config: FinetuneConfig
    followed: Followed | None
    weights: Weights
    images: Images
    augmented: Loader
    plain: Loader
    key: dict[str, Any]  # of the features of the encoder as it is before any training
    notes: dict[str, Any]  # of the encoder, as feature files have them
    device: torch.device
    ranks: Ranks
    say: Say
    head_digest: str | None = (
        None  # of a DeiT head's weights as read; None: random, or no such head
    )

    told: set[str] = dataclasses.field(default_factory=set)

    def say_once(self, line: str) -> None:
        """Of several trials the first one says what is true of all."""
        if line not in self.told:
            self.told.add(line)
            self.say(line)

    @property
    def label(self) -> str:
        return f"{self.job.label}, {describe_mode(self.config)}"


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


# ---------------------------------------------------------------------------- trials


@dataclass(frozen=True)
class Tried:
    """A trial that ended."""

    encoder_lr: float
    seed: int
    trial: Trial
    place: Place | None  # None: it diverged
    value: float  # of val, by what is chosen, higher is better; -inf: it diverged


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
    todo = [(rate, seed) for rate in rates for seed in t.seeds]
    trials = [make_trial(setting, asked, *which, head) for which in todo]
    # A refit of what was trained before is none of this; there needn't be any.
    refits = [trial for trial in map(refit_trial, trials) if trial.folder.exists()]
    forget_trials(setting, [*trials, *refits])
    if len(rates) == 1:  # nothing to choose: each seed's row is there when its training ends
        for rate, seed in todo:
            one = run_trial(setting, asked, learned, rate, seed, head)
            yield make_answer(setting, asked, learned, one, [one], head, started)
            started = time.perf_counter()
        return
    tried = [run_trial(setting, asked, learned, rate, seed, head) for rate, seed in todo]
    best = choose_rate(tried)
    setting.say(
        f"  {setting.label}: {describe_choice(setting.config, learned.objective.choose_by, tried, best)}"
    )
    for one in tried:
        if one.encoder_lr == best:
            yield make_answer(setting, asked, learned, one, tried, head, started)
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
    return Learned(objective, asked.labels, train, val)


def check_measures(
    setting: Setting,
    asked: Asked,
    objective: Objective,
    read: Mapping[str, NDArray[np.int64]],
) -> None:
    """Refuse before the training what couldn't be measured after it.

    Args:
        setting: of the job.
        asked: the question.
        objective: what is learned.
        read: the samples of each split that is scored.

    Raises:
        RequestError: val can't decide by what it is asked to; or patients are to be measured, and
            aren't known or have several labels.
    """
    logits = {
        name: np.zeros((len(of), objective.n_logits), np.float32) for name, of in read.items()
    }
    if "val" in read:
        judged = objective.judge(logits["val"], asked.labels[read["val"]])
        if math.isnan(objective.rank(judged)):
            raise RequestError(
                f"--choose-by {objective.choose_by}: val has none, for a class is missing there, or "
                "a label is known of no val image; take --choose-by loss, or another --split"
            )
    if setting.request.per_patient:
        groups = asked.features.groups
        for name, of in read.items():
            by_patient(
                Scored(
                    objective.scores(logits[name]),
                    asked.labels[of],
                    asked.features.ids[of],
                    None if groups is None else groups[of],
                )
            )


def answer_episodes(setting: Setting, asked: Asked, started: float) -> Iterator[Row]:
    """A row for each seed: every episode of a probe's row is trained on, and tested.

    Nothing is chosen on val, which holds far more labels than an episode: the last weights count.

    Raises:
        RequestError: as ``check_measures`` and ``episodes_like``.
    """
    request, config = setting.request, setting.config
    assert request.few_shot
    wish, (rate,) = request.few_shot, config.rates  # see check_start
    found = episodes_like(
        wish.like, request.results_dir, asked, wish.shots, wish.table, wish.n_episodes
    )
    episodes = found.samples
    test = np.flatnonzero(asked.is_in("test"))
    n_columns = 1 if asked.task == REGRESSION else len(asked.class_names)
    like = found.settings["digest"]
    # Nothing is chosen: what classes alone are chosen by mustn't refuse continuous labels.
    train = dataclasses.replace(config.train, choose_by="loss")
    labels = asked.labels[asked.is_in("train")]
    whole = make_objective(asked.task, asked.class_names, labels, train)
    check_measures(setting, asked, whole, {"test": test})
    forget_trials(
        setting,
        [
            make_trial(setting, asked, rate, seed, None, number, like)
            for seed in config.train.seeds
            for number in range(len(episodes))
        ],
    )
    for seed in config.train.seeds:
        scores = np.empty((len(episodes), len(test), n_columns), np.float32)
        for number, samples in enumerate(episodes):
            objective = make_objective(asked.task, asked.class_names, asked.labels[samples], train)
            if objective.score_type != metrics.PROBABILITY and found.settings.get("prior"):
                raise RequestError(
                    "--as-published scores several classes by a sigmoid each, which can't be "
                    "corrected to train's shares as those of the probe's episodes are; leave it out"
                )
            learned = Learned(objective, asked.labels, samples, test[:0])
            one = run_trial(setting, asked, learned, rate, seed, None, number, like)
            assert one.place
            classifier = build(setting, objective, seed)
            load_trained(classifier, one.trial.load_best(one.place), one.trial.folder)
            answers = predict(
                classifier, setting.plain, test, max(one.place.micro_batch, 1), setting.ranks
            )
            scores[number] = found.to_prior(objective.scores(answers.logits), number)
        few_shot = {
            **found.settings,
            "episodes": len(episodes),
            "images": max(map(len, episodes)),
            "digest": digest_of(list(episodes), asked.features.ids),
        }
        settings = probe_settings(setting, asked, objective, seed, OF_EPISODES)
        probe = {**settings, "few_shot": few_shot}
        chosen = {
            **_named_rate(config, rate),
            "trains": say_trains(what_trains(classifier, config.model)),
            "ddof": config.train.ddof,
        }
        marks = [found.mark, *_of_batchnorm(setting, classifier)]
        yield as_row(setting, asked, probe, chosen, {"test": scores}, marks, started)
        started = time.perf_counter()


def make_first_head(setting: Setting, asked: Asked, objective: Objective) -> FirstHead | None:
    """The linear head that training begins with, where one was named.

    Raises:
        RequestError: as ``finetune.start.head.first_head``.
    """
    request, m = setting.request, setting.config.model
    if request.init_head_from is None:
        return None
    return first_head(
        request.init_head_from,
        asked,
        setting.key,
        m.pool,
        objective.n_logits,
        results_dir=request.results_dir,
        features_dir=request.images.root,
        layer=m.cut_after,
    )


def run_trial(
    setting: Setting,
    asked: Asked,
    learned: Learned,
    encoder_lr: float,
    seed: int,
    head: FirstHead | None,
    episode: int | None = None,
    like: str | None = None,
) -> Tried:
    """One training, or what is left of it; a diverged one is out of the race, not an error.

    Args:
        setting: what all trials share.
        asked: the question.
        learned: what is learned from which samples.
        encoder_lr: the encoder's full rate.
        seed: of the training.
        head: that it begins with; None: by the seed.
        episode: its number, few-shot.
        like: the digest of all the episodes.
    """
    trial = make_trial(setting, asked, encoder_lr, seed, head, episode, like)
    label = f"{setting.label}, {_rate(setting.config, encoder_lr)}, seed {seed}"
    label += f", {asked.name}" if asked.name else ""
    label += "" if episode is None else f", episode {episode}"
    with trial.held(setting.ranks):
        classifier = build(setting, learned.objective, seed, head)
        training = Training(
            classifier,
            setting.augmented,
            setting.plain,
            learned,
            setting.config,
            encoder_lr,
            seed,
            trial,
            setting.ranks,
            label,
            setting.say,
        )
        try:
            place = training.run()
        except Diverged as error:
            if len(setting.config.rates) == 1:
                raise
            setting.say(f"  {label}: {error}")
            return Tried(encoder_lr, seed, trial, None, -math.inf)
    value = max((training.rank(check["val"]) for check in place.checks), default=math.nan)
    setting.say(f"  {label}: {describe_end(training, place)}")
    return Tried(encoder_lr, seed, trial, place, value)


def run_refit(
    setting: Setting, asked: Asked, learned: Learned, one: Tried, classifier: Classifier
) -> Tried:
    """A new head on the encoder of a trial that ended, which stays as it is, from train and val.

    Args:
        setting: what all trials share.
        asked: the question.
        learned: what the trial learned from.
        one: the trial.
        classifier: with its best weights; it ends with the new head's last ones.
    """
    trial, label = refit_trial(one.trial), f"{setting.label}, seed {one.seed}, train and val"
    with trial.held(setting.ranks):
        start_head_anew(classifier, learned.objective.n_logits, one.seed)
        both = dataclasses.replace(
            learned, train=np.concatenate([learned.train, learned.val]), val=learned.val[:0]
        )
        training = Training(
            classifier,
            setting.augmented,
            setting.plain,
            both,
            dataclasses.replace(setting.config, model=classifier.config),
            one.encoder_lr,
            one.seed,
            trial,
            setting.ranks,
            label,
            setting.say,
        )
        place = training.run()
        load_trained(classifier, trial.load_best(place), trial.folder)
    setting.say(f"  {label}: {describe_end(training, place)}")
    return dataclasses.replace(one, trial=trial, place=place)


def refit_trial(trial: Trial) -> Trial:
    """The place of the head that is trained on train and val after a trial."""
    folder = trial.folder.with_name(f"{trial.folder.name}_refit")
    return Trial(folder, {**trial.question, "refit": "train+val"})


def make_trial(
    setting: Setting,
    asked: Asked,
    encoder_lr: float,
    seed: int,
    head: FirstHead | None,
    episode: int | None = None,
    like: str | None = None,
) -> Trial:
    """The place of a training; arguments as ``run_trial`` has them."""
    question = trial_question(setting, asked, encoder_lr, seed)
    if head:
        question["head"] = _digest(head.weights, head.intercept)
    if episode is not None:
        question |= {"like": like, "episode": episode}
    return Trial(trial_folder(setting, question), question)


def forget_trials(setting: Setting, trials: Sequence[Trial]) -> None:
    """Throw away what is to be overwritten, all of it before the first training.

    So a run that is interrupted then goes on without ``--overwrite``, and takes nothing old.
    """
    if setting.request.run.overwrite and setting.ranks.is_first:
        for trial in trials:
            with trial.held(setting.ranks):
                trial.forget()
    setting.ranks.wait()


def build(
    setting: Setting, objective: Objective, seed: int, head: FirstHead | None = None
) -> Classifier:
    """The network with its first weights, on its device; what trains is said once."""
    classifier, _ = build_classifier(
        setting.job.description,
        setting.weights,
        setting.config.model,
        objective.n_logits,
        seed,
        setting.say_once,
    )
    if head:
        found, wanted = head.weights.shape[1], classifier.places.shape[0]
        if found != wanted:  # of a row it is known already; a file says nothing else
            raise RequestError(
                f"--init-head-from: its head is of {found} features, and this one sees {wanted}; "
                "name one of the same encoder, layer and pool"
            )
        tensors = {"weight": head.weights, "bias": head.intercept}
        classifier.head.load_state_dict({n: torch.from_numpy(t) for n, t in tensors.items()})
    trains = what_trains(classifier, setting.config.model)
    setting.say_once(f"  trains     encoder {trains.encoder}")
    if trains.adapters.n_all:
        setting.say_once(f"             adapters {trains.adapters}")
    setting.say_once(f"             head {trains.head}")
    return classifier.to(setting.device)


def trial_question(setting: Setting, asked: Asked, encoder_lr: float, seed: int) -> dict[str, Any]:
    """What makes this training another than any other."""
    train = dataclasses.asdict(setting.config.train)
    for name in ("encoder_lr", "seeds", "ddof", "refit"):  # a refit is a training of its own
        train.pop(name)
    return {
        "features": key_digest(setting.key),
        "task": [asked.task, *asked.class_names],
        "samples": samples_of(asked),
        "model": model_settings(setting.config, setting.head_digest),
        "train": train,
        **_named_rate(setting.config, encoder_lr),
        "seed": seed,
    }


def trial_folder(setting: Setting, question: dict[str, Any]) -> Path:
    """``runs/{dataset}/{model}_{size}_{mode}_{digest}/{rate and seed}``."""
    of_rate = setting.config.rate_name
    shared = {n: v for n, v in question.items() if n not in (of_rate, "seed", "episode")}
    d = setting.job.description
    rate = f"lr{question[of_rate]:g}_" if of_rate else ""
    name = f"{file_stem(d.entry.name)}_{d.size}_{setting.config.model.mode}"
    folder = setting.request.runs_dir / file_stem(setting.job.source.name)
    episode = f"_episode{question['episode']:03d}" if "episode" in question else ""
    run = f"{name}_{key_digest(shared)[:N_DIGEST]}"
    return folder / run / f"{rate}seed{question['seed']}{episode}"


def choose_rate(tried: Sequence[Tried]) -> float:
    """The encoder's rate with the highest mean over seeds; the smaller of two.

    Raises:
        RequestError: every rate diverged.
    """
    means = _means(tried)
    if max(means.values()) == -math.inf:
        raise RequestError(f"every learning rate diverged; try --encoder-lr {min(means) / 10:g}")
    return max(means, key=lambda rate: (means[rate], -rate))


def _means(tried: Sequence[Tried]) -> dict[float, float]:
    """Of each rate the mean over seeds of what is chosen by, higher is better."""
    values: dict[float, list[float]] = {}
    for one in tried:
        values.setdefault(one.encoder_lr, []).append(one.value)
    return {rate: float(np.mean(of)) for rate, of in sorted(values.items())}


def describe_choice(config: FinetuneConfig, by: str, tried: Sequence[Tried], best: float) -> str:
    """Which rate is tested, and how all did on val by ``by``."""
    sign = -1 if by == "loss" else 1
    means = ", ".join(
        f"{rate:g}: {'diverged' if value == -math.inf else f'{sign * value:.3f}'}"
        for rate, value in _means(tried).items()
    )
    return f"{_rate(config, best)} is tested; best val {by}, in the mean over seeds: {means}"


# ---------------------------------------------------------------------------- answers


def make_answer(
    setting: Setting,
    asked: Asked,
    learned: Learned,
    one: Tried,
    tried: Sequence[Tried],
    head: FirstHead | None,
    started: float,
) -> Row:
    """Test the best weights of a trial, and say what it was."""
    assert one.place
    config, place = setting.config, one.place
    classifier = build(setting, learned.objective, one.seed)
    load_trained(classifier, one.trial.load_best(place), one.trial.folder)
    trains = what_trains(classifier, config.model)
    has_changed = config.model.encoder_trains or updates_batchnorm(classifier)

    def score(split: str) -> Predicted:
        samples = np.flatnonzero(asked.is_in(split))
        at_once = max(place.micro_batch, 1)
        return predict(classifier, setting.plain, samples, at_once, setting.ranks)

    found = {"val": score("val")}
    tested, marks = one, _of_batchnorm(setting, classifier)
    if config.train.refit != "train":
        tested = run_refit(setting, asked, learned, one, classifier)
        marks.append(
            "tested is a new head, trained on train and val on the encoder that val chose; val "
            "numbers are those of the head before it"
        )
    assert tested.place
    found["test"] = score("test")
    if setting.ranks.is_first:
        keep_weights(setting, classifier, tested, has_changed)
    probe = probe_settings(setting, asked, learned.objective, one.seed, READ)
    if head:
        probe["head_from"] = _digest(head.weights, head.intercept)
    best = next(check for check in place.checks if check["iteration"] == place.best)
    chosen = {
        **_named_rate(config, one.encoder_lr),
        "iteration": place.best,  # of the best val, so what training took
        "of": place.iteration,
        "seconds": best["seconds"],
        "images_per_s": best["images_per_s"],
        "seconds_per_test_image": round(found["test"].seconds_per_image, 6),
        "by": learned.objective.choose_by,
        "tried": [
            {
                **_named_rate(config, other.encoder_lr),
                "seed": other.seed,
                "value": other.value if math.isfinite(other.value) else None,
                "iteration": other.place.best if other.place else None,
            }
            for other in tried
        ],
        "trains": say_trains(trains),
        **({"refit_iterations": tested.place.iteration} if tested is not one else {}),
        **({"head": dict(head.source)} if head else {}),
        **({"head_weights": classifier.head_digest} if classifier.head_digest else {}),
        "checkpoint": str(tested.trial.best_path(tested.place)),
        **({"halved_micro_batches": place.halved} if place.halved else {}),
        "ddof": config.train.ddof,
    }
    scores = {name: learned.objective.scores(p.logits) for name, p in found.items()}
    return as_row(setting, asked, probe, chosen, scores, marks, started)


def probe_settings(
    setting: Setting, asked: Asked, objective: Objective, seed: int, read: list[str]
) -> dict[str, Any]:
    """Every setting that changes the numbers, as a row's ``probe`` has them."""
    config = setting.config
    train = dataclasses.asdict(config.train)
    train.pop("ddof")
    if config.train.refit == "train":
        train.pop("refit")  # rows from before there was a choice have none
    if not config.rate_name:
        train.pop("encoder_lr")
    if len(config.rates) == 1:
        train.pop("seeds")  # of several rates, all seeds have a say in which one is taken
    return {
        "kind": KIND,
        **model_settings(config, setting.head_digest),
        "layer": last_layer(setting),
        **train,
        **({} if setting.images.rows_are_samples else {"aggregate": "mean"}),
        **of_patients(as_probe(setting), asked),
        **(
            {}
            if objective.score_type == metrics.PROBABILITY
            else {"score_type": objective.score_type}
        ),
        "training_seed": seed,
        "read": read,
        "n_resamples": setting.request.n_resamples,
    }


def as_probe(setting: Setting, few: Mapping[str, Any] | None = None) -> ProbeConfig:
    """The settings of a probe that measures likewise; its kind is of no meaning here."""
    request = setting.request
    return ProbeConfig(
        kind="ridge",
        ridge=RidgeConfig(),
        few_shot=FewShotConfig((few["shots"],), few["episodes"]) if few else None,
        per_patient=request.per_patient,
        seed=request.seed,
        n_resamples=request.n_resamples,
    )


def say_trains(trains: Trains) -> dict[str, dict[str, Any]]:
    """Of each part: how many parameters train, of how many, and their names, many as one."""
    parts = {"encoder": trains.encoder, "adapters": trains.adapters, "head": trains.head}
    return {name: dataclasses.asdict(part) for name, part in parts.items() if part.n_all}


def _digest(*arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def as_row(
    setting: Setting,
    asked: Asked,
    probe: dict[str, Any],
    chosen: dict[str, Any],
    scores: dict[str, NDArray[Any]],
    marks: list[str],
    started: float,
) -> Row:
    """Measure the scores as a probe's are measured, and say which encoder they are of."""
    request, d = setting.request, setting.job.description
    nothing = np.zeros((len(asked.labels), 0), np.float32)  # nobody reads the features here
    splits = divide_samples(nothing, asked)
    row = make_row(
        as_probe(setting, probe.get("few_shot")),
        asked,
        splits,
        probe,
        chosen,
        scores,
        marks,
        started,
    )
    protocol = protocol_words(setting.job, request.images)
    return dataclasses.replace(
        row,
        features={
            "model": d.entry.name,
            "label": encoder_label(d.entry.name, setting.notes, setting.key),
            "encoder": encoder_name(d, request.images),
            "size": d.size,
            "dataset": asked.dataset,
            "task": asked.task,
            "digest": key_digest(setting.key),
            "key": setting.key,
            "samples": row.features["samples"],
            "tables": row.features["tables"],
        },
        marks=(*row.marks, *_marks(setting, protocol)),
        seen=str(setting.notes["seen"]),
        protocol=protocol,
        probe_protocol=dataclasses.asdict(setting.followed) if setting.followed else {},
        versions={**row.versions, **versions()},
    )


def _marks(setting: Setting, protocol: str) -> Iterator[str]:
    notes, train, followed = setting.notes, setting.config.train, setting.followed
    if followed:
        yield f"trained as {followed}"
        yield from followed.differs
    if str(notes["seen"]).startswith("yes"):
        how = str(notes["seen"]).removeprefix("yes").lstrip(":, ")
        yield "the encoder saw these images in pretraining" + (how and f": {how}")
    if protocol:
        yield f"preprocessed as {protocol}"
    if notes.get("fitted"):
        yield str(notes["fitted"])
    if notes["random_weights"]:
        yield "random weights"
    if notes["own_weights"]:
        yield f"weights from {notes['weights'] or 'a file'}"
    if train.augment != "none":
        yield f"trained on augmented images: {train.augment}"


def _of_batchnorm(setting: Setting, classifier: Classifier) -> list[str]:
    """What the row says of a frozen encoder that changed all the same."""
    if setting.config.model.encoder_trains or not updates_batchnorm(classifier):
        return []
    return ["BatchNorm of the frozen encoder trained on each batch's statistics"]


def keep_weights(setting: Setting, classifier: Classifier, one: Tried, has_changed: bool) -> None:
    """Beside the checkpoints, for ``extract --weights``: the encoder as it is now, and its head.

    The encoder's file says what it was trained on, and so do the rows of its features. One that
    hasn't changed has none.
    """
    trial, config = one.trial, setting.config
    save_tensors(trial.folder / HEAD, classifier.head.state_dict())
    if not has_changed:
        return
    if setting.config.model.cut_after is not None:
        setting.say_once(f"  {setting.label}: no {ENCODER}, for extract takes whole encoders")
        return
    how = f"{describe_mode(config)}, {_rate(config, one.encoder_lr)}, seed {one.seed}"
    trained = {TRAINED: f"fine-tuned on {setting.job.source.name} ({how})"}
    path = trial.folder / ENCODER
    save_tensors(path, export_encoder(classifier), trained)
    setting.say(f"  {setting.label}, seed {one.seed}: for extract --weights: {path}")


def model_settings(config: FinetuneConfig, head_digest: str | None) -> dict[str, Any]:
    """What of the network changes numbers; memory and compilation don't.

    Args:
        config: the settings.
        head_digest: of the DeiT head's weights, wherever they are; None: they are random.
    """
    settings = dataclasses.asdict(config.model)
    settings["head_weights"] = head_digest or settings["head_weights"]
    for name in ("grad_checkpointing", "compile"):
        settings.pop(name)
    unused = {"lora": config.model.lora is None, "head_weights": config.model.head == "linear"}
    unused["pool"] = config.model.head == "deit"
    return {name: value for name, value in settings.items() if not unused.get(name)}


def last_layer(setting: Setting) -> int:
    """The block that the head stands on."""
    cut = setting.config.model.cut_after
    return setting.job.description.anatomy.n_layers - 1 if cut is None else cut


def describe_mode(config: FinetuneConfig) -> str:
    """ "partial from block 6, deit head"."""
    m = config.model
    words = m.mode if m.freeze_until is None else f"{m.mode} from block {m.freeze_until}"
    words += f", cut after block {m.cut_after}" if m.cut_after is not None else ""
    return words + (f", {m.head} head" if m.head != "linear" else "")


def describe_end(training: Training, place: Place) -> str:
    """How a training ended."""
    name = training.learned.objective.choose_by
    best = next((c for c in place.checks if c["iteration"] == place.best), None)
    if best is None or not best["val"]:
        return counted(place.iteration, "iteration")
    return (
        f"best val {name} {best['val'][name]:.3f} after {place.best:_} of "
        f"{training.n_iterations:_} iterations"
    )


def _named_rate(config: FinetuneConfig, rate: float) -> dict[str, float]:
    """A trial's rate by the name of what has it; nothing where the head's is one for all."""
    return {config.rate_name: rate} if config.rate_name else {}


def _rate(config: FinetuneConfig, rate: float) -> str:
    """The rate that trials differ in, or the head's."""
    if config.rate_name is None:
        return f"head lr {config.train.head_lr:g}"
    return f"{config.rate_name.replace('_', ' ')} {rate:g}"
