"""What all trainings of one encoder on one data set share, and its words.

Also what will be trained, in lines to print, and what can be refused before any weight is read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from cache.commands.names import counted
from cache.errors import RequestError
from cache.labels.target import UNLABELLED
from extract import loaded
from extract.encoders.encoder import Description, Weights
from extract.encoders.libraries.families import RAW_MAPS
from extract.job import Job
from extract.machine.digests import DigestMemory
from extract.plan import Plan
from finetune.config import FinetuneConfig, Request, settle
from finetune.data.batches import Loader
from finetune.data.images import Images
from finetune.decoder import describe_decoder, is_of_masks
from finetune.model.classifier import check_model
from finetune.protocols import Subject
from finetune.ranks import Ranks
from finetune.start.head import FirstHead
from probe.protocols import Followed
from probe.row_names import find_row

KIND = "finetune"
READ = ["train", "val", "test"]
OF_EPISODES = ["train", "test"]  # an episode chooses nothing on val
Say = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """A request, and what it comes to."""

    value: str  # of --each, as "freeze-until 3"; "": there is none
    request: Request
    plan: Plan
    lines: tuple[str, ...]  # the plan in words, see ``describe_plan``


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
    # Of a DeiT head's weights as read; None: random, or no such head.
    head_digest: str | None = None
    told: set[str] = dataclasses.field(default_factory=set)

    def say_once(self, line: str) -> None:
        """Of several trials the first one says what is true of all."""
        if line not in self.told:
            self.told.add(line)
            self.say(line)

    @property
    def label(self) -> str:
        return f"{self.job.label}, {describe_mode(self.config)}"


@dataclass(frozen=True)
class Trial:
    """What differs between the trainings of one question."""

    encoder_lr: float  # the encoder's full rate
    seed: int
    head: FirstHead | None = None  # that it begins with; None: by the seed
    episode: int | None = None  # its number, few-shot
    like: str | None = None  # the digest of all the episodes


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


def named_rate(config: FinetuneConfig, rate: float) -> dict[str, float]:
    """A trial's rate by the name of what has it; nothing where the head's is one for all."""
    return {config.rate_name: rate} if config.rate_name else {}


def describe_rate(config: FinetuneConfig, rate: float) -> str:
    """The rate that trials differ in, or the head's."""
    if config.rate_name is None:
        return f"head lr {config.train.head_lr:g}"
    return f"{config.rate_name.replace('_', ' ')} {rate:g}"


def has_masks_alone(job: Job, memory: DigestMemory) -> bool:
    """Whether a data set that is here has masks and no labels."""
    if not job.source.present:
        return False
    dataset = loaded.open_images(job, memory)
    return dataset.masks is not None and dataset.class_names == (UNLABELLED,)


def describe_plan(request: Request, plan: Plan, memory: DigestMemory) -> Iterator[str]:
    """What will be trained, in lines to print.

    Args:
        request: the user's.
        plan: its jobs.
        memory: of digests.

    Raises:
        RequestError: what can be known to fail before any weight is read.
    """
    for job in plan.jobs:
        d = job.description
        what = f"{job.label} · {d.entry.encoder} · {d.size} px"
        if is_of_masks(request) or has_masks_alone(job, memory):
            yield from describe_decoder(request, what)
            continue
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
        yield f"{what} · {describe_mode(config)}"
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
