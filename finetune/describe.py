"""What will be trained, in words, and what can be refused before any weight is read."""

from __future__ import annotations

from collections.abc import Iterator

from cache.commands.names import counted
from cache.errors import RequestError
from extract.plan import Plan
from finetune.config import FinetuneConfig, Request, settle
from finetune.model.classifier import check_model
from finetune.setting import describe_mode, subject_of
from finetune.start.row import find_row


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
