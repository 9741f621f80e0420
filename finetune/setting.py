"""What all trainings of one encoder on one data set share, and its words."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from extract.encoders.encoder import Description, Weights
from extract.encoders.libraries.families import RAW_MAPS
from extract.job import Job
from finetune.config import FinetuneConfig, Request
from finetune.data.batches import Loader
from finetune.data.images import Images
from finetune.protocols import Subject
from finetune.start.head import FirstHead
from finetune.training.ranks import Ranks
from probe.protocols import Followed

KIND = "finetune"
READ = ["train", "val", "test"]
OF_EPISODES = ["train", "test"]  # an episode chooses nothing on val
Say = Callable[[str], None]


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
