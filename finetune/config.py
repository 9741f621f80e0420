"""The settings of ``finetune``: each has one home, here, and its flag with it.

What an image is and how it is prepared is ``extract.config.ExtractConfig``; which labels and splits
are laid over the data set's own is ``probe.questions.overlay.OverlayConfig``. No torch here: the command line
reads these words.

Long because every setting of the command is declared in it, with its help and its check.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from cache.commands.settings import check, setting
from cache.errors import RequestError
from cache.places import results_root, runs_root
from extract.config import PRECISIONS, ExtractConfig
from finetune.protocols import (
    PROTOCOL_NAMES,
    Subject,
    TunePreset,
    find_tuning,
    follow_tuning,
    settings_for,
)
from probe.metrics.metric import Measuring
from probe.protocols import Followed
from probe.questions.overlay import OverlayConfig
from probe.solvers.decoders import LOSSES

MODES = (
    "full",  # every parameter trains
    "head",  # the encoder is frozen
    "partial",  # the blocks from --freeze-until on, and what comes after them
    "lora",  # adapters of low rank in the encoder's linear layers (Hu et al. 2022)
    "bitfit",  # the encoder's biases alone (Ben Zaken et al. 2022)
)
MAP_HEADS = ("ms", "unet")  # on masks alone, as "linear" may be: finetune/segmenting.py
# "deit": a whole DeiT-B behind the patch tokens (Huix et al. 2024)
HEADS = ("linear", "deit", *MAP_HEADS)
POOLS = ("head", "cls", "mean", "proj")  # what a linear head sees of the last layer
BATCHNORMS = ("auto", "train", "eval")
OPTIMISERS = ("adamw", "sgd")
SCHEDULES = ("constant", "decay", "cosine", "cosine-epochs", "plateau")
REFIT = ("train", "train+val")
AUGMENTS = ("none", "flip", "huix", "baharoon", "trivial")
# On val. "auto", as Huix et al. 2024: kappa of ordered classes, balanced accuracy of several, else AUC.
CHOOSE_BY = ("acc", "auc", "loss", "balanced_accuracy", "kappa", "auto")


@dataclass(frozen=True)
class WeightsConfig:
    """Of the encoder's first weights, where they are random."""

    weights_seed: int | None = setting(
        None, "of --weights random", metavar="S", least=0, most=2**32 - 1, shown="0"
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class LoraConfig:
    """Adapters of low rank, as ``peft`` makes them.

    Raises:
        RequestError: a number out of its range.
    """

    rank: int = setting(16, "", flag="--lora-rank", metavar="R", least=1, most=4096)
    alpha: float = setting(
        16.0, "updates are scaled by A / R", flag="--lora-alpha", metavar="A", above=0
    )
    # Of the adapters' input, in training.
    dropout: float = setting(0.0, "", flag="--lora-dropout", metavar="P", least=0, below=1)
    targets: tuple[str, ...] = setting(  # (): by family
        (),
        "linear layers by the last part of their name, comma separated, e.g. qkv,fc1",
        flag="--lora-targets",
        metavar="NAMES",
        shown="those of attention and MLP",
    )
    train_bias: bool = setting(
        False, "also the biases of layers with adapters", flag="--lora-train-bias", negated=True
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class NetworkConfig:
    """What the network is, and what of it trains."""

    mode: str = setting(
        "full",
        "full: all of it; head: the encoder is frozen; partial: from --freeze-until on; lora: "
        "adapters of low rank; bitfit: the encoder's biases",
        among=MODES,
        shown="full, or the protocol's; partial with --freeze-until",
    )
    head: str = setting(
        "linear",
        "deit: a DeiT-B behind the patch tokens (Huix et al. 2024); of masks ms: the last four layers "
        "side by side, unet: four blocks that double the grid",
        among=HEADS,
    )
    pool: str = setting(
        "head",
        "what the linear head sees of the last layer",
        among=POOLS,
        shown="head, the encoder's own",
    )
    head_weights: str = setting(
        "pretrained", "of the DeiT: pretrained, random, or a file", metavar="W"
    )
    freeze_until: int | None = setting(
        None,
        "of --mode partial: the first block, or stage, that trains, from 0; what is before it "
        "stays as it is",
        metavar="BLOCK",
        least=0,
        takes="a block's number from 0",
    )
    freeze_norm: bool = setting(False, "the encoder's final norm stays as it is, too", negated=True)
    cut_after: int | None = setting(  # decapitation
        None,
        "leave out the blocks after this one; on masks: the last that the head sees",
        metavar="BLOCK",
        least=0,
        takes="a block's number from 0",
    )
    lora: LoraConfig | None = None  # of mode "lora"
    # Running statistics of BatchNorm: "auto" updates them in what trains and leaves them in what is
    # frozen; "train" updates all, which the published code of Wu & Papiez 2025 does while it calls
    # the encoder frozen; "eval" none.
    batchnorm: str = setting(
        "auto",
        "auto: statistics are updated where parameters train; train: everywhere, also in a "
        "frozen encoder (a published fault); eval: nowhere",
        among=BATCHNORMS,
    )
    drop_path: float = setting(0.0, "stochastic depth", metavar="P", least=0, below=1)


@dataclass(frozen=True)
class MasksConfig:
    """Of heads on masks, what isn't among the others: the settings of ``probe --kind decoder``."""

    loss: str = setting("ce+dice", "of heads on masks", among=LOSSES)
    class_weights: str = setting("none", "of the loss of masks", among=("balanced", "none"))
    dropout: float = setting(
        0.0, "of the features of linear and ms, on masks", metavar="P", least=0, below=1
    )


@dataclass(frozen=True)
class SparingConfig:
    """Memory for time, and time for time to compile; the numbers stay."""

    grad_checkpointing: bool = setting(False, "less memory, more time")
    compile: bool = setting(False, "torch.compile")


@dataclass(frozen=True)
class ModelConfig(SparingConfig, NetworkConfig):
    """All of the network.

    Raises:
        RequestError: an unknown word, or settings that contradict each other.
    """

    def __post_init__(self) -> None:
        check(self)
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

    optimiser: str = setting("adamw", "", among=OPTIMISERS)
    head_lr: float | None = setting(  # None: the encoder's
        1e-3, "of the head", flag="--lr", metavar="RATE", above=0, takes="numbers above 0"
    )
    encoder_lr: tuple[float, ...] = setting(
        (1e-5,),
        "of what trains in the encoder; of several, comma separated, val's best",
        metavar="RATES",
        above=0,
        unlike=True,
    )
    weight_decay: float = setting(1e-2, "", metavar="W", least=0)
    # As in torch's one default group.
    decay_1d: bool = setting(True, "biases and norms decay too")
    momentum: float = setting(0.9, "of sgd", metavar="M", least=0, below=1)
    layer_decay: float = setting(
        1.0, "a block's rate is F times that of the block behind it", metavar="F", above=0, most=1
    )
    clip: float | None = setting(
        None, "of the gradient", metavar="NORM", above=0, shown="it isn't clipped"
    )
    batch_size: int = setting(  # whatever the hardware takes at once
        64, "samples a step", short="-b", metavar="N", least=1
    )
    iterations: int | None = setting(
        15_000, "steps, as many whole epochs as fit", metavar="N", least=1
    )
    epochs: int | None = setting(None, "instead of --iterations", metavar="N", least=1)
    drop_last: bool = True
    # "decay": the head's rate x 0.9 after every 200 iterations, the encoder's constant. "cosine":
    # both to 0 by iteration; "cosine-epochs": by epoch, each with the rate of the one before it
    # (Doerrich et al. 2024). "plateau": both x 0.1 after ``plateau_checks`` without a better val.
    schedule: str = setting(
        "decay",
        "decay: the head's rate x 0.9 every 200 iterations; cosine: to 0; plateau: x 0.1 when "
        "val stays behind",
        among=SCHEDULES,
    )
    # From 0, linearly.
    warmup: int = setting(0, "iterations to the full rates", metavar="N", least=0)
    warmup_epochs: int | None = setting(None, "the same in epochs", metavar="N", least=0)
    plateau_checks: int = 2
    n_checks: int | None = setting(  # None: after each epoch
        10, "of val, evenly; the best checkpoint is tested", flag="--checks", metavar="N", least=1
    )
    patience: int | None = setting(
        None, "checks without a better one that end it", metavar="N", least=1, shown="none do"
    )
    # On val, the highest; "loss": the lowest; the earlier of two.
    choose_by: str = setting(
        "acc",
        "what val decides by; auto: kappa of ordered classes, balanced accuracy of several, "
        "else AUC",
        among=CHOOSE_BY,
    )
    augment: str = setting("none", "of training images", among=AUGMENTS)
    one_logit: bool = True  # two classes: one logit through a sigmoid, or two
    # Several labels: "mean" over labels; "sum" over the batch and mean over labels, which makes the
    # rate 128 times as large at 128 images (published by Baharoon et al. 2023).
    multi_label_loss: str = "mean"
    # Two classes by one logit, several by their own sigmoid: how Baharoon et al. 2023 score.
    by_sigmoid: bool = False
    # What the tested head has seen. "train+val": of the encoder that val chose, frozen, a new head
    # learns from both for as long again, and its last weights are tested (Baharoon et al. 2023).
    refit: str = setting(
        "train",
        "train+val: a new head on the chosen encoder, which then stays as it is, learns from "
        "both, and is tested",
        among=REFIT,
    )
    precision: str = setting(
        "fp32", "of training; val and test are scored in float32", among=PRECISIONS
    )
    seeds: tuple[int, ...] = setting(
        (0, 1, 2),
        "of first weights, order and augmentation, comma separated: a row each",
        metavar="SEEDS",
        least=0,
        below=2**32,
        unlike=True,
        takes="different numbers from 0 to 4294967295",
    )
    ddof: int = 1  # of the standard deviation over seeds

    def __post_init__(self) -> None:
        check(self)
        if self.multi_label_loss not in ("mean", "sum"):
            raise RequestError(f"the loss takes mean, sum, not {self.multi_label_loss!r}")
        if self.warmup and self.warmup_epochs is not None:
            raise RequestError("--warmup is in iterations, --warmup-epochs in epochs: name one")
        if self.refit != "train" and (self.schedule == "plateau" or self.patience is not None):
            flag = "--patience" if self.patience is not None else "--schedule plateau"
            raise RequestError(
                f"{flag} watches val, which --refit train+val learns from; leave one of them out"
            )
        if (self.iterations is None) == (self.epochs is None):
            raise RequestError("training lasts for --iterations or for --epochs, and not for both")


@dataclass(frozen=True)
class RunConfig:
    """Where and on what it runs. Nothing here changes a number but by rounding."""

    micro_batch: int | None = setting(
        None,
        "samples that go through at once; their gradients are summed to a batch",
        metavar="N",
        least=1,
        shown="on CUDA the whole batch, halved where memory is too small; on a CPU 16 images",
    )
    device: str = setting("auto", "auto, cpu, cuda, cuda:I or mps")
    tensorboard: bool = setting(False, "write its files beside the log")
    overwrite: bool = setting(False, "train anew, whatever is stored")
    checkpoint_seconds: float = 300.0  # at least so often, beside each check

    def __post_init__(self) -> None:
        check(self)


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

    like: str = setting(  # a path, or its name or id under the results
        MISSING,
        "train on the very episodes of a few-shot probe's result row (its JSON, name or id)",
        flag="--episodes-like",
        metavar="ROW",
    )
    shots: int | None = setting(None, "of that row's", metavar="S", least=1, shown="its own")
    n_episodes: int | None = setting(
        None, "the first so many of them", flag="--episodes", metavar="E", least=1, shown="all"
    )
    table: Path | None = setting(
        None, "that the row's episodes were read from", flag="--episodes-file", metavar="FILE"
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class PaperConfig:
    """Whose fine-tuning it is."""

    protocol: str | None = setting(
        None,
        "as a paper's released code does it, images too; flags change single settings, and the "
        "row says so",
        among=PROTOCOL_NAMES,
    )
    as_published: bool = setting(False, "with --protocol: with the faults of its release, too")


@dataclass(frozen=True)
class StartConfig:
    """Where it begins."""

    init_head_from: str | None = setting(
        None,
        "begin with the head of a probe's result row (its JSON, name or id), kind linear or adamw",
        metavar="ROW",
    )


@dataclass(frozen=True)
class MeasuringConfig(Measuring):
    """How it is measured."""

    n_resamples: int = setting(
        1000, "of few-shot episodes' bootstrap", flag="--resamples", metavar="N", least=1
    )
    per_patient: bool = setting(
        False,
        "measure patients, by the mean of their scores",
        flag="--aggregate",
        among=("patient",),
        read=lambda word: True,
        shown="",
    )
    strict: bool = setting(
        False, "refuse splits that share exact copies or patients, or that can't tell"
    )


@dataclass(frozen=True)
class OutputConfig:
    """What is kept, and where."""

    name: str = setting("", "a tag for the rows of this run")
    results: Path | None = setting(None, "", metavar="DIR", shown="$MEDPROBE_RESULTS or ./results")
    runs: Path | None = setting(
        None, "of checkpoints and logs", metavar="DIR", shown="$MEDPROBE_RUNS or ./runs"
    )
    dry_run: bool = setting(False, "print the plan and stop")


@dataclass(frozen=True)
class Request(OutputConfig, MeasuringConfig, StartConfig, PaperConfig):
    """What to ask of which images. The settings of training are settled for each encoder."""

    # Encoders, data sets, and how images are prepared and read.
    images: ExtractConfig = field(kw_only=True)
    overlay: OverlayConfig = field(default_factory=OverlayConfig)
    # One of MODES; None: "partial" with freeze_until, else the protocol's first, else "full".
    mode: str | None = None
    # By flags: names of ModelConfig's and TrainConfig's fields, of LoraConfig's with "lora_" before.
    given: Mapping[str, Any] = field(default_factory=dict)
    run: RunConfig = field(default_factory=RunConfig)
    few_shot: FewShotWish | None = None

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
    if "epochs" in given:
        given.setdefault("iterations", None)
    elif given.get("iterations") is not None:
        given["epochs"] = None
    if "warmup_epochs" in given:
        given.setdefault("warmup", 0)
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
