"""The command ``extract``: its flags, its output, its exit status."""

import argparse
import os
import sys
from collections.abc import Sequence

from cache import RequestError
from cache.commands.settings import add_flags, given
from cache.commands.terminal import Parser, complain, join_layers, run_command, show
from cache.errors import Failure
from extract.config import (
    ExtractConfig,
    FeaturesConfig,
    OutputConfig,
    PreparingConfig,
    ProtocolConfig,
    ReadingConfig,
    SourceConfig,
    SplitConfig,
    TextConfig,
    TokensConfig,
    read_shard,
)
from extract.datasets.files.options import TableOptions

DEMO = {"model": "efficientnet-lite0", "data": "demo", "size": "128"}

EXAMPLES = """\
examples:
  extract --demo                                    a real encoder on images that pip brought
  extract --model eva02 --size 224                  one encoder, MedMNIST's twelve 2D sets
  extract --model dinov2,clip --data breastmnist    two encoders, one set
  extract --model vit --data folder:scans           your images, in folders of classes
  extract --model vit --data csv:scans.csv --path-col file --label-col finding --group-col patient
  extract --model vit --data npz:mine.npz           your images in MedMNIST's layout
  extract --model dinov2 --dry-run                  what it would do, take and download
  extract --protocol wu2025 --model dinov2          prepare the images as a paper's code does
  extract --model dinov2 --data mine --tokens -1    patch tokens, for probe --kind segment and maps
  extract --model openclip --text                   class prompts, for probe --kind zeroshot
  extract models                                    every encoder, and which are ready here
  extract data                                      every data set, and what is in each

Interrupt it whenever you like: the same command goes on where it stopped.
"""


def make_parser() -> Parser:
    """The flags; their defaults are ExtractConfig's."""
    parser = Parser(
        prog="extract",
        commands=("models", "data"),
        description="Run frozen encoders over images once and keep every layer's class token and "
        "mean patch embedding.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what to extract (all of it is in the file's key)")
    add_flags(what, SourceConfig, FeaturesConfig)
    what.add_argument(
        "--demo",
        action="store_true",
        help=f"the same as --model {DEMO['model']} --data {DEMO['data']} --size {DEMO['size']}",
    )
    images = parser.add_argument_group("how images are prepared (all of it is in the key)")
    add_flags(images, ProtocolConfig, PreparingConfig)
    tokens = parser.add_argument_group("patch tokens, for segmentation and maps")
    add_flags(tokens, TokensConfig)
    texts = parser.add_argument_group("texts, for encoders with a text tower (open_clip)")
    add_flags(texts, TextConfig)
    own = parser.add_argument_group(
        "your own images: --data folder:PATH, seg-folder:PATH or csv:FILE (labels, masks and splits are "
        "in no key)"
    )
    add_flags(own, TableOptions, SplitConfig)
    how = parser.add_argument_group("how (none of it changes the key)")
    add_flags(how, ReadingConfig, OutputConfig)
    how.add_argument(
        "--offline",
        action="store_true",
        help="never use the network, as under HF_HUB_OFFLINE=1; what isn't here is named",
    )
    return parser


def read_config(arguments: Sequence[str] | None) -> ExtractConfig:
    """Flags -> settings; a wrong flag ends the process with status 2."""
    parser = make_parser()
    options = parser.parse_args(join_layers(sys.argv[1:] if arguments is None else arguments))
    if options.demo and options.text:
        parser.error("--demo's encoder has no text tower; name one that has: --model openclip")
    if options.demo:
        for name, value in DEMO.items():
            if getattr(options, name) not in (None, value):
                parser.error(f"--demo means --{name} {value}; leave one of the two out")
            setattr(options, name, value)
    if options.model is None:
        parser.error("name an encoder with --model, e.g. --model dinov2, or try --demo")
    if options.seed is not None and options.weights != "random":
        parser.error("--seed belongs to --weights random; nothing else here is random")
    if options.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        found = given(options, ExtractConfig)
        if isinstance(size := found.get("size"), int) and size < 1:
            raise RequestError(f"--size is the input's side in pixels, not {size}")
        if "shard" not in found:
            found["shard"] = read_shard(None)
        return ExtractConfig(**found, table=TableOptions(**given(options, TableOptions)))
    except RequestError as error:
        parser.error(str(error))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["models"]:
        from extract.show.models import main as list_models

        return list_models(words[1:])
    if words[:1] == ["data"]:
        from extract.show.data import main as list_data

        return list_data(words[1:])
    config = read_config(words)
    return run_command(
        "extract", lambda: run(config), "interrupted; the same command goes on from here"
    )


def run(config: ExtractConfig) -> int:
    """Plan, print the plan, do it."""
    # Here, not above: torch and timm take seconds to import, and --help shouldn't.
    from extract.describe import check_space, describe_plan
    from extract.machine.digests import DigestMemory
    from extract.machine.progress import CheckProgress
    from extract.plan import leave_out_missing, make_plan
    from extract.run import run_plan

    if config.text:
        from extract.texts.run import run_texts  # only here: it loads open_clip, a second more

        return complain_of(run_texts(config, say=lambda line: show(line, flush=True)))
    memory = DigestMemory(config.root / ".digests.json")
    with CheckProgress() as progress:
        plan = leave_out_missing(make_plan(config, progress.report))
    for line in describe_plan(plan, memory):
        show(line, flush=True)
    if config.dry_run:
        return complain_of(plan.problems)
    check_space(plan, memory)
    return complain_of(run_plan(plan, memory, say=lambda line: show(line, flush=True)))


def complain_of(problems: Sequence[Failure]) -> int:
    """Say what couldn't be done; returns the exit status."""
    for what, why in problems:
        complain("extract", f"{what}: {why}")
    return 1 if problems else 0
