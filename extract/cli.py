"""The command ``extract``: its flags, its output, its exit status."""

import argparse
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cache import RequestError
from cache.terminal import Parser, complain, join_layers, run_command, split_words
from extract.config import (
    BACKENDS,
    CHANNELS,
    INTENSITIES,
    INTERPOLATIONS,
    LAYER_NORMS,
    PRECISIONS,
    PROTOCOL_NAMES,
    RESIZES,
    STORES,
    ExtractConfig,
)
from extract.datasets.table_flags import add_table_flags, read_table_options

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
        help="one or more encoders, comma separated: a short name (`extract models` lists them), any "
        "timm name, open_clip:MODEL/TAG, transformers:OWNER/NAME, hf-hub:OWNER/NAME, "
        "local-dir:PATH, or your own FILE.py:FUNCTION",
    )
    what.add_argument(
        "--size",
        type=read_size,
        metavar="PX",
        help="side of the encoder's input in pixels, or native: its own, whatever a protocol says "
        "(its own)",
    )
    what.add_argument(
        "--data",
        metavar="NAMES",
        help="MedMNIST flags, comma separated; all = the twelve 2D sets; all3d = the six 3D sets; "
        "demo; npz:FILE; folder:PATH; csv:FILE; a recipe or a name of your own (`extract data` lists "
        "them) (all)",
    )
    what.add_argument(
        "--source-size",
        type=int,
        metavar="PX",
        help="which MedMNIST files: 28, 64, 128 or 224, of volumes 28 or 64 (the smallest that is "
        "at least --size, else the largest)",
    )
    what.add_argument(
        "--slice-axis",
        type=int,
        metavar="A",
        help="axis of a volume along which it is cut into slices, 0 to 2; each slice goes through "
        "the encoder, and probe averages a volume's slices (0)",
    )
    what.add_argument(
        "--slice-neighbours",
        action="store_true",
        help="a slice's channels are the slices before, at and after it",
    )
    what.add_argument(
        "--window",
        metavar="W",
        help="which stored value becomes black and which white, of grey images: LO,HI; ct, lung, "
        "soft-tissue, bone or brain; percentile:5,95; min-max; header (DICOM's own); full (the "
        "range of the type) (8 bit as stored, 16 bit full, DICOM header)",
    )
    what.add_argument(
        "--skip-errors",
        action="store_true",
        help="leave out files that can't be read; the file and its key say so",
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
    images.add_argument(
        "--resize",
        choices=RESIZES,
        help="scale: the whole image to a square; pad: never enlarged, centred on black; "
        "pad-fit: longest side to the size, centred on black; pad-after-norm: on the mean colour; crop: shorter side to 256/224 of the size, then the "
        "centre; scale-crop: both sides, then the centre; longest: longest side to the size, mean "
        "colour right and below (scale)",
    )
    images.add_argument("--interpolation", choices=INTERPOLATIONS, help="(the encoder's own)")
    images.add_argument(
        "--antialias",
        action=argparse.BooleanOptionalAction,
        default=default.antialias,
        help="when images are made smaller (%(default)s)",
    )
    images.add_argument(
        "--resize-backend",
        choices=BACKENDS,
        help="device: float32, unrounded; pil: Pillow's 8-bit resize, as published pipelines have "
        "it (device)",
    )
    images.add_argument(
        "--mean", type=read_numbers, metavar="M", help="one number or R,G,B of 0..1 (its own)"
    )
    images.add_argument(
        "--std", type=read_numbers, metavar="S", help="one number or R,G,B (its own)"
    )
    images.add_argument(
        "--intensity",
        choices=tuple(INTENSITIES),
        help="before mean and std: 255: divided by 255; min-max: each image stretched to 0..1; "
        "min-max-channel: each of its channels (its own, nearly always 255)",
    )
    images.add_argument(
        "--channels",
        choices=tuple(CHANNELS),
        help="of grey images: rgb: repeated; first-filter: only the first input channel of the "
        "encoder's first layer sees them (rgb)",
    )
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
        "--split-seed", type=int, default=default.split_seed, metavar="S", help="(%(default)s)"
    )
    own.add_argument(
        "--strict",
        action="store_true",
        help="refuse copies of an image, or a patient, on two sides of a split",
    )
    how = parser.add_argument_group("how (none of it changes the key)")
    how.add_argument(
        "--workers",
        "-j",
        type=int,
        metavar="N",
        help="processes that decode files of images (one a core, at most 16)",
    )
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
            size=options.size,
            data=split_words("--data", options.data) or ("all",),
            source_size=options.source_size,
            slice_axis=options.slice_axis,
            slice_neighbours=options.slice_neighbours,
            table=read_table_options(options),
            window=options.window,
            skip_errors=options.skip_errors,
            split=options.split,
            split_seed=options.split_seed,
            strict=options.strict,
            workers=options.workers,
            weights=options.weights,
            seed=options.seed or 0,
            layers=options.layers,
            layer_norm=options.layer_norm,
            precision=options.precision,
            store=options.store,
            protocol=options.protocol,
            resize=options.resize,
            interpolation=options.interpolation,
            antialias=options.antialias,
            resize_backend=options.resize_backend,
            mean=options.mean,
            std=options.std,
            intensity=options.intensity,
            channels=options.channels,
            text=options.text,
            prompts=options.prompts,
            templates=tuple(options.template),
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


def read_size(text: str) -> int | str:
    """Pixels, or "native"."""
    if text == "native":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"takes pixels or native, not {text!r}") from None


def read_numbers(text: str) -> tuple[float, ...]:
    """One number for three channels, or three."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 3) or not all(map(math.isfinite, numbers)):
        raise argparse.ArgumentTypeError(f"takes one number or three, like 0.5, not {text!r}")
    return numbers * 3 if len(numbers) == 1 else numbers


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
        from extract.models import main as list_models

        return list_models(words[1:])
    if words[:1] == ["data"]:
        from extract.data import main as list_data

        return list_data(words[1:])
    config = read_config(words)
    return run_command(
        "extract", lambda: run(config), "interrupted; the same command goes on from here"
    )


def run(config: ExtractConfig) -> int:
    """Plan, print the plan, do it."""
    # Here, not above: torch and timm take seconds to import, and --help shouldn't.
    from extract.digests import DigestMemory
    from extract.plan import check_space, describe_plan, make_plan
    from extract.progress import CheckProgress
    from extract.run import run_plan

    if config.text:
        from extract.text import run_texts  # only here: it loads open_clip, a second more

        problems = run_texts(config, say=lambda line: print(line, flush=True))
        for what, why in problems:
            complain("extract", f"{what}: {why}")
        return 1 if problems else 0
    memory = DigestMemory(config.root / ".digests.json")
    with CheckProgress() as progress:
        plan = make_plan(config, progress.report)
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
