"""Papers' probes by name: which kind with which settings, from their released code.

Which vector of an encoder they read is one answer for ``probe`` and ``finetune``.
What a release gets wrong (a loss that is summed where the text averages, a checkpoint chosen on
test) is put right by default, and the row says so; ``--as-published`` repeats it. What features of
one view can't do is said in every row, or refused.

Long because it is a table of papers, each a preset of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cache.errors import RequestError

VIEWS = "finetune --mode head"  # trains heads on augmented views, which a feature file hasn't


@dataclass(frozen=True)
class Reading:
    """Which vector of an encoder a paper takes.

    Encoders are meant by a part of their full name: "samvit_" is SAM of any width and weights.
    """

    usual: tuple[str, ...] = ("cls", "head", "mean")  # of the last layer, the first that it has
    special: Mapping[str, str] = field(default_factory=dict)  # part of a name -> pool
    # Part of a name -> what is otherwise here.
    notes: Mapping[str, str] = field(default_factory=dict)

    def pool(self, encoder: str, there: Collection[str], is_last: bool = True) -> str:
        """The pool that is meant where none is named.

        Args:
            encoder: its full name.
            there: the pools that the layer has.
            is_last: whether it is the last layer. Papers ask no other; there it is cls, else mean.

        Returns:
            The pool; one that isn't there where nothing takes its place.
        """
        special = [pool for part, pool in self.special.items() if part in encoder]
        if is_last:
            wanted = special[:1] or self.usual
        else:
            wanted = [*special, "cls", "mean"]
        return next((pool for pool in wanted if pool in there), wanted[-1])

    def notes_on(self, encoder: str) -> tuple[str, ...]:
        """In what this encoder isn't the paper's, or the release does otherwise with it."""
        return tuple(note for part, note in self.notes.items() if part in encoder)


USUAL = Reading()
LOGITS_INPUT = Reading(("head",))  # what the encoder's own classifier sees
# Without a class token: the mean over the patch tokens of the last block, without the neck.
SAM = {"samvit_": "mean"}


@dataclass(frozen=True)
class Fault:
    """A setting that the release has wrong."""

    setting: str
    published: Any
    as_published: str  # in words
    corrected: str


@dataclass(frozen=True)
class Preset:
    """One probe of a paper."""

    settings: Mapping[str, Any] = field(default_factory=dict)  # of the kind; others: its defaults
    choosing: Mapping[str, str] = field(default_factory=dict)  # of a ChoosingConfig
    few_shot: Mapping[str, Any] = field(default_factory=dict)  # of a FewShotConfig
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()  # in what this can't be the paper's
    # Setting -> what the paper has of it besides, so that it is no change.
    also: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol:
    """What a paper asks of frozen features."""

    paper: str
    presets: Mapping[str, Preset]  # by kind; the first is meant where none is named
    reading: Reading
    trains_on_views: bool = False  # its other heads need more than features of one view


ONE_VIEW = f"features of one view, where the paper trains on random crops (`{VIEWS}` does)"
# model.train() on a frozen encoder: Common_Trainer.py:199 and train.py:113 of the two releases.
BATCH_NORM = "CNNs: BatchNorm has its stored statistics, where the release trains on each batch's"

PROTOCOLS = {
    # FupingWu90/FMMIC at 4119c3b: Common_Trainer.py:92-299, Common_Main.py:164-291. The settings
    # are AdamW's defaults. Its mean and np.std go over three seeds.
    "wu2025": Protocol(
        "Wu & Papiez 2025",
        {
            "adamw": Preset(
                {"ddof": 0},
                # dataset.py:234-249; its trainer asks all of val for checkpoints.
                few_shot={"draw": "first", "chosen_on": "val"},
                notes=(BATCH_NORM,),
            )
        },
        # Common_Main.py:117.
        Reading(
            LOGITS_INPUT.usual,
            notes={
                "vit_base_patch16_clip_quickgelu_224": "OpenAI's CLIP has QuickGELU, with which it "
                "was trained; the release runs it with GELU (--model "
                "vit_base_patch16_clip_224.openai)"
            },
        ),
    ),
    # sdoerrich97/rethinking-model-prototyping-MedMNISTPlus: evaluate.py:88 and utils.py:133-157;
    # config.yaml and train.py:86-198.
    "doerrich2024": Protocol(
        "Doerrich et al. 2024",
        {
            "knn": Preset({"k": (11,), "metric": "euclidean", "vote": "majority"}),
            "adamw": Preset(
                {
                    "lr": 1e-4,
                    "iterations": None,
                    "epochs": 100,
                    "schedule": "cosine",
                    "drop_last": False,
                    "n_checks": None,
                    "patience": 5,
                    "choose_by": "loss",
                    "one_logit": False,
                    "seeds": (9930641, 115149041, 252139603),
                },
                faults=(
                    Fault(
                        "loss_batch",
                        256,
                        "val loss is the mean over batches of 256, whose last is short",
                        "val loss is the mean over images, not over batches of 256",
                    ),
                ),
                notes=(BATCH_NORM,),
            ),
        },
        LOGITS_INPUT,  # forward_head(pre_logits=True): evaluate.py, utils.py:80-105
    ),
    # facebookresearch/dinov2 at 05c66df: eval/linear.py, eval/knn.py, eval/log_regression.py.
    "dinov2": Protocol(
        "Oquab et al. 2023 (DINOv2)",
        {
            "heads": Preset(notes=(ONE_VIEW,)),
            "knn": Preset(
                {"k": (10, 20, 100, 200), "temperature": 0.07},
                faults=(
                    Fault(
                        "cut_off",
                        True,
                        "scores of a smaller k are cut off those of the largest: the same decisions, "
                        "another AUC",
                        "each k's scores sum to 1, where the release cuts off those of the largest k",
                    ),
                ),
            ),
            "linear": Preset(
                {"strengths": tuple(10 ** (-6 + 11 * i / 44) for i in range(45))},
                choosing={"how": "val", "refit": "train+val"},
                # log_regression.py: sweep_C_values, LogRegModule.
                notes=(
                    "C is chosen on val by log-loss, where the release takes a tenth of train and "
                    "accuracy",
                    "features are standardised, where the release fits them as they are: another "
                    "penalty at the same C",
                ),
            ),
        },
        Reading(special=SAM),
    ),
    # MohammedSB/DINOv2ForRadiology: eval/classification/linear.py.
    "baharoon2023": Protocol(
        "Baharoon et al. 2023",
        {
            "heads": Preset(
                {
                    "lrs": (1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 1e-5, 1e-1),
                    "scale_lr": False,
                    "iterations": None,
                    "choose_by": "auc",
                    "refit": True,
                    "one_logit": True,
                },
                # dinov2/data/utils.py:4-28; rates are chosen on all of val.
                few_shot={"draw": "patients", "chosen_on": "val"},
                faults=(
                    Fault(
                        "loss",
                        "sum",
                        "the loss of several labels is summed over a batch",
                        "the loss of several labels is the mean over a batch, not the sum",
                    ),
                    Fault(
                        "by_sigmoid",
                        True,
                        "several classes are scored by a sigmoid each, so without figures of "
                        "calibration",
                        "several classes are scored by the softmax they are trained with",
                    ),
                    Fault(
                        "test_every",
                        5,
                        "CHOSEN ON TEST: the best of the refit's checkpoints, every 5 epochs; a "
                        "number too high",
                        "the refit's last checkpoint is tested, not the best on test",
                    ),
                ),
                notes=(ONE_VIEW, "10 epochs as in the release; the paper's number is unknown"),
            ),
            # eval/utils.py:456-594, eval/classification/mlknn.py:179-192; k of the paper's text.
            "knn": Preset(
                {"k": (100, 200, 400, 800, 1000), "vote": "mlknn", "one_k": True},
                choosing={"how": "val", "refit": "train+val"},
                faults=(
                    Fault(
                        "self_counts",
                        True,
                        "each training image is counted among its own neighbours",
                        "no training image is counted among its own neighbours",
                    ),
                    Fault(
                        "one_k",
                        False,
                        "a row for each k; the paper reports the best on test",
                        "k is chosen on val, not on test",
                    ),
                ),
            ),
            # eval/segmentation/segmentation.py and utils.py:46-126; rates and loss of the text (B.4).
            "decoder": Preset(
                {
                    "head": "unet",
                    "loss": "dice",
                    "optimiser": "sgd",
                    "lrs": (1e-2, 5e-2, 1e-3, 5e-3),
                    "weight_decay": 0.0,
                    "iterations": None,
                    "epochs": 10,
                    "warmup": 0,
                    "batch_norm": False,
                    "choose_by": "dice_jaccard",
                    "refit": True,
                    "seeds": (0,),
                },
                few_shot={"chosen_on": "val"},
                faults=(
                    Fault(
                        "ends_in_relu",
                        True,
                        "a U-Net's logits go through batch norm and ReLU, so none is below 0",
                        "a U-Net's logits are those of its last convolution, without the release's "
                        "batch norm and ReLU behind it",
                    ),
                    Fault(
                        "n_test_checks",
                        2,
                        "CHOSEN ON TEST: the best of the refit's checkpoints, every 5 epochs; a "
                        "number too high",
                        "the refit's last checkpoint is tested, not the best on test",
                    ),
                ),
                notes=(
                    "maps of one view, where the paper trains on flips and rotations",
                    "10 epochs as in the release; the paper's number is unknown",
                    "layers have the encoder's own norm, where the release puts those of Hugging Face "
                    "through one that isn't trained",
                ),
                also={"head": ("linear",)},
            ),
        },
        # eval/utils.py:204 and :265-277; table 8 of the paper.
        Reading(special={**SAM, "BiomedCLIP": "proj"}),
    ),
    # facebookresearch/dinov3 at 6876159: eval/segmentation/, config-ade20k-linear-training.yaml.
    "dinov3": Protocol(
        "Siméoni et al. 2025 (DINOv3)",
        {
            "decoder": Preset(
                {
                    "loss": "ce",
                    "lrs": (1e-3,),
                    "iterations": 40_000,
                    "warmup": 1500,
                    "dropout": 0.1,
                    "choose_by": "miou",
                    "seeds": (0,),
                },
                faults=(
                    Fault(
                        "n_test_checks",
                        8,
                        "CHOSEN ON TEST: the best of eight checkpoints by mIoU; a number too high",
                        "the last step's head is tested, not the best of eight on test",
                    ),
                ),
                notes=(
                    "whole images at one size, where the release trains on crops of 512 px at half to "
                    "double scale, flipped, and tests by sliding windows",
                ),
            )
        },
        Reading(special=SAM),
    ),
    # joanaapa/Foundation-Medical: defaults/trainer.py:202-207, 516-583; k of datasets.py:23.
    "huix2024": Protocol(
        "Huix et al. 2024",
        {
            "knn": Preset(
                {"k": (200,), "metric": "cosine", "vote": "weighted", "temperature": 0.1},
                # DataLoader(drop_last=True) in all its splits.
                notes=("all training images have a vote, where the release drops a short batch",),
            )
        },
        # Section 3.3 and defaults/models.py: open_clip's 512-d output, SAM's 768-d mean.
        Reading(
            special={**SAM, "open_clip:": "proj"},
            notes={
                # utils/transformers/vit.py:196; defaults/models.py:132-133
                ".blip": "BLIP is its own encoder with its class token; the release reads the first "
                "patch token of a mix with the momentum encoder",
            },
        ),
        trains_on_views=True,
    ),
    # google-research/big_vision: evaluators/fewshot_lsr.py.
    "bigvision": Protocol(
        "Beyer et al. 2022 (big_vision)",
        {
            "ridge": Preset(
                {"alpha": 2.0**10},
                # fewshot_lsr.py whitens by the episode's own images.
                few_shot={
                    "shots": (1, 5, 10, 25),
                    "draw": "bigvision",
                    "standardise": "episode",
                },
                notes=(
                    "the intercept is free, where the release has a bias feature of 100 under the "
                    "same penalty",
                ),
            )
        },
        LOGITS_INPUT,  # pre_logits
    ),
    # lciernik/attentive-layer-fusion at ef86a87: src/tasks/attentive_probe.py, linear_probe.py,
    # hyperparameter_tuner.py, src/data/data_utils.py, data_loader.py, scripts/helper.py:87-96.
    "ciernik2026": Protocol(
        "Ciernik et al. 2026",
        {
            "fusion": Preset(
                {
                    "lrs": (1e-1, 1e-2, 1e-3),
                    "weight_decays": tuple(10.0**i for i in range(-6, 1)),
                    "dropouts": (0.0, 0.1, 0.3),
                    "iterations": 1000,
                    "epochs": 40,
                    "noise": 0.05,
                    "is_absolute": True,
                    "standardised": False,
                    "pads_first": True,
                    "halves": False,
                    "chooses_inside": True,
                    "seeds": (0,),
                },
                faults=(
                    Fault(
                        "noise_on_val",
                        True,
                        "settings are chosen on samples with noise: their part of train keeps it",
                        "settings are chosen on samples without noise",
                    ),
                ),
                notes=(
                    "noise of 0.05 on each number: as long as a vector of 400 numbers itself, which has "
                    "length 1, and longer than a wider one",
                    "the paper reads what blocks' MLPs see (`extract --layer-norm norm2`), which usual "
                    "files don't hold",
                ),
            )
        },
        USUAL,
    ),
}
PROTOCOL_NAMES = tuple(PROTOCOLS)


def reading_of(name: str | None) -> Reading:
    """What a paper reads; without one, or of one that isn't here, the usual."""
    return PROTOCOLS[name].reading if name in PROTOCOLS else USUAL


@dataclass(frozen=True)
class Followed:
    """The protocol that a question follows, as a row says it."""

    name: str
    as_published: bool = False
    changed: tuple[str, ...] = ()  # by flags: "lr 0.01"
    differs: tuple[str, ...] = ()  # from the release, or what of it is repeated; in words

    def __str__(self) -> str:
        """As in "wu2025, but lr 0.01"."""
        name = f"{self.name} as published" if self.as_published else self.name
        return f"{name}, but {', '.join(self.changed)}" if self.changed else name

    def but(self, *changed: str) -> Followed:
        """The same with more that flags change."""
        return replace(self, changed=(*self.changed, *changed))

    @property
    def marks(self) -> list[str]:
        """What a reader of the numbers must know."""
        return [f"probed as {self}", *self.differs]


def find_preset(name: str, kind: str | None, as_published: bool) -> tuple[str, Preset]:
    """A paper's probe: its kind and settings.

    Args:
        name: one of ``PROTOCOL_NAMES``.
        kind: which of its probes; None for the first.
        as_published: with the release's faults.

    Raises:
        RequestError: no such protocol; it has no probe of this kind, or none that features of one
            view can train; or no faults to repeat.
    """
    if name not in PROTOCOLS:
        raise RequestError(f"--protocol takes {', '.join(PROTOCOLS)}, not {name!r}")
    protocol = PROTOCOLS[name]
    kind = kind or next(iter(protocol.presets))
    if kind not in protocol.presets:
        kinds = " or ".join(protocol.presets)
        if protocol.trains_on_views and kind in ("linear", "adamw", "heads"):
            raise RequestError(
                f"{name} trains its heads on augmented views, which features of one view aren't; "
                f"that is `{VIEWS}`, and of features {name} asks --kind {kinds}"
            )
        raise RequestError(f"{name} asks --kind {kinds}, not {kind}")
    preset = protocol.presets[kind]
    if as_published and not preset.faults:
        raise RequestError(
            f"--as-published repeats a release's faults, and none are known of {name} with --kind "
            f"{kind}; leave it out"
        )
    return kind, preset


def settings_of(preset: Preset, as_published: bool) -> dict[str, Any]:
    """The kind's settings, with the faults or without."""
    faults = {fault.setting: fault.published for fault in preset.faults} if as_published else {}
    return {**preset.settings, **faults}


def follow(name: str, preset: Preset, as_published: bool, changed: Mapping[str, Any]) -> Followed:
    """What the row says of it.

    Args:
        name: of the protocol.
        preset: the probe.
        as_published: whether its faults are repeated.
        changed: setting -> value, of flags that differ from the preset. None: a setting that
            another one of them has taken the place of, which alone is worth a word.
    """
    words = [_named(setting, value) for setting, value in changed.items() if value is not None]
    told = [f for f in preset.faults if f.setting not in changed]
    faults = [f"as published: {f.as_published}" for f in told]
    if not as_published:
        faults = [f"corrected: {f.corrected}" for f in told]
    return Followed(name, as_published, tuple(words), (*faults, *preset.notes))


def _named(setting: str, value: Any) -> str:
    """("lr", 0.01) as "lr 0.01", ("refit", True) as "refit", and False as "no refit"."""
    name = setting.replace("_", " ")
    if isinstance(value, bool):
        return name if value else f"no {name}"
    return f"{name} {_short(value)}"


def _short(value: Any) -> str:
    """(0, 1, 2) as "0/1/2"."""
    if isinstance(value, tuple):
        return "/".join(map(_short, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
