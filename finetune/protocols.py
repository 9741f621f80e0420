"""Papers' fine-tuning by name: what of the network trains and how, from their released code.

A protocol prepares the images as its paper does, too (extract/prepare/protocols.py). What a release gets
wrong is put right by default, and the row says so; ``--as-published`` repeats it where it can be
repeated without choosing on test.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cache.errors import RequestError
from probe.protocols import Fault, Followed, Preset, follow, reading_of

CNN = "CNN"
EVERY_POOL = ("cls", "mean", "head", "proj")

# Decades that the released lists and job names speak of; which of them won isn't known.
DECADES = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
WU_GRID = "the encoder's learning rates are decades: the release holds its last edit alone"
# Four in [1e-5, 1e-3], says the paper; here evenly by logarithm.
HUIX_LRS = (1e-5, 4.64e-5, 2.15e-4, 1e-3)
BAHAROON_LRS = (5e-4, 1e-4, 5e-5, 1e-5, 5e-6, 1e-6, 5e-7, 1e-7)
BAHAROON_HEAD_LRS = (1e-1, 1e-2, 5e-2, 1e-3, 5e-3, 1e-4, 5e-4, 1e-5)  # of the paper's text

NOT_ON_TEST = (
    "the encoder's checkpoint is chosen on val, and the last of the new head is tested; the paper "
    "reports the best of those tested"
)
BATCHNORM_FAULT = Fault(
    "batchnorm",
    "train",
    "BatchNorm of the frozen encoder trains on each batch's statistics",
    "BatchNorm of the frozen encoder keeps its statistics, where the release trains on each batch's",
)
LOSS_FAULT = Fault(
    "multi_label_loss",
    "sum",
    "the loss of several labels is summed over a batch",
    "the loss of several labels is the mean over a batch, not the sum",
)
SIGMOID_FAULT = Fault(
    "by_sigmoid",
    True,
    "several classes are scored by a sigmoid each",
    "several classes are scored by the softmax they are trained with",
)


@dataclass(frozen=True)
class Subject:
    """What a paper tells encoders apart by."""

    name: str = ""  # short
    encoder: str = ""  # full
    is_cnn: bool = False
    pools: tuple[str, ...] = EVERY_POOL  # that its last layer has


@dataclass(frozen=True)
class TunePreset(Preset):
    """One way of fine-tuning of a paper. What its head reads is in probe/protocols.py.

    Its settings have the names of ModelConfig's and TrainConfig's fields, and of LoraConfig's with
    "lora_" before.
    """

    # Settings of single encoders, by short name, or of CNNs.
    special: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes_of: Mapping[str, str] = field(default_factory=dict)  # on single encoders, by short name


DOERRICH = {
    "encoder_lr": (1e-4,),  # one rate for all
    "iterations": None,
    "epochs": 100,
    "schedule": "cosine-epochs",
    "drop_last": False,
    "n_checks": None,
    "patience": 5,
    "choose_by": "loss",
    "one_logit": False,
    "seeds": (9930641, 115149041, 252139603),
}
DOERRICH_NOTES = (
    "val loss is the mean over images, where the release has it over batches of 256, whose last is "
    "short",
)
HUIX = {
    "optimiser": "adamw",
    "weight_decay": 1e-5,
    "decay_1d": False,  # defaults/wrappers.py:235-251
    "head_lr": None,
    "encoder_lr": HUIX_LRS,
    "iterations": None,
    "epochs": 100,
    "batch_size": 64,
    "clip": 1.0,
    "schedule": "plateau",
    "plateau_checks": 2,
    "warmup": 1000,  # ISIC, CheXpert; APTOS and DDSM 5 epochs: classification.py:103-112
    "n_checks": None,
    "choose_by": "auto",
    "augment": "huix",
    "drop_last": True,
    "one_logit": False,  # cross-entropy of two classes: softmax[:, 1]
    "seeds": (0, 1, 2, 3, 4),
}
HUIX_NOTES = (
    "all of val is read, where the release drops a short last batch",
    "warm-up takes 1000 iterations; of APTOS and DDSM the release takes 5 epochs "
    "(--warmup-epochs 5)",
    "trained in float32, where the release mixes in float16 (--precision fp16)",
    "the four learning rates are evenly spaced from 1e-5 to 1e-3: the paper names the range alone",
)
BAHAROON = {
    "optimiser": "sgd",
    "momentum": 0.9,
    "weight_decay": 0.0,
    "iterations": None,
    "epochs": 10,  # CheXpert; NIH 20
    "batch_size": 32,
    "schedule": "cosine",
    "n_checks": None,
    "choose_by": "auc",
    "augment": "baharoon",
    "refit": "train+val",  # linear.py:535-601; its optimiser has the new head alone
    "drop_last": True,
    "seeds": (0,),
}
BAHAROON_NOTES = (
    NOT_ON_TEST,
    "the head begins as torch's linear layers do, the release's from a normal of 0.01",
    "10 epochs, the paper's of CheXpert; of NIH it takes 20 (--epochs 20)",
)


def _baharoon(
    settings: Mapping[str, Any], *notes: str, notes_of: Mapping[str, str] | None = None
) -> TunePreset:
    """One of Baharoon et al. 2023's: what all have alike, and what is this one's own."""
    return TunePreset(
        {**BAHAROON, **settings},
        faults=(LOSS_FAULT, SIGMOID_FAULT),
        notes=(*BAHAROON_NOTES, *notes),
        special={CNN: {"batch_size": 128}},
        notes_of=notes_of or {},
    )


# By protocol and mode; the first mode is meant where none is named.
PROTOCOLS: Mapping[str, Mapping[str, TunePreset]] = {
    # FupingWu90/FMMIC at 4119c3b: Common_Main.py:32-33, 250-291, Common_Trainer.py:92-299. All else
    # is TrainConfig's defaults.
    "wu2025": {
        "full": TunePreset(
            {"encoder_lr": DECADES, "ddof": 0},
            special={"dinov2": {"batch_size": 32}},
            notes=(WU_GRID,),
        ),
        "head": TunePreset({"ddof": 0}, faults=(BATCHNORM_FAULT,)),
    },
    # sdoerrich97/rethinking-model-prototyping-MedMNISTPlus: config.yaml, train.py:86-198.
    "doerrich2024": {
        "full": TunePreset({**DOERRICH, "head_lr": None}, notes=DOERRICH_NOTES),
        "head": TunePreset(
            {**DOERRICH, "head_lr": 1e-4}, faults=(BATCHNORM_FAULT,), notes=DOERRICH_NOTES
        ),
    },
    # joanaapa/Foundation-Medical: params.json, defaults/models.py, defaults/wrappers.py, trainer.py.
    "huix2024": {
        "full": TunePreset(HUIX, notes=HUIX_NOTES),
        "head": TunePreset(HUIX, notes=HUIX_NOTES),
        "partial": TunePreset(
            {**HUIX, "freeze_norm": True},  # models.py:177-181, 276-281
            notes=HUIX_NOTES,
        ),
    },
    # MohammedSB/DINOv2ForRadiology: eval/classification/linear.py:147-601.
    "baharoon2023": {
        "full": _baharoon(
            {"encoder_lr": BAHAROON_LRS},
            "the head's rate is 1e-3; the release takes that of its best linear probe (--lr)",
        ),
        # The rate is chosen at the end (linear.py:398-410), where full trainings keep the best check.
        "head": _baharoon(
            {"encoder_lr": BAHAROON_HEAD_LRS, "head_lr": None, "batch_size": 128, "n_checks": 1},
            "the class token of the last block alone, where the release also tries the last four "
            "and the mean patch token (`probe --protocol baharoon2023` does, of one view)",
        ),
        "lora": _baharoon(
            {
                "encoder_lr": (2e-4,),
                "head_lr": 5e-3,
                "lora_rank": 48,
                "lora_alpha": 16.0,
                "lora_dropout": 0.1,
                "lora_targets": ("qkv", "fc1", "fc2"),
                "lora_train_bias": True,
            },
            "adapters have gradients, which the released forward pass takes from them",
            "rank 48 as in the release; the paper's count of parameters fits 32 (--lora-rank 32)",
            # timm's fc1 and fc2 are the release's w12 and w3.
            notes_of={
                "dinov2-g": "SwiGLU's layers have adapters too; the release's names match qkv alone "
                "there (--lora-targets qkv)"
            },
        ),
        "bitfit": _baharoon(
            {"encoder_lr": (2e-4,), "head_lr": 5e-3},
            "biases have gradients, which the released forward pass takes from them",
            "the rates are those of LoRA; the paper names none for BitFit",
        ),
    },
}
PROTOCOL_NAMES = tuple(PROTOCOLS)


def find_tuning(name: str, mode: str | None) -> tuple[str, TunePreset]:
    """A paper's fine-tuning: its mode and settings.

    Args:
        name: one of ``PROTOCOL_NAMES``.
        mode: None for the first.

    Raises:
        RequestError: no such protocol, or it has no such mode.
    """
    if name not in PROTOCOLS:
        raise RequestError(f"--protocol takes {', '.join(PROTOCOLS)}, not {name!r}")
    modes = PROTOCOLS[name]
    mode = mode or next(iter(modes))
    if mode not in modes:
        raise RequestError(f"{name} has --mode {' or '.join(modes)}, not {mode}")
    return mode, modes[mode]


def settings_for(
    name: str, preset: TunePreset, subject: Subject, as_published: bool
) -> dict[str, Any]:
    """All that a paper sets for one encoder.

    Args:
        name: of the protocol.
        preset: of the protocol and mode.
        subject: the encoder.
        as_published: with the release's faults.

    Raises:
        RequestError: there are no faults to repeat.
    """
    if as_published and not preset.faults:
        raise RequestError(
            "--as-published repeats a release's faults, and none are known of this protocol and "
            "mode; leave it out"
        )
    faults = {fault.setting: fault.published for fault in preset.faults} if as_published else {}
    of_cnns = preset.special.get(CNN, {}) if subject.is_cnn else {}
    special = {**of_cnns, **preset.special.get(subject.name, {})}
    pool = reading_of(name).pool(subject.encoder, subject.pools)
    return {"pool": pool, **preset.settings, **special, **faults}


def follow_tuning(
    name: str, preset: TunePreset, subject: Subject, as_published: bool, changed: Mapping[str, Any]
) -> Followed:
    """What the row of an encoder says of it; see ``probe.protocols.follow``."""
    of_mode = (preset.notes_of[subject.name],) if subject.name in preset.notes_of else ()
    notes = preset.notes + of_mode + reading_of(name).notes_on(subject.encoder)
    return follow(name, replace(preset, notes=notes), as_published, changed)
