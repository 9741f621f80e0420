"""The settings of ``finetune``: each has one home, here. Flags read these classes.

What an image is and how it is prepared is ``extract.config.ExtractConfig``; which labels and splits
are laid over the data set's own is ``probe.questions.overlay.OverlayConfig``. No torch here: the command line
reads these words.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from cache.errors import RequestError
from cache.places import results_root, runs_root
from extract.config import PRECISIONS, ExtractConfig
from finetune.protocols import Subject, TunePreset, find_tuning, follow_tuning, settings_for
from probe.kinds.protocols import Followed
from probe.questions.overlay import OverlayConfig

MODES = (
    "full",  # every parameter trains
    "head",  # the encoder is frozen
    "partial",  # the blocks from --freeze-until on, and what comes after them
    "lora",  # adapters of low rank in the encoder's linear layers (Hu et al. 2022)
    "bitfit",  # the encoder's biases alone (Ben Zaken et al. 2022)
)
HEADS = ("linear", "deit")  # "deit": a whole DeiT-B behind the patch tokens (Huix et al. 2024)
POOLS = ("head", "cls", "mean", "proj")  # what a linear head sees of the last layer
BATCHNORMS = ("auto", "train", "eval")
OPTIMISERS = ("adamw", "sgd")
SCHEDULES = ("constant", "decay", "cosine", "cosine-epochs", "plateau")
REFIT = ("train", "train+val")
AUGMENTS = ("none", "flip", "huix", "baharoon", "trivial")
# On val. "auto", as Huix et al. 2024: kappa of ordered classes, balanced accuracy of several, else AUC.
CHOOSE_BY = ("acc", "auc", "loss", "balanced_accuracy", "kappa", "auto")


@dataclass(frozen=True)
class LoraConfig:
    """Adapters of low rank, as ``peft`` makes them.

    Raises:
        RequestError: a number out of its range.
    """

    rank: int = 16
    alpha: float = 16.0  # the update is scaled by alpha / rank
    dropout: float = 0.0  # of the adapters' input, in training
    # Last parts of module names; (): the linear layers of attention and MLP, by family.
    targets: tuple[str, ...] = ()
    train_bias: bool = False  # also the biases of the layers that have adapters

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= 4096:
            raise RequestError(f"--lora-rank takes 1 to 4096, not {self.rank}")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise RequestError(f"--lora-alpha takes a number above 0, not {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise RequestError(f"--lora-dropout takes 0 to below 1, not {self.dropout}")


@dataclass(frozen=True)
class ModelConfig:
    """What the network is, and what of it trains.

    Raises:
        RequestError: an unknown word, or settings that contradict each other.
    """

    mode: str = "full"
    head: str = "linear"
    pool: str = "head"  # see POOLS; of the linear head
    head_weights: str = "pretrained"  # of the deit head: "pretrained", "random", or a file
    freeze_until: int | None = None  # blocks 0 to this one, excluded, stay as they are
    freeze_norm: bool = False  # also the encoder's final norm
    cut_after: int | None = None  # the last block that is kept (decapitation)
    lora: LoraConfig | None = None  # of mode "lora"
    # Running statistics of BatchNorm: "auto" updates them in what trains and leaves them in what is
    # frozen; "train" updates all, which the published code of Wu & Papiez 2025 does while it calls
    # the encoder frozen; "eval" none.
    batchnorm: str = "auto"
    drop_path: float = 0.0  # stochastic depth, of encoders that have it
    grad_checkpointing: bool = False  # memory for time; the numbers stay
    compile: bool = False  # torch.compile

    def __post_init__(self) -> None:
        for name, value, allowed in [
            ("--mode", self.mode, MODES),
            ("--head", self.head, HEADS),
            ("--pool", self.pool, POOLS),
            ("--batchnorm", self.batchnorm, BATCHNORMS),
        ]:
            if value not in allowed:
                raise RequestError(f"{name} takes {', '.join(allowed)}, not {value!r}")
        for name, block in [("--freeze-until", self.freeze_until), ("--cut-after", self.cut_after)]:
            if block is not None and block < 0:
                raise RequestError(f"{name} takes a block's number, from 0; not {block}")
        if self.mode == "partial" and self.freeze_until is None:
            raise RequestError("--mode partial needs --freeze-until BLOCK, the first that trains")
        if self.mode != "partial" and self.freeze_until is not None:
            raise RequestError(f"--freeze-until belongs to --mode partial, not to {self.mode}")
        if self.freeze_norm and self.mode not in ("full", "partial"):
            raise RequestError(f"--freeze-norm: --mode {self.mode} doesn't train the norm anyway")
        if (self.lora is None) == (self.mode == "lora"):
            raise RequestError("LoRA's settings and --mode lora belong together")
        if self.head == "linear" and self.head_weights != "pretrained":
            raise RequestError("--head-weights is of --head deit; a linear head starts by the seed")
        if self.mode == "head" and self.drop_path:
            raise RequestError("--drop-path: a frozen encoder drops nothing; leave the flag out")
        if self.head == "deit" and self.pool != "head":
            raise RequestError("--pool is for --head linear: the DeiT head sees the patch tokens")
        if not 0 <= self.drop_path < 1:
            raise RequestError(f"--drop-path takes 0 to below 1, not {self.drop_path}")

    @property
    def encoder_trains(self) -> bool:
        """Whether any parameter of the encoder should have a gradient."""
        return self.mode != "head"


@dataclass(frozen=True)
class TrainConfig:
    """How it trains. Everything here changes the numbers.

    The defaults are those of Wu & Papiez 2025 (FupingWu90/FMMIC at 4119c3b: Common_Main.py:250-291,
    Common_Trainer.py:92-157), as ``probe --kind adamw`` has them too.

    Raises:
        RequestError: a number out of its range, or an unknown word.
    """

    optimiser: str = "adamw"
    head_lr: float | None = 1e-3  # None: the encoder's
    encoder_lr: tuple[float, ...] = (1e-5,)  # several: the one that val prefers
    weight_decay: float = 1e-2
    decay_1d: bool = True  # biases and norms decay too, as in torch's one default group
    momentum: float = 0.9  # of sgd
    layer_decay: float = 1.0  # each block's rate is this times that of the block behind it
    clip: float | None = None  # of the gradient's norm
    batch_size: int = 64  # samples a step, whatever the hardware takes at once
    iterations: int | None = 15_000  # as many whole epochs as fit
    epochs: int | None = None  # or this many epochs
    drop_last: bool = True
    # "decay": the head's rate x 0.9 after every 200 iterations, the encoder's constant. "cosine":
    # both to 0 by iteration; "cosine-epochs": by epoch, each with the rate of the one before it
    # (Doerrich et al. 2024). "plateau": both x 0.1 after ``plateau_checks`` without a better val.
    schedule: str = "decay"
    warmup: int = 0  # iterations from 0 to the full rates, linearly
    warmup_epochs: int | None = None  # the same in epochs
    plateau_checks: int = 2
    n_checks: int | None = 10  # on val, evenly; None: after each epoch
    patience: int | None = None  # checks without a better val that end the training
    choose_by: str = "acc"  # on val, the highest; "loss": the lowest; the earlier of two
    augment: str = "none"
    one_logit: bool = True  # two classes: one logit through a sigmoid, or two
    # Several labels: "mean" over labels; "sum" over the batch and mean over labels, which makes the
    # rate 128 times as large at 128 images (published by Baharoon et al. 2023).
    multi_label_loss: str = "mean"
    # Two classes by one logit, several by their own sigmoid: how Baharoon et al. 2023 score.
    by_sigmoid: bool = False
    # What the tested head has seen. "train+val": of the encoder that val chose, frozen, a new head
    # learns from both for as long again, and its last weights are tested (Baharoon et al. 2023).
    refit: str = "train"
    precision: str = "fp32"
    seeds: tuple[int, ...] = (0, 1, 2)
    ddof: int = 1  # of the standard deviation over seeds

    def __post_init__(self) -> None:
        for name, value, allowed in [
            ("--optimiser", self.optimiser, OPTIMISERS),
            ("--schedule", self.schedule, SCHEDULES),
            ("--choose-by", self.choose_by, CHOOSE_BY),
            ("--augment", self.augment, AUGMENTS),
            ("--precision", self.precision, PRECISIONS),
            ("--refit", self.refit, REFIT),
            ("the loss", self.multi_label_loss, ("mean", "sum")),
        ]:
            if value not in allowed:
                raise RequestError(f"{name} takes {', '.join(allowed)}, not {value!r}")
        head_lr = () if self.head_lr is None else (self.head_lr,)
        for name, rates in [("--lr", head_lr), ("--encoder-lr", self.encoder_lr)]:
            for rate in rates:
                if not (math.isfinite(rate) and rate > 0):
                    raise RequestError(f"{name} takes numbers above 0, not {rate}")
        if not self.encoder_lr or len(set(self.encoder_lr)) < len(self.encoder_lr):
            raise RequestError("--encoder-lr takes different numbers, one or more")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise RequestError(f"--weight-decay takes 0 and more, not {self.weight_decay}")
        if self.clip is not None and not (math.isfinite(self.clip) and self.clip > 0):
            raise RequestError(f"--clip takes a number above 0, not {self.clip}")
        if not 0 < self.layer_decay <= 1:
            raise RequestError(f"--layer-decay takes above 0 to 1, not {self.layer_decay}")
        if not 0 <= self.momentum < 1:
            raise RequestError(f"--momentum takes 0 to below 1, not {self.momentum}")
        for name in ("batch_size", "iterations", "epochs", "n_checks", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                flag = name.removeprefix("n_").replace("_", "-")
                raise RequestError(f"--{flag} takes 1 and more, not {value}")
        if self.warmup < 0 or (self.warmup_epochs is not None and self.warmup_epochs < 0):
            raise RequestError("--warmup and --warmup-epochs take 0 and more")
        if self.warmup and self.warmup_epochs is not None:
            raise RequestError("--warmup is in iterations, --warmup-epochs in epochs: name one")
        if self.refit != "train" and (self.schedule == "plateau" or self.patience is not None):
            flag = "--patience" if self.patience is not None else "--schedule plateau"
            raise RequestError(
                f"{flag} watches val, which --refit train+val learns from; leave one of them out"
            )
        if (self.iterations is None) == (self.epochs is None):
            raise RequestError("training lasts for --iterations or for --epochs, and not for both")
        is_unlike = len(set(self.seeds)) == len(self.seeds)
        if not self.seeds or not is_unlike or not 0 <= min(self.seeds) <= max(self.seeds) < 2**32:
            raise RequestError(
                "--seeds takes different numbers from 0 to 4294967295, found "
                f"{', '.join(map(str, self.seeds)) or 'none'}"
            )


@dataclass(frozen=True)
class RunConfig:
    """Where and on what it runs. Nothing here changes a number but by rounding."""

    micro_batch: int | None = None  # samples at once; None: by device
    device: str = "auto"
    overwrite: bool = False
    tensorboard: bool = False
    checkpoint_seconds: float = 300.0  # at least so often, beside each check

    def __post_init__(self) -> None:
        if self.micro_batch is not None and self.micro_batch < 1:
            raise RequestError(f"--micro-batch takes 1 and more, not {self.micro_batch}")


@dataclass(frozen=True)
class FinetuneConfig:
    """How one network is trained."""

    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    run: RunConfig = field(default_factory=RunConfig)

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rates that are tried: of the encoder, or of the head that follows them."""
        rates = self.train.encoder_lr
        return rates if self.rate_name else rates[:1]

    @property
    def rate_name(self) -> str | None:
        """What rows call that rate; None: the encoder is frozen, and its head has its own."""
        if self.model.encoder_trains:
            return "encoder_lr"
        return "head_lr" if self.train.head_lr is None else None


@dataclass(frozen=True)
class FewShotWish:
    """Episodes to train on, instead of all of train: those of a probe's row."""

    like: str  # the row: a path, or its name or id under the results
    shots: int | None = None  # of a row's several; None: the row's
    n_episodes: int | None = None  # the first ones of them; None: all
    table: Path | None = None  # that the row's episodes were read from, where they were

    def __post_init__(self) -> None:
        for flag, value in [("--shots", self.shots), ("--episodes", self.n_episodes)]:
            if value is not None and value < 1:
                raise RequestError(f"{flag} takes 1 and more, not {value}")


@dataclass(frozen=True)
class Request:
    """What to ask of which images. The settings of training are settled for each encoder."""

    images: ExtractConfig  # encoders, data sets, and how images are prepared and read
    overlay: OverlayConfig = field(default_factory=OverlayConfig)
    # One of MODES; None: "partial" with freeze_until, else the protocol's first, else "full".
    mode: str | None = None
    protocol: str | None = None
    as_published: bool = False
    # By flags: names of ModelConfig's and TrainConfig's fields, of LoraConfig's with "lora_" before.
    given: Mapping[str, Any] = field(default_factory=dict)
    run: RunConfig = field(default_factory=RunConfig)
    few_shot: FewShotWish | None = None
    init_head_from: str | None = None  # a probe's row: its linear head is where the head begins
    per_patient: bool = False  # measure patients, by the mean of their samples' scores
    strict: bool = False  # refuse splits that share samples or patients
    seed: int = 0  # of the bootstrap
    n_resamples: int = 1000
    name: str = ""  # a tag for the rows
    results: Path | None = None  # None: $MEDPROBE_RESULTS or ./results
    runs: Path | None = None  # of checkpoints; None: $MEDPROBE_RUNS or ./runs
    dry_run: bool = False

    def __post_init__(self) -> None:
        # Else probe would refuse them, when it measures what was trained.
        if self.n_resamples < 1:
            raise RequestError(f"--resamples takes 1 and more, not {self.n_resamples}")
        if self.seed < 0:
            raise RequestError(f"--seed takes 0 and more, not {self.seed}")

    @property
    def results_dir(self) -> Path:
        return self.results or results_root()

    @property
    def runs_dir(self) -> Path:
        return self.runs or runs_root()


def settle(request: Request, subject: Subject) -> tuple[FinetuneConfig, Followed | None]:
    """The settings for one encoder: flags first, then the protocol's, then the defaults.

    Args:
        request: the user's.
        subject: the encoder, which papers treat by its kind.

    Raises:
        RequestError: settings that contradict each other, or that the protocol has none of.
    """
    given, preset, mode = dict(request.given), TunePreset(), request.mode
    if mode is None and "freeze_until" in given:
        mode = "partial"  # nothing else freezes blocks
    if request.protocol:
        mode, preset = find_tuning(request.protocol, mode)
    mode = mode or "full"
    base: dict[str, Any] = {}
    if request.protocol:
        base = settings_for(request.protocol, preset, subject, request.as_published)
    if "epochs" in given and "iterations" not in given:
        given["iterations"] = None
    if "iterations" in given and given["iterations"] is not None and "epochs" not in given:
        given["epochs"] = None
    if "warmup_epochs" in given and "warmup" not in given:
        given["warmup"] = 0
    if request.few_shot:
        base.pop("refit", None)  # an episode has no val
    if given.get("head") == "deit" and "pool" not in given:
        base.pop("pool", None)  # the paper's, of its linear head
    flat = {**base, **given}
    lora = {n.removeprefix("lora_"): v for n, v in flat.items() if n.startswith("lora_")}
    if lora and mode != "lora":
        flag = next(name for name in flat if name.startswith("lora_")).replace("_", "-")
        raise RequestError(f"--{flag} belongs to --mode lora, not to {mode}")
    own = {f.name for f in fields(ModelConfig)}
    model = {name: value for name, value in flat.items() if name in own}
    train = {n: v for n, v in flat.items() if n not in own and not n.startswith("lora_")}
    config = FinetuneConfig(
        ModelConfig(mode=mode, lora=LoraConfig(**lora) if mode == "lora" else None, **model),
        TrainConfig(**train),
        request.run,
    )
    _refuse_idle(given, config)
    if not request.protocol:
        return config, None
    usual = {**_defaults(), **base}
    changed = {
        name: value
        for name, value in request.given.items()
        if name != "seeds" and value != usual.get(name)
    }
    return config, follow_tuning(request.protocol, preset, subject, request.as_published, changed)


def _refuse_idle(given: Mapping[str, Any], config: FinetuneConfig) -> None:
    """Refuse flags that would do nothing beside the others.

    Raises:
        RequestError: there is one.
    """
    if "momentum" in given and config.train.optimiser != "sgd":
        raise RequestError(f"--momentum is of --optimiser sgd, not of {config.train.optimiser}")
    if "encoder_lr" in given and config.rate_name is None:
        raise RequestError(
            f"--encoder-lr: of --mode {config.model.mode} no encoder trains; its head's rate is --lr"
        )
    for name in ("layer_decay", "drop_path"):
        if name in given and not config.model.encoder_trains:
            raise RequestError(
                f"--{name.replace('_', '-')}: --mode head trains nothing of the encoder; leave it out"
            )
    if "head_weights" in given and config.model.head != "deit":
        raise RequestError("--head-weights are of --head deit; the linear head begins by its seed")


def _defaults() -> dict[str, Any]:
    lora = {f"lora_{f.name}": f.default for f in fields(LoraConfig)}
    own = [f for kind in (ModelConfig, TrainConfig) for f in fields(kind)]
    return {**lora, **{f.name: f.default for f in own}}
