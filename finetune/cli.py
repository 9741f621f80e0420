"""The command ``finetune``: its flags, its output, its exit status."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from cache.commands.names import counted
from cache.commands.settings import add_flags, given
from cache.commands.terminal import Parser, complain, run_command, show, split_words
from cache.errors import RequestError
from extract.config import PRECISIONS, ExtractConfig, PreparingConfig, ReadingConfig, SourceConfig
from extract.datasets.files.options import TableOptions
from finetune.config import (
    AUGMENTS,
    BATCHNORMS,
    CHOOSE_BY,
    HEADS,
    MODES,
    OPTIMISERS,
    POOLS,
    REFIT,
    SCHEDULES,
    FewShotWish,
    LoraConfig,
    ModelConfig,
    Request,
    RunConfig,
    TrainConfig,
    settle,
)
from finetune.protocols import PROTOCOL_NAMES, Subject
from probe.questions.overlay import META
from probe.questions.overlay_flags import add_overlay_flags, read_overlay

PATIENT = "patient"

EXAMPLES = """\
examples:
  finetune --model dinov2 --data dermamnist                     end to end, three seeds
  finetune --model dinov2 --data dermamnist --encoder-lr 1e-4,1e-5,1e-6      the best on val
  finetune --model dinov2 --data dermamnist --mode lora --lora-rank 8
  finetune --model dinov2 --data dermamnist --freeze-until 8       blocks 8 and on
  finetune --model dinov2 --data dermamnist --cut-after 5       without the blocks after 5
  finetune --model dinov2 --data dermamnist --mode head --augment flip
  finetune --model dinov2 --data dermamnist --mode head --head deit
  finetune --protocol wu2025 --model dinov2 --data dermamnist   as a paper's code does it
  finetune --model dinov2 --data dermamnist --shots 5 --episodes-like ROW    a probe's episodes
  finetune --model dinov2 --data dermamnist --init-head-from ROW             a probe's head first
  torchrun --nproc-per-node 4 -m finetune --model dinov2 --data dermamnist   four GPUs

Interrupt it whenever you like: the same command goes on from the last checkpoint. What it leaves,
encoder.safetensors, goes back into `extract --weights FILE`.
"""

# Settings of ModelConfig, TrainConfig and LoraConfig that have a flag, by the flag's name.
SETTINGS = (
    *("head", "pool", "head_weights", "freeze_until", "freeze_norm", "cut_after", "batchnorm"),
    *("drop_path", "grad_checkpointing", "compile"),
    *("lora_rank", "lora_alpha", "lora_dropout", "lora_targets", "lora_train_bias"),
    *("optimiser", "head_lr", "encoder_lr", "weight_decay", "decay_1d", "momentum", "layer_decay"),
    *("clip", "batch_size", "iterations", "epochs", "schedule", "warmup", "warmup_epochs"),
    *("n_checks", "patience", "choose_by", "refit", "augment", "precision", "seeds"),
)


def make_parser() -> argparse.ArgumentParser:
    """The flags; their defaults are those of finetune.config."""
    parser = Parser(
        prog="finetune",
        description="Train encoders end to end, in part, or by adapters: what cached features can't "
        "answer. Fit on train, choose checkpoint and learning rate on val, read test once; rows are "
        "those of probe.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("which encoder, which images")
    add_flags(what, SourceConfig, shown={"data": "must be named"})
    what.add_argument(
        "--weights-seed", type=int, default=None, metavar="S", help="of --weights random (0)"
    )
    _add_model_flags(parser)
    _add_training_flags(parser)
    _add_few_shot_flags(parser)
    add_flags(
        parser.add_argument_group("how images are prepared (as extract does)"), PreparingConfig
    )
    own = parser.add_argument_group("your own images: --data folder:PATH or csv:FILE")
    add_flags(own, TableOptions)
    add_overlay_flags(parser, reading=False)
    measured = parser.add_argument_group("how it is measured")
    measured.add_argument(
        "--aggregate", choices=(PATIENT,), help="measure patients, by the mean of their scores"
    )
    measured.add_argument(
        "--strict",
        action="store_true",
        help="refuse splits that share exact copies or patients, or that can't tell",
    )
    measured.add_argument(
        "--seed", type=int, default=0, help="of few-shot episodes' bootstrap (%(default)s)"
    )
    measured.add_argument(
        "--resamples",
        type=int,
        default=1000,
        metavar="N",
        help="of few-shot episodes' bootstrap (%(default)s)",
    )
    how = parser.add_argument_group("how (none of it changes the numbers, but by rounding)")
    add_flags(how, ReadingConfig)
    how.add_argument(
        "--micro-batch",
        type=int,
        metavar="N",
        help="samples that go through at once; their gradients are summed to a batch (on CUDA the "
        "whole batch, halved where memory is too small; on a CPU 16 images)",
    )
    how.add_argument(
        "--grad-checkpointing", action="store_true", default=None, help="less memory, more time"
    )
    how.add_argument("--compile", action="store_true", default=None, help="torch.compile")
    how.add_argument(
        "--device", default=RunConfig.device, help="auto, cpu, cuda, cuda:I or mps (%(default)s)"
    )
    how.add_argument("--tensorboard", action="store_true", help="write its files beside the log")
    how.add_argument("--offline", action="store_true", help="never use the network")
    how.add_argument("--name", default="", help="a tag for the rows of this run")
    how.add_argument(
        "--features",
        type=Path,
        metavar="DIR",
        help="of images unpacked for training ($MEDPROBE_FEATURES or ./features)",
    )
    how.add_argument("--results", type=Path, metavar="DIR", help="($MEDPROBE_RESULTS or ./results)")
    how.add_argument(
        "--runs",
        type=Path,
        metavar="DIR",
        help="of checkpoints and logs ($MEDPROBE_RUNS or ./runs)",
    )
    how.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    how.add_argument("--overwrite", action="store_true", help="train anew, whatever is stored")
    return parser


def _add_model_flags(parser: argparse.ArgumentParser) -> None:
    m, lora = ModelConfig(), LoraConfig()
    of_model = parser.add_argument_group("what trains")
    of_model.add_argument(
        "--mode",
        choices=MODES,
        help="full: all of it; head: the encoder is frozen; partial: from --freeze-until on; lora: "
        "adapters of low rank; bitfit: the encoder's biases (full, or the protocol's; partial with "
        "--freeze-until)",
    )
    of_model.add_argument(
        "--head",
        choices=HEADS,
        help=f"deit: a DeiT-B behind the patch tokens (Huix et al. 2024) ({m.head})",
    )
    of_model.add_argument(
        "--pool",
        choices=POOLS,
        help=f"what the linear head sees of the last layer ({m.pool}, the encoder's own)",
    )
    of_model.add_argument(
        "--head-weights",
        metavar="W",
        help=f"of the DeiT: pretrained, random, or a file ({m.head_weights})",
    )
    of_model.add_argument(
        "--freeze-until",
        type=int,
        metavar="BLOCK",
        help="of --mode partial: the first block, or stage, that trains, from 0; what is before it "
        "stays as it is",
    )
    of_model.add_argument(
        "--freeze-norm",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="the encoder's final norm stays as it is, too (no)",
    )
    of_model.add_argument(
        "--cut-after", type=int, metavar="BLOCK", help="leave out the blocks after this one"
    )
    of_model.add_argument("--lora-rank", type=int, metavar="R", help=f"({lora.rank})")
    of_model.add_argument(
        "--lora-alpha",
        type=float,
        metavar="A",
        help=f"updates are scaled by A / R ({lora.alpha:g})",
    )
    of_model.add_argument("--lora-dropout", type=float, metavar="P", help=f"({lora.dropout:g})")
    of_model.add_argument(
        "--lora-targets",
        type=_words,
        metavar="NAMES",
        help="linear layers by the last part of their name, comma separated, e.g. qkv,fc1 (those of "
        "attention and MLP)",
    )
    of_model.add_argument(
        "--lora-train-bias",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="also the biases of layers with adapters (no)",
    )
    of_model.add_argument(
        "--batchnorm",
        choices=BATCHNORMS,
        help="auto: statistics are updated where parameters train; train: everywhere, also in a "
        f"frozen encoder (a published fault); eval: nowhere ({m.batchnorm})",
    )
    of_model.add_argument(
        "--drop-path", type=float, metavar="P", help=f"stochastic depth ({m.drop_path:g})"
    )


def _add_training_flags(parser: argparse.ArgumentParser) -> None:
    t = TrainConfig()
    of_training = parser.add_argument_group("how it trains")
    of_training.add_argument(
        "--protocol",
        choices=PROTOCOL_NAMES,
        help="as a paper's released code does it, images too; flags change single settings, and the "
        "row says so",
    )
    of_training.add_argument(
        "--as-published",
        action="store_true",
        help="with --protocol: with the faults of its release, too",
    )
    of_training.add_argument(
        "--encoder-lr",
        type=lambda text: _floats("--encoder-lr", text),
        metavar="RATES",
        help="of what trains in the encoder; of several, comma separated, val's best "
        f"({','.join(f'{r:g}' for r in t.encoder_lr)})",
    )
    of_training.add_argument(
        "--lr", dest="head_lr", type=float, metavar="RATE", help=f"of the head ({t.head_lr:g})"
    )
    of_training.add_argument("--optimiser", choices=OPTIMISERS, help=f"({t.optimiser})")
    of_training.add_argument(
        "--weight-decay", type=float, metavar="W", help=f"({t.weight_decay:g})"
    )
    of_training.add_argument(
        "--decay-1d",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="biases and norms decay too (yes)",
    )
    of_training.add_argument("--momentum", type=float, metavar="M", help=f"of sgd ({t.momentum:g})")
    of_training.add_argument(
        "--layer-decay",
        type=float,
        metavar="F",
        help=f"a block's rate is F times that of the block behind it ({t.layer_decay:g})",
    )
    of_training.add_argument(
        "--clip", type=float, metavar="NORM", help="of the gradient (it isn't clipped)"
    )
    of_training.add_argument(
        "--batch-size", "-b", type=int, metavar="N", help=f"samples a step ({t.batch_size})"
    )
    of_training.add_argument(
        "--iterations",
        type=int,
        metavar="N",
        help=f"steps, as many whole epochs as fit ({t.iterations})",
    )
    of_training.add_argument("--epochs", type=int, metavar="N", help="instead of --iterations")
    of_training.add_argument(
        "--schedule",
        choices=SCHEDULES,
        help="decay: the head's rate x 0.9 every 200 iterations; cosine: to 0; plateau: x 0.1 when "
        f"val stays behind ({t.schedule})",
    )
    of_training.add_argument(
        "--warmup", type=int, metavar="N", help=f"iterations to the full rates ({t.warmup})"
    )
    of_training.add_argument("--warmup-epochs", type=int, metavar="N", help="the same in epochs")
    of_training.add_argument(
        "--checks",
        dest="n_checks",
        type=int,
        metavar="N",
        help=f"of val, evenly; the best checkpoint is tested ({t.n_checks})",
    )
    of_training.add_argument(
        "--patience",
        type=int,
        metavar="N",
        help="checks without a better one that end it (none do)",
    )
    of_training.add_argument(
        "--choose-by",
        choices=CHOOSE_BY,
        help="what val decides by; auto: kappa of ordered classes, balanced accuracy of several, "
        f"else AUC ({t.choose_by})",
    )
    of_training.add_argument(
        "--refit",
        choices=REFIT,
        help="train+val: a new head on the chosen encoder, which then stays as it is, learns from "
        f"both, and is tested ({t.refit})",
    )
    of_training.add_argument(
        "--augment", choices=AUGMENTS, help=f"of training images ({t.augment})"
    )
    of_training.add_argument(
        "--precision",
        choices=PRECISIONS,
        help=f"of training; val and test are scored in float32 ({t.precision})",
    )
    of_training.add_argument(
        "--seeds",
        type=lambda text: _ints("--seeds", text),
        metavar="SEEDS",
        help="of first weights, order and augmentation, comma separated: a row each "
        f"({','.join(map(str, t.seeds))})",
    )


def _add_few_shot_flags(parser: argparse.ArgumentParser) -> None:
    few = parser.add_argument_group("where it begins, and few-shot")
    few.add_argument(
        "--init-head-from",
        metavar="ROW",
        help="begin with the head of a probe's result row (its JSON, name or id), kind linear or "
        "adamw",
    )
    few.add_argument(
        "--episodes-like",
        metavar="ROW",
        help="train on the very episodes of a few-shot probe's result row (its JSON, name or id)",
    )
    few.add_argument("--shots", type=int, metavar="S", help="of that row's (its own)")
    few.add_argument("--episodes", type=int, metavar="E", help="the first so many of them (all)")
    few.add_argument(
        "--episodes-file", type=Path, metavar="FILE", help="that the row's episodes were read from"
    )


def read_request(arguments: Sequence[str] | None) -> Request:
    """Flags -> settings; a wrong flag ends the process with status 2."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.model is None:
        parser.error("name an encoder with --model, e.g. --model dinov2")
    if options.data is None:
        parser.error("name a data set with --data, e.g. --data breastmnist")
    if options.as_published and not options.protocol:
        parser.error("--as-published belongs to --protocol")
    if options.weights_seed is not None and options.weights != "random":
        parser.error("--weights-seed belongs to --weights random")
    if not 0 <= (options.weights_seed or 0) < 2**32:
        parser.error(f"--weights-seed takes 0 to 4294967295, not {options.weights_seed}")
    for flag in ("shots", "episodes", "episodes_file"):
        if getattr(options, flag) is not None and options.episodes_like is None:
            parser.error(
                f"--{flag.replace('_', '-')} takes the episodes of a probe's row: name it, --episodes-like ROW"
            )
    if options.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    typed = {n: getattr(options, n) for n in SETTINGS if getattr(options, n) is not None}
    try:
        request = Request(
            images=ExtractConfig(
                **given(options, SourceConfig, PreparingConfig, ReadingConfig),
                table=_table(options),
                seed=options.weights_seed or 0,
                protocol=options.protocol,
                features=options.features,
            ),
            overlay=read_overlay(_of_overlay(options)),
            mode=options.mode,
            protocol=options.protocol,
            as_published=options.as_published,
            given=typed,
            run=RunConfig(
                micro_batch=options.micro_batch,
                device=options.device,
                overwrite=options.overwrite,
                tensorboard=options.tensorboard,
            ),
            few_shot=FewShotWish(
                options.episodes_like, options.shots, options.episodes, options.episodes_file
            )
            if options.episodes_like is not None
            else None,
            init_head_from=options.init_head_from,
            per_patient=options.aggregate == PATIENT,
            strict=options.strict,
            seed=options.seed,
            n_resamples=options.resamples,
            name=options.name,
            results=options.results,
            runs=options.runs,
            dry_run=options.dry_run,
        )
        settle(request, Subject())  # contradictions are known before anything is loaded
    except RequestError as error:
        parser.error(str(error))
    return request


def _lays_over(options: argparse.Namespace) -> bool:
    """Whether --task, --positive, --label-sep and --missing are of labels laid over, not of a table of images."""
    return bool(options.labels or (options.target or "").startswith(META))


def _of_overlay(options: argparse.Namespace) -> argparse.Namespace:
    if _lays_over(options):
        return options
    return argparse.Namespace(**{**vars(options), **dict.fromkeys(_SHARED)})


def _table(options: argparse.Namespace) -> TableOptions:
    if not _lays_over(options):
        return TableOptions(**given(options, TableOptions))
    others = argparse.Namespace(**{**vars(options), **dict.fromkeys(_SHARED)})
    return TableOptions(**given(others, TableOptions))


_SHARED = ("task", "positive", "label_sep", "missing")


def _words(text: str) -> tuple[str, ...]:
    try:
        return split_words("it", text)
    except RequestError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _floats(flag: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in split_words(flag, text))
    except (ValueError, RequestError):
        raise argparse.ArgumentTypeError(f"takes numbers, comma separated; not {text!r}") from None


def _ints(flag: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in split_words(flag, text))
    except (ValueError, RequestError):
        raise argparse.ArgumentTypeError(
            f"takes whole numbers, comma separated; not {text!r}"
        ) from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    request = read_request(arguments)
    goes_on = "the same command goes on from the last checkpoint"
    if request.run.overwrite:
        goes_on = "the same command begins anew; without --overwrite it goes on from what is stored"
    return run_command("finetune", lambda: run(request), f"interrupted; {goes_on}")


def run(request: Request) -> int:
    """Plan, print the plan, train, print the table."""
    # Here, not above: torch and timm take seconds to import, and --help shouldn't.
    from extract.machine.digests import DigestMemory
    from extract.machine.progress import CheckProgress
    from extract.plan import leave_out_missing, make_plan
    from finetune.describe import describe_plan
    from finetune.run import run_request
    from probe.report.table import format_table

    memory = DigestMemory(request.images.root / ".digests.json")
    with CheckProgress() as progress:
        plan = leave_out_missing(make_plan(request.images, progress.report))
    is_first = os.environ.get("RANK", "0") == "0"

    def say(line: str) -> None:
        if is_first:
            show(line, flush=True)

    for line in describe_plan(request, plan):
        say(line)
    rows, problems = [], plan.problems
    if not request.dry_run:
        rows, problems = run_request(request, plan, memory, say)
    if rows:
        show(f"\n{format_table(rows)}\n")
        show(
            f"{counted(len(rows), 'row')} with scores in {request.results_dir}; checkpoints and logs in "
            f"{request.runs_dir}"
        )
    for what, why in problems if is_first else ():
        complain("finetune", f"{what}: {why}")
    return 1 if problems else 0
