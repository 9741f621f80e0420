"""Papers' fine-tuning by name, from the command line to settings and what a row says of them.

The numbers are those of the papers and of their released code, looked up a second time.
"""

import dataclasses
import re

import pytest

from cache.errors import RequestError
from extract.encoders.resolve import find_entry
from extract.prepare.protocols import PROTOCOLS as PREPARING
from finetune.cli import read_requests
from finetune.config import LoraConfig, ModelConfig, TrainConfig, settle
from finetune.protocols import EVERY_POOL, PROTOCOLS, Subject
from probe.kinds.adamw import AdamW
from probe.protocols import PROTOCOLS as PROBES

SOURCE = "--model dinov2 --data toy"


OF_CNN, OF_SAM, OF_CLIP = ("mean", "head"), ("mean", "head"), EVERY_POOL
OF_VIT = ("cls", "mean", "head")


def settled(words, encoder="dinov2", is_cnn=False, pools=OF_VIT):
    """The settings of one encoder of the table, and the protocol that they follow."""
    subject = Subject(encoder, find_entry(encoder).encoder, is_cnn, pools)
    return settle(read_requests([*SOURCE.split(), *words.split()])[""], subject)


def marks(words, encoder="dinov2"):
    return " ".join(settled(words, encoder)[1].marks)


def every():
    return [(name, mode) for name, modes in PROTOCOLS.items() for mode in modes]


def words_of(name, mode):
    block = " --freeze-until 8" if mode == "partial" else ""
    return f"--protocol {name} --mode {mode}{block}"


# ---------------------------------------------------------------------------- wu2025


def test_wu2025_end_to_end():
    """Common_Main.py:250-291, Common_Trainer.py:92-299."""
    config, followed = settled("--protocol wu2025", "vit")
    m, t = config.model, config.train
    assert (m.mode, m.head, m.pool, m.batchnorm) == ("full", "linear", "head", "auto")
    assert (t.optimiser, t.head_lr, t.weight_decay, t.decay_1d) == ("adamw", 1e-3, 1e-2, True)
    assert t.encoder_lr == (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)
    assert (t.iterations, t.epochs, t.batch_size, t.drop_last) == (15_000, None, 64, True)
    assert (t.schedule, t.warmup, t.clip, t.layer_decay) == ("decay", 0, None, 1.0)
    assert (t.n_checks, t.patience, t.choose_by) == (10, None, "acc")
    assert (t.augment, t.precision, t.one_logit) == ("none", "fp32", True)
    assert (t.seeds, t.ddof) == ((0, 1, 2), 0)
    assert str(followed) == "wu2025"
    assert "decades" in marks("--protocol wu2025")


def test_wu2025_takes_half_the_batch_for_dinov2_and_only_where_it_trains():
    batches = {
        (encoder, mode): settled(f"--protocol wu2025 --mode {mode}", encoder)[0].train.batch_size
        for encoder in ("dinov2", "vit", "sam")
        for mode in ("full", "head")
    }
    assert batches.pop(("dinov2", "full")) == 32
    assert set(batches.values()) == {64}


@pytest.mark.parametrize("name", ["wu2025", "doerrich2024"])
def test_a_frozen_encoder_trains_as_probes_adamw(name):
    """So that both rows can stand side by side; but for val loss, which neither has over batches."""
    t = settled(f"--protocol {name} --mode head")[0].train
    other = AdamW(ddof=0) if name == "wu2025" else AdamW(**PROBES[name].presets["adamw"].settings)
    assert t.head_lr == other.lr
    same = "weight_decay batch_size iterations epochs drop_last n_checks patience choose_by"
    same += " one_logit seeds ddof" + (" schedule" if name == "wu2025" else "")
    for setting in same.split():
        assert getattr(t, setting) == getattr(other, setting), setting


def test_wu2025_as_published_trains_batchnorm_of_the_frozen_encoder():
    """``self.model.train()`` stays on: Common_Trainer.py:192-199."""
    assert settled("--protocol wu2025 --mode head")[0].model.batchnorm == "auto"
    assert "corrected: BatchNorm" in marks("--protocol wu2025 --mode head")
    config, followed = settled("--protocol wu2025 --mode head --as-published")
    assert config.model.batchnorm == "train"
    assert str(followed) == "wu2025 as published"
    assert "as published: BatchNorm" in " ".join(followed.marks)


# ---------------------------------------------------------------------------- doerrich2024


@pytest.mark.parametrize("mode", ["full", "head"])
def test_doerrich2024(mode):
    """config.yaml, train.py:86-198: one AdamW with one rate, early stopping by val loss."""
    config, followed = settled(f"--protocol doerrich2024 --mode {mode}", "vit")
    m, t = config.model, config.train
    assert (m.mode, m.head, m.pool, m.batchnorm) == (mode, "linear", "head", "auto")
    assert (t.optimiser, t.weight_decay, t.decay_1d) == ("adamw", 1e-2, True)
    assert (t.encoder_lr, t.head_lr or t.encoder_lr[0]) == ((1e-4,), 1e-4)
    assert (t.iterations, t.epochs, t.batch_size, t.drop_last) == (None, 100, 64, False)
    assert (t.schedule, t.warmup, t.clip) == ("cosine-epochs", 0, None)
    assert (t.n_checks, t.patience, t.choose_by, t.augment) == (None, 5, "loss", "none")
    assert (t.one_logit, t.refit) == (False, "train")
    assert t.seeds == (9930641, 115149041, 252139603)
    assert str(followed) == "doerrich2024"
    assert "batches of 256" in " ".join(followed.marks)
    assert ("corrected: BatchNorm" in " ".join(followed.marks)) == (mode == "head")


# ---------------------------------------------------------------------------- huix2024


@pytest.mark.parametrize("mode", ["full", "head", "partial"])
def test_huix2024(mode):
    """params.json:151-262, defaults/wrappers.py:235-251, classification.py:103-112; the paper."""
    config, followed = settled(words_of("huix2024", mode))
    m, t = config.model, config.train
    assert (m.mode, m.head, m.pool) == (mode, "linear", "cls")
    assert (t.optimiser, t.weight_decay, t.decay_1d, t.clip) == ("adamw", 1e-5, False, 1.0)
    assert (t.head_lr, len(t.encoder_lr)) == (None, 4)
    assert (min(t.encoder_lr), max(t.encoder_lr)) == (1e-5, 1e-3)
    ratios = [b / a for a, b in zip(t.encoder_lr, t.encoder_lr[1:], strict=False)]
    assert ratios == pytest.approx([10 ** (2 / 3)] * 3, rel=1e-2)
    assert (t.iterations, t.epochs, t.batch_size, t.drop_last) == (None, 100, 64, True)
    assert (t.schedule, t.plateau_checks, t.warmup, t.warmup_epochs) == ("plateau", 2, 1000, None)
    assert (t.n_checks, t.patience, t.choose_by) == (None, None, "auto")
    assert (t.augment, t.one_logit, len(t.seeds)) == ("huix", False, 5)
    assert followed.name == "huix2024"
    said = " ".join(followed.marks)
    for note in ("all of val", "1000 iterations.*--warmup-epochs 5", "float32", "evenly spaced"):
        assert re.search(note, said)


@pytest.mark.parametrize("mode", ["full", "head", "partial"])
def test_huix2024_searches_all_four_rates_also_of_a_frozen_encoders_head(mode):
    """ "A search was conducted across four values": the head's rate is the encoder's."""
    config, _ = settled(words_of("huix2024", mode))
    assert config.rates == config.train.encoder_lr
    assert config.rate_name == ("head_lr" if mode == "head" else "encoder_lr")


def test_huix2024_partial_leaves_the_final_norm_alone():
    """Only blocks c to n - 1 train: defaults/models.py:177-181, 276-281."""
    partial, full = (settled(words_of("huix2024", mode))[0].model for mode in ("partial", "full"))
    assert (partial.freeze_until, partial.freeze_norm) == (8, True)
    assert (full.freeze_until, full.freeze_norm) == (None, False)
    # A block alone means that mode.
    assert settled("--protocol huix2024 --freeze-until 8")[0].model == partial


def test_huix2024_reads_what_the_release_reads():
    """OpenCLIP's projection, the mean of SAM's tokens, and the class token of the others."""
    of = {
        **dict.fromkeys(("dinov2", "dino", "deit", "blip"), OF_VIT),
        **{"openclip": OF_CLIP, "sam": OF_SAM, "resnet152": OF_CNN},
    }
    pools = {
        encoder: settled("--protocol huix2024", encoder, pools=there)[0].model.pool
        for encoder, there in of.items()
    }
    assert (pools.pop("openclip"), pools.pop("sam")) == ("proj", "mean")
    assert (pools.pop("resnet152"), set(pools.values())) == ("head", {"cls"})
    neck, followed = settled("--protocol huix2024 --pool head", "sam", pools=OF_SAM)
    assert (neck.model.pool, str(followed)) == ("head", "huix2024, but pool head")
    assert "first patch token" in marks("--protocol huix2024", "blip")
    assert "first patch token" not in marks("--protocol huix2024", "dino")


def test_huix2024_with_a_transformer_on_top():
    for encoder in ("dinov2", "sam", "openclip"):
        model = settled("--protocol huix2024 --mode head --head deit", encoder)[0].model
        assert (model.head, model.pool, model.head_weights) == ("deit", "head", "pretrained")
    with pytest.raises(SystemExit):  # the DeiT sees all tokens
        settled("--protocol huix2024 --head deit --pool mean")


# ---------------------------------------------------------------------------- baharoon2023


@pytest.mark.parametrize("mode", ["full", "lora", "bitfit"])
def test_baharoon2023(mode):
    """eval/classification/linear.py:147-601, appendix B of the paper."""
    config, _ = settled(f"--protocol baharoon2023 --mode {mode}")
    m, t = config.model, config.train
    assert (m.mode, m.head, m.pool) == (mode, "linear", "cls")
    assert (t.optimiser, t.momentum, t.weight_decay) == ("sgd", 0.9, 0.0)
    assert (t.schedule, t.warmup, t.layer_decay, t.clip) == ("cosine", 0, 1.0, None)
    assert (t.iterations, t.epochs, t.batch_size) == (None, 10, 32)
    assert (t.n_checks, t.choose_by, t.seeds) == (None, "auc", (0,))
    assert (t.augment, t.one_logit, t.precision) == ("baharoon", True, "fp32")
    assert (t.multi_label_loss, t.by_sigmoid) == ("mean", False)
    assert t.refit == "train+val"  # linear.py:535-601


def test_baharoon2023_frozen_searches_the_heads_rate_on_views():
    """What `probe --protocol baharoon2023` can't do with features of one view."""
    config, followed = settled("--protocol baharoon2023 --mode head")
    t, grid = config.train, PROBES["baharoon2023"].presets["heads"].settings["lrs"]
    assert (config.model.mode, config.model.pool, config.rate_name) == ("head", "cls", "head_lr")
    assert set(config.rates) == set(grid)
    assert (t.optimiser, t.momentum, t.schedule, t.batch_size) == ("sgd", 0.9, "cosine", 128)
    assert (t.epochs, t.augment, t.refit, t.choose_by) == (10, "baharoon", "train+val", "auc")
    assert "the last block alone" in " ".join(followed.marks)
    # An episode has no val to learn from, as no rate can be chosen on it.
    few = settled("--protocol baharoon2023 --mode head --encoder-lr 1e-2 --episodes-like x")[0]
    assert few.train.refit == "train"


def test_baharoon2023s_rates():
    of = {mode: settled(f"--protocol baharoon2023 --mode {mode}")[0] for mode in ("full", "lora")}
    grid = {5e-4, 1e-4, 5e-5, 1e-5, 5e-6, 1e-6, 5e-7, 1e-7}
    assert (set(of["full"].train.encoder_lr), len(of["full"].train.encoder_lr)) == (grid, 8)
    assert (of["lora"].train.encoder_lr, of["lora"].train.head_lr) == ((2e-4,), 5e-3)
    bitfit = settled("--protocol baharoon2023 --mode bitfit")[0].train
    assert (bitfit.encoder_lr, bitfit.head_lr) == ((2e-4,), 5e-3)
    assert "the rates are those of LoRA" in marks("--protocol baharoon2023 --mode bitfit")


def test_baharoon2023s_adapters():
    """linear.py:475-498: peft's LoraConfig, bias "lora_only"."""
    lora = settled("--protocol baharoon2023 --mode lora")[0].model.lora
    assert lora == LoraConfig(48, 16.0, 0.1, ("qkv", "fc1", "fc2"), train_bias=True)
    assert "fits 32" in marks("--protocol baharoon2023 --mode lora")
    smaller, followed = settled("--protocol baharoon2023 --mode lora --lora-rank 32")
    assert smaller.model.lora == dataclasses.replace(lora, rank=32)
    assert str(followed) == "baharoon2023, but lora rank 32"
    assert "SwiGLU" in marks("--protocol baharoon2023 --mode lora", "dinov2-g")
    assert "SwiGLU" not in marks("--protocol baharoon2023 --mode lora", "dinov2-l")


@pytest.mark.parametrize(
    ("encoder", "is_cnn", "pools", "wanted"),
    [
        ("dinov2-l", False, OF_VIT, (32, "cls")),
        ("resnet152-v2", True, OF_CNN, (128, "head")),
        ("densenet201", True, OF_CNN, (128, "head")),
        ("sam-l", False, OF_SAM, (32, "mean")),
        ("sam", False, OF_SAM, (32, "mean")),  # of another width
        ("biomedclip", False, OF_CLIP, (32, "proj")),
        ("swin-b", False, OF_CNN, (32, "head")),  # no class token, and not in the paper
    ],
)
def test_baharoon2023s_batch_and_what_the_head_sees(encoder, is_cnn, pools, wanted):
    config, _ = settled("--protocol baharoon2023", encoder, is_cnn, pools)
    assert (config.train.batch_size, config.model.pool) == wanted


@pytest.mark.parametrize("mode", ["full", "head", "lora", "bitfit"])
def test_baharoon2023_never_chooses_on_test(mode):
    words = f"--protocol baharoon2023 --mode {mode}"
    published, followed = settled(f"{words} --as-published")
    assert (published.train.multi_label_loss, published.train.by_sigmoid) == ("sum", True)
    assert published.train.choose_by == "auc"
    for said in (" ".join(followed.marks), marks(words)):
        assert "the paper reports the best of those tested" in said
    assert "corrected: the loss of several labels" in marks(words)
    assert "as published: several classes are scored by a sigmoid" in " ".join(followed.marks)


# ---------------------------------------------------------------------------- all


@pytest.mark.parametrize(("name", "mode"), every())
def test_every_protocol_settles_and_prepares_images(name, mode):
    config, followed = settled(words_of(name, mode))
    assert config.model.mode == mode
    assert str(followed).startswith(name)
    assert name in PREPARING
    # Whatever a preset names is a setting, and all else is the default.
    own = {f.name for kind in (ModelConfig, TrainConfig) for f in dataclasses.fields(kind)}
    own |= {f"lora_{f.name}" for f in dataclasses.fields(LoraConfig)}
    preset = PROTOCOLS[name][mode]
    named = {*preset.settings, *(s for special in preset.special.values() for s in special)}
    assert named <= own
    assert {fault.setting for fault in preset.faults} <= own


@pytest.mark.parametrize(("name", "mode"), every())
def test_what_is_published_wrong_is_repeated_or_there_is_nothing_to_repeat(name, mode):
    words = f"{words_of(name, mode)} --as-published"
    faults = PROTOCOLS[name][mode].faults
    if not faults:
        with pytest.raises(SystemExit):
            settled(words)
        return
    wrong, right = settled(words)[0], settled(words_of(name, mode))[0]
    for fault in faults:
        part = "model" if hasattr(wrong.model, fault.setting) else "train"
        assert getattr(getattr(wrong, part), fault.setting) == fault.published
        assert getattr(getattr(right, part), fault.setting) != fault.published
    same = {f.setting for f in faults}
    for part in ("model", "train"):
        a, b = (dataclasses.asdict(getattr(c, part)) for c in (wrong, right))
        assert {n for n in a if a[n] != b[n]} <= same


def test_without_a_protocol_the_defaults_stand():
    config, followed = settled("")
    assert (config.model, config.train, followed) == (ModelConfig(), TrainConfig(), None)


def test_flags_go_before_a_protocol_and_are_named():
    config, followed = settled("--protocol wu2025 --lr 0.01 --encoder-lr 1e-4 --seeds 5")
    t = config.train
    assert (t.head_lr, t.encoder_lr, t.seeds) == (0.01, (1e-4,), (5,))
    assert str(followed) == "wu2025, but head lr 0.01, encoder lr 0.0001"
    # What changes nothing isn't named.
    same = "--protocol wu2025 --lr 0.001 --augment none --pool head --batch-size 64"
    assert str(settled(same, "vit")[1]) == "wu2025"
    # Of DINOv2 the paper's batch is another.
    assert str(settled("--protocol wu2025 --batch-size 64", "dinov2")[1]) == (
        "wu2025, but batch size 64"
    )


def test_a_length_in_epochs_takes_the_place_of_one_in_iterations_and_back():
    config, followed = settled("--protocol wu2025 --epochs 3")
    assert (config.train.epochs, config.train.iterations) == (3, None)
    assert str(followed) == "wu2025, but epochs 3"
    config, followed = settled("--protocol huix2024 --iterations 500 --warmup-epochs 5")
    t = config.train
    assert (t.epochs, t.iterations, t.warmup, t.warmup_epochs) == (None, 500, 0, 5)
    assert str(followed) == "huix2024, but iterations 500, warmup epochs 5"


def test_a_fault_that_a_flag_takes_back_isnt_told():
    _, followed = settled("--protocol wu2025 --mode head --as-published --batchnorm eval")
    assert str(followed) == "wu2025 as published, but batchnorm eval"
    assert not [line for line in followed.differs if "BatchNorm" in line]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--protocol wu2025 --mode lora", "wu2025 has --mode full or head, not lora"),
        ("--protocol wu2025 --freeze-until 3", "wu2025 has --mode full or head, not partial"),
        ("--protocol baharoon2023 --mode partial", "full or head or lora or bitfit, not partial"),
        ("--refit train+val --patience 3", "--patience watches val, which --refit"),
        ("--refit train+val --schedule plateau", "--schedule plateau watches val"),
        ("--protocol wu2025 --as-published", "none are known of this protocol and mode"),
        ("--protocol huix2024 --as-published", "none are known of this protocol and mode"),
        ("--as-published", "--as-published belongs to --protocol"),
        ("--protocol baharoon2023 --lora-rank 8", "--lora-rank belongs to --mode lora"),
        ("--mode head --encoder-lr 1e-4", "no encoder trains; its head's rate is --lr"),
        ("--protocol wu2025 --mode head --encoder-lr 1e-4", "its head's rate is --lr"),
        ("--protocol huix2024 --mode partial", "needs --freeze-until"),
        ("--clip 0", "--clip takes a number above 0"),
    ],
)
def test_what_contradicts_is_a_usage_error(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        settled(words)
    assert end.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_an_unknown_protocol_lists_those_there_are():
    from finetune.protocols import find_tuning

    with pytest.raises(RequestError, match="wu2025, doerrich2024, huix2024, baharoon2023, not 'x'"):
        find_tuning("x", None)
