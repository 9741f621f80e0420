"""The command ``finetune``: its flags, its output, its exit status."""

import argparse
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from cache.commands.names import counted
from cache.commands.settings import add_flags, flags_of, given
from cache.commands.terminal import Parser, complain, run_command, show
from cache.errors import RequestError
from extract.config import ExtractConfig, PreparingConfig, ReadingConfig, SourceConfig
from extract.datasets.files.options import TableOptions
from finetune import config
from finetune.config import Request, settle
from finetune.decoder import is_of_masks, settle_decoder
from finetune.each import EachConfig, each_of
from finetune.protocols import Subject
from probe.questions.overlay import META, LabelsConfig, OverlayConfig, SplitConfig

EXAMPLES = """\
examples:
  finetune --model dinov2 --data dermamnist                     end to end, three seeds
  finetune --model dinov2 --data dermamnist --encoder-lr 1e-4,1e-5,1e-6      the best on val
  finetune --model dinov2 --data dermamnist --each encoder-lr=1e-4,1e-5      a row a value
  finetune --model dinov2 --data dermamnist --each freeze-until=0,3,6,9
  finetune --model dinov2 --data dermamnist --mode lora --lora-rank 8
  finetune --model dinov2 --data dermamnist --freeze-until 8       blocks 8 and on
  finetune --model dinov2 --data dermamnist --cut-after 5       without the blocks after 5
  finetune --model dinov2 --data dermamnist --mode head --augment flip
  finetune --model dinov2 --data dermamnist --mode head --head deit
  finetune --model dinov2 --data demo-masks --mode head --head unet    on masks, no token file
  finetune --protocol wu2025 --model dinov2 --data dermamnist   as a paper's code does it
  finetune --model dinov2 --data dermamnist --shots 5 --episodes-like ROW    a probe's episodes
  finetune --model dinov2 --data dermamnist --init-head-from ROW             a probe's head first
  torchrun --nproc-per-node 4 -m finetune --model dinov2 --data dermamnist   four GPUs

Interrupt it whenever you like: the same command goes on from the last checkpoint. What it leaves,
encoder.safetensors, goes back into `extract --weights FILE`.
"""


# What changes numbers: the title of a group of flags -> its settings.
NUMBERS = {
    "which encoder, which images": (SourceConfig, config.WeightsConfig),
    "what trains": (config.NetworkConfig, config.LoraConfig),
    "how it trains": (config.PaperConfig, config.TrainConfig),
    "on masks: --mode head with --head linear, ms or unet": (config.MasksConfig,),
    "where it begins, and few-shot": (config.StartConfig, config.FewShotWish),
    "how images are prepared (as extract does)": (PreparingConfig,),
    "your own images: --data folder:PATH or csv:FILE": (TableOptions,),
    # --data csv:FILE has those of the cells
    "which labels (the data set's own)": (LabelsConfig,),
    "which split (the data set's own)": (SplitConfig,),
}


def make_parser() -> Parser:
    """The flags; their defaults are those of finetune.config."""
    parser = Parser(
        prog="finetune",
        description="Train encoders end to end, in part, or by adapters: what cached features can't "
        "answer. Fit on train, choose checkpoint and learning rate on val, read test once; rows are "
        "those of probe.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for title, settings in NUMBERS.items():
        add_flags(parser.add_argument_group(title), *settings, shown={"data": "must be named"})
    add_flags(parser.add_argument_group("how it is measured"), config.MeasuringConfig)
    add_flags(parser.add_argument_group("several at once"), EachConfig)
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


def read_requests(arguments: Sequence[str] | None) -> dict[str, Request]:
    """Flags -> settings, of each value of ``--each``, or of none by "".

    A wrong flag ends the process with status 2.
    """
    parser = make_parser()
    typed = parser.parse_args(arguments)
    if typed.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    requests, value = {}, ""
    try:
        for value, options in each_of(typed, *itertools.chain(*NUMBERS.values())):
            requests[value] = request_of(options)
    except RequestError as error:
        parser.error(f"{value}: {error}" if value else str(error))
    return requests


def request_of(options: argparse.Namespace) -> Request:
    """Flags -> settings.

    Raises:
        RequestError: they are wrong, or contradict each other.
    """
    if options.model is None:
        raise RequestError("name an encoder with --model, e.g. --model dinov2")
    if options.data is None:
        raise RequestError("name a data set with --data, e.g. --data breastmnist")
    if options.as_published and not options.protocol:
        raise RequestError("--as-published belongs to --protocol")
    seed = config.WeightsConfig(**given(options, config.WeightsConfig)).weights_seed
    if seed is not None and options.weights != "random":
        raise RequestError("--weights-seed belongs to --weights random")
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
    typed = given(options, config.ModelConfig, config.TrainConfig, config.MasksConfig)
    typed |= {f"lora_{name}": value for name, value in given(options, config.LoraConfig).items()}
    request = Request(
        images=ExtractConfig(
            **given(options, SourceConfig, PreparingConfig, ReadingConfig),
            table=TableOptions(**given(of_table, TableOptions)),
            seed=seed or 0,
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
    # Contradictions are known before anything is loaded.
    settle_decoder(request) if is_of_masks(request) else settle(request, Subject())
    return request


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    requests = read_requests(arguments)
    goes_on = "the same command goes on from the last checkpoint"
    if any(request.run.overwrite for request in requests.values()):
        goes_on = "the same command begins anew; without --overwrite it goes on from what is stored"
    return run_command("finetune", lambda: run(requests), f"interrupted; {goes_on}")


def run(requests: Mapping[str, Request]) -> int:
    """Plan, print the plans, train, print the table.

    Args:
        requests: by the value of ``--each``; how they run and where rows go is the same of all.
    """
    # Here, not above: torch and timm take seconds to import, and --help shouldn't.
    from extract.machine.digests import DigestMemory
    from extract.machine.progress import CheckProgress
    from extract.plan import leave_out_missing, make_plan
    from finetune.run import run_plans
    from finetune.setting import Asked, describe_plan
    from probe.report.pages.listing import format_rows

    first = next(iter(requests.values()))
    memory = DigestMemory(first.images.root / ".digests.json")
    asked: list[Asked] = []
    with CheckProgress() as progress:
        for value, request in requests.items():
            try:
                plan = leave_out_missing(make_plan(request.images, progress.report))
                asked.append(
                    Asked(value, request, plan, tuple(describe_plan(request, plan, memory)))
                )
            except RequestError as error:
                raise RequestError(f"{value}: {error}" if value else str(error)) from error
    is_first = os.environ.get("RANK", "0") == "0"

    def say(line: str) -> None:
        if is_first:
            show(line, flush=True)

    for one in asked:
        for line in (*([f"{one.value}:"] if one.value else []), *one.lines):
            say(line)
    rows, problems = [], [problem for one in asked for problem in one.plan.problems]
    if not first.dry_run:
        rows, problems = run_plans(asked, memory, say)
    if rows:
        show(f"\n{format_rows(rows)}\n")
        show(
            f"{counted(len(rows), 'row')} with scores in {first.results_dir}; checkpoints and logs in "
            f"{first.runs_dir}"
        )
    for what, why in dict.fromkeys(problems) if is_first else ():
        complain("finetune", f"{what}: {why}")
    return 1 if problems else 0
