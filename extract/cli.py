"""The command ``extract``: its flags, its output, its exit status."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cache import RequestError
from cache.commands.terminal import Parser, complain, join_layers, run_command, show, split_words
from extract.config import LAYER_NORMS, PRECISIONS, PROTOCOL_NAMES, STORES, ExtractConfig
from extract.datasets.files.option_flags import add_table_flags, read_table_options
from extract.flags import (
    add_preparing_flags,
    add_reading_flags,
    add_source_flags,
    read_image_options,
)

DEMO = {"model": "efficientnet-lite0", "data": "demo", "size": 128}

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
  extract --model openclip --text                   class prompts, for probe --kind zeroshot
  extract models                                    every encoder, and which are ready here
  extract data                                      every data set, and what is in each

Interrupt it whenever you like: the same command goes on where it stopped.
"""


def make_parser() -> Parser:
    """The flags; their defaults are ExtractConfig's."""
    default = ExtractConfig(models=())
    parser = Parser(
        prog="extract",
        commands=("models", "data"),
        description="Run frozen encoders over images once and keep every layer's class token and "
        "mean patch embedding.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what to extract (all of it is in the file's key)")
    add_source_flags(what)
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
        help="final: the encoder's own final norm on every layer, as its family wants it; none: "
        "raw (final)",
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
    images = parser.add_argument_group("how images are prepared (all of it is in the key)")
    images.add_argument(
        "--protocol",
        choices=PROTOCOL_NAMES,
        help="as a paper's released code does it; flags below override its parts",
    )
    add_preparing_flags(images)
    texts = parser.add_argument_group("texts, for encoders with a text tower (open_clip)")
    texts.add_argument(
        "--text",
        action="store_true",
        help="store the features of class prompts, not of images, for probe --kind zeroshot",
    )
    texts.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help='JSON: {"class name": ["prompt", ...], ...} (made by template)',
    )
    texts.add_argument(
        "--template",
        action="append",
        default=[],
        metavar="TEXT",
        help="a prompt with {} for the class; may be given several times (the data set's own)",
    )
    own = parser.add_argument_group(
        "your own images: --data folder:PATH or csv:FILE (labels and splits are in no key)"
    )
    add_table_flags(own)
    own.add_argument(
        "--split",
        metavar="RULE",
        help="80/10/10 and the like, systematic:TEST,VAL, or test; stratified, and by patient where "
        "patients are known (the owner's, else 80/10/10); probe --split tries others without a "
        "forward pass",
    )
    own.add_argument(
        "--split-seed", type=int, metavar="S", help="of the rule (0, or of the split that is kept)"
    )
    own.add_argument(
        "--keep-split",
        metavar="FILE",
        help="a split that was drawn before stays when labels or samples change, and new samples "
        "alone are drawn; this is the feature file that has it, or none to draw all anew (the newest "
        "complete file of the data set)",
    )
    own.add_argument(
        "--strict",
        action="store_true",
        help="refuse copies of an image, or a patient, on two sides of a split",
    )
    how = parser.add_argument_group("how (none of it changes the key)")
    add_reading_flags(how)
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
    how.add_argument(
        "--offline",
        action="store_true",
        help="never use the network, as under HF_HUB_OFFLINE=1; what isn't here is named",
    )
    how.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    how.add_argument("--overwrite", action="store_true", help="throw away what is stored already")
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
    if isinstance(options.size, int) and options.size < 1:
        parser.error(f"--size is the input's side in pixels, not {options.size}")
    if options.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        return ExtractConfig(
            models=split_words("--model", options.model),
            **read_image_options(options),
            table=read_table_options(options),
            split=options.split,
            split_seed=options.split_seed,
            keep_split=options.keep_split,
            strict=options.strict,
            seed=options.seed or 0,
            layers=options.layers,
            layer_norm=options.layer_norm,
            precision=options.precision,
            store=options.store,
            protocol=options.protocol,
            text=options.text,
            prompts=options.prompts,
            templates=tuple(options.template),
            features=options.features,
            batch_size=options.batch_size,
            device=options.device,
            shard=read_shard(options.shard),
            dry_run=options.dry_run,
            overwrite=options.overwrite,
        )
    except RequestError as error:
        parser.error(str(error))


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
    from extract.machine.digests import DigestMemory
    from extract.machine.progress import CheckProgress
    from extract.plan import check_space, describe_plan, leave_out_missing, make_plan
    from extract.run import run_plan

    if config.text:
        from extract.texts.run import run_texts  # only here: it loads open_clip, a second more

        problems = run_texts(config, say=lambda line: show(line, flush=True))
        for what, why in problems:
            complain("extract", f"{what}: {why}")
        return 1 if problems else 0
    memory = DigestMemory(config.root / ".digests.json")
    with CheckProgress() as progress:
        plan = leave_out_missing(make_plan(config, progress.report))
    for line in describe_plan(plan, memory):
        show(line, flush=True)
    if config.dry_run:
        problems = plan.problems
    else:
        check_space(plan, memory)
        problems = run_plan(plan, memory, say=lambda line: show(line, flush=True))
    for what, why in problems:
        complain("extract", f"{what}: {why}")
    return 1 if problems else 0
