"""The command ``finetune``: its flags, its output, its exit status."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from cache.commands.names import counted
from cache.commands.settings import add_flags, flags_of, given
from cache.commands.terminal import Parser, complain, run_command, show
from cache.errors import RequestError
from extract.config import ExtractConfig, PreparingConfig, ReadingConfig, SourceConfig
from extract.datasets.files.options import TableOptions
from finetune import config
from finetune.config import Request, settle
from finetune.protocols import Subject
from probe.questions.overlay import META, LabelsConfig, OverlayConfig, SplitConfig

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
    add_flags(parser.add_argument_group("what trains"), config.NetworkConfig, config.LoraConfig)
    add_flags(parser.add_argument_group("how it trains"), config.PaperConfig, config.TrainConfig)
    few = parser.add_argument_group("where it begins, and few-shot")
    add_flags(few, config.StartConfig, config.FewShotWish)
    images = parser.add_argument_group("how images are prepared (as extract does)")
    add_flags(images, PreparingConfig)
    own = parser.add_argument_group("your own images: --data folder:PATH or csv:FILE")
    add_flags(own, TableOptions)
    labels = parser.add_argument_group("which labels (the data set's own)")
    add_flags(labels, LabelsConfig)  # --data csv:FILE has those of the cells
    add_flags(parser.add_argument_group("which split (the data set's own)"), SplitConfig)
    add_flags(parser.add_argument_group("how it is measured"), config.MeasuringConfig)
    how = parser.add_argument_group("how (none of it changes the numbers, but by rounding)")
    add_flags(how, ReadingConfig, config.SparingConfig, config.RunConfig, config.OutputConfig)
    how.add_argument(
        "--features",
        type=Path,
        metavar="DIR",
        help="of images unpacked for training ($MEDPROBE_FEATURES or ./features)",
    )
    how.add_argument("--offline", action="store_true", help="never use the network")
    return parser


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
    if options.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        # Where labels are laid over the data set's own, these are of them, else of the table.
        shared = dict.fromkeys(("task", "positive", "label_sep", "missing"))
        over, of_table = options, argparse.Namespace(**{**vars(options), **shared})
        if not (options.labels or (options.target or "").startswith(META)):
            over, of_table = of_table, over
        episodes = given(options, config.FewShotWish)
        for flag in flags_of(config.FewShotWish):
            if flag.field in episodes and "like" not in episodes:
                raise RequestError(
                    f"{flag.name} takes the episodes of a probe's row: name it, --episodes-like ROW"
                )
        typed = given(options, config.ModelConfig, config.TrainConfig)
        typed |= {
            f"lora_{name}": value for name, value in given(options, config.LoraConfig).items()
        }
        request = Request(
            images=ExtractConfig(
                **given(options, SourceConfig, PreparingConfig, ReadingConfig),
                table=TableOptions(**given(of_table, TableOptions)),
                seed=options.weights_seed or 0,
                protocol=options.protocol,
                features=options.features,
            ),
            overlay=OverlayConfig(**given(over, OverlayConfig)),
            mode=typed.pop("mode", None),
            given=typed,
            run=config.RunConfig(**given(options, config.RunConfig)),
            few_shot=config.FewShotWish(**episodes) if episodes else None,
            **given(options, Request),
        )
        settle(request, Subject())  # contradictions are known before anything is loaded
    except RequestError as error:
        parser.error(str(error))
    return request


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
    from finetune.run import run_request
    from finetune.setting import describe_plan
    from probe.report.pages.listing import format_rows

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
        show(f"\n{format_rows(rows)}\n")
        show(
            f"{counted(len(rows), 'row')} with scores in {request.results_dir}; checkpoints and logs in "
            f"{request.runs_dir}"
        )
    for what, why in problems if is_first else ():
        complain("finetune", f"{what}: {why}")
    return 1 if problems else 0
