"""The command ``extract``: its flags, its output, its exit status."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cache import RequestError
from cache.terminal import Parser, complain, run_command, split_words
from extract.config import LAYER_NORMS, PRECISIONS, STORES, ExtractConfig

DEMO = {"model": "efficientnet-lite0", "data": "demo", "size": 128}

EXAMPLES = """\
examples:
  extract --demo                                    a real encoder on images that pip brought
  extract --model eva02 --size 224                  one encoder, MedMNIST's twelve 2D sets
  extract --model dinov2,clip --data breastmnist    two encoders, one set
  extract --model vit --data npz:mine.npz           your images in MedMNIST's layout
  extract --model dinov2 --dry-run                  what it would do, take and download

Interrupt it whenever you like: the same command goes on where it stopped.
"""


def make_parser() -> Parser:
    """The flags; their defaults are ExtractConfig's."""
    default = ExtractConfig(models=())
    parser = Parser(
        prog="extract",
        description="Run frozen encoders over images once and keep every layer's class token and "
        "mean patch embedding.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what to extract (all of it is in the file's key)")
    what.add_argument(
        "--model",
        "-m",
        metavar="NAMES",
        help="one or more encoders, comma separated: eva02, dinov2, dino, vit, clip, openai, sam, "
        "sam-c, vgg16, densenet121, resnet18, efficientnet-b4, efficientnet-lite0, or any timm "
        "name",
    )
    what.add_argument(
        "--size", type=int, help="side of the encoder's input in pixels (its own size)"
    )
    what.add_argument(
        "--data",
        metavar="NAMES",
        help="MedMNIST flags, comma separated; all = the twelve 2D sets; demo; npz:FILE (all)",
    )
    what.add_argument(
        "--source-size",
        type=int,
        metavar="PX",
        help="which MedMNIST files: 28, 64, 128 or 224 (the smallest that is at least --size, "
        "else the largest)",
    )
    what.add_argument(
        "--weights",
        default=default.weights,
        metavar="W",
        help="pretrained, random, or a file of this architecture (%(default)s)",
    )
    what.add_argument("--seed", type=int, default=None, help="of random weights (0)")
    what.add_argument(
        "--layers",
        default=default.layers,
        metavar="L",
        help="all, last4, -1, or numbers like 0,5,-1 (%(default)s)",
    )
    what.add_argument(
        "--layer-norm",
        choices=LAYER_NORMS,
        default=default.layer_norm,
        help="final: the encoder's own final norm on every layer, as its family wants it; none: "
        "raw (%(default)s)",
    )
    what.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=default.precision,
        help="of the arithmetic; a bf16 forward pass changes features by 2.5 to 5 %% of their "
        "spread (%(default)s)",
    )
    what.add_argument(
        "--store",
        choices=STORES,
        default=default.store,
        help="type of the stored numbers (%(default)s)",
    )
    what.add_argument(
        "--demo",
        action="store_true",
        help=f"the same as --model {DEMO['model']} --data {DEMO['data']} --size {DEMO['size']}",
    )
    how = parser.add_argument_group("how (none of it changes the key)")
    how.add_argument(
        "--data-root", type=Path, metavar="DIR", help="folder of MedMNIST's files (~/.medmnist)"
    )
    how.add_argument(
        "--features",
        type=Path,
        metavar="DIR",
        help="where feature files go ($MEDPROBE_FEATURES or ./features)",
    )
    how.add_argument(
        "--batch-size", "-b", type=int, metavar="N", help="1 to 256 (by device and size)"
    )
    how.add_argument(
        "--device",
        default=default.device,
        help="auto, cpu, cuda, cuda:I or mps (%(default)s)",
    )
    how.add_argument(
        "--shard",
        metavar="I/N",
        help="do the I-th of N shares, I from 0; N processes fill one file (torchrun's RANK and "
        "WORLD_SIZE, else 0/1)",
    )
    how.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    how.add_argument("--overwrite", action="store_true", help="throw away what is stored already")
    return parser


def read_config(arguments: Sequence[str] | None) -> ExtractConfig:
    """Flags -> settings; a wrong flag ends the process with status 2."""
    parser = make_parser()
    options = parser.parse_args(_join_layers(sys.argv[1:] if arguments is None else arguments))
    if options.demo:
        for name, value in DEMO.items():
            if getattr(options, name) not in (None, value):
                parser.error(f"--demo means --{name} {value}; leave one of the two out")
            setattr(options, name, value)
    if options.model is None:
        parser.error("name an encoder with --model, e.g. --model dinov2, or try --demo")
    if options.seed is not None and options.weights != "random":
        parser.error("--seed belongs to --weights random; nothing else here is random")
    if options.size is not None and options.size < 1:
        parser.error(f"--size is the input's side in pixels, not {options.size}")
    try:
        return ExtractConfig(
            models=split_words("--model", options.model),
            size=options.size,
            data=split_words("--data", options.data) or ("all",),
            source_size=options.source_size,
            weights=options.weights,
            seed=options.seed or 0,
            layers=options.layers,
            layer_norm=options.layer_norm,
            precision=options.precision,
            store=options.store,
            data_root=options.data_root,
            features=options.features,
            batch_size=options.batch_size,
            device=options.device,
            shard=read_shard(options.shard),
            dry_run=options.dry_run,
            overwrite=options.overwrite,
        )
    except RequestError as error:
        parser.error(str(error))


def _join_layers(arguments: Sequence[str]) -> list[str]:
    """ "--layers", "-4,-1" as one word: argparse takes a list that begins with a minus for a flag."""
    joined: list[str] = []
    for word in arguments:
        if joined and joined[-1] == "--layers" and word[:1] == "-" and word[1:2].isdecimal():
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def read_shard(text: str | None) -> tuple[int, int]:
    """ "1/4" -> (1, 4); without a flag, torchrun's environment decides.

    Raises:
        RequestError: not of this form, or out of range.
    """
    where = ""
    if text is None:
        text = f"{os.environ.get('RANK', 0)}/{os.environ.get('WORLD_SIZE', 1)}"
        where = " (from RANK and WORLD_SIZE in the environment)"
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise RequestError(f"--shard takes I/N with 0 <= I < N, e.g. 0/4, not {text!r}{where}")
    return int(index), int(count)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    config = read_config(arguments)
    return run_command(
        "extract", lambda: run(config), "interrupted; the same command goes on from here"
    )


def run(config: ExtractConfig) -> int:
    """Plan, print the plan, do it."""
    # Here, not above: torch and timm take seconds to import, and --help shouldn't.
    from extract.digests import DigestMemory
    from extract.plan import check_space, describe_plan, make_plan
    from extract.run import run_plan

    memory = DigestMemory(config.root / ".digests.json")
    plan = make_plan(config)
    for line in describe_plan(plan, memory):
        print(line, flush=True)
    if config.dry_run:
        problems = plan.problems
    else:
        check_space(plan, memory)
        problems = run_plan(plan, memory, say=lambda line: print(line, flush=True))
    for what, why in problems:
        complain("extract", f"{what}: {why}")
    return 1 if problems else 0
