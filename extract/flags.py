"""The flags that say which images an encoder sees, and how: of ``extract`` and of ``finetune``."""

import argparse
import math
from pathlib import Path
from typing import Any

from cache.commands.terminal import split_words
from extract.config import (
    BACKENDS,
    CHANNELS,
    FITS,
    INTENSITIES,
    INTERPOLATIONS,
    RESIZES,
    ExtractConfig,
)
from extract.datasets.files.option_flags import Flags

DEFAULT = ExtractConfig(models=())


def add_source_flags(what: Flags, *, usual_data: str = "all") -> None:
    """Which encoder, and which images.

    Args:
        what: where the flags are added.
        usual_data: what is meant without --data, in words.
    """
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
        f"them) ({usual_data})",
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
        default=DEFAULT.weights,
        metavar="W",
        help="pretrained, random, a file of this architecture, FILE:KEY (a part of a training "
        "checkpoint), or a folder of safetensors with an index (%(default)s)",
    )


def add_preparing_flags(images: Flags) -> None:
    """How images are prepared."""
    images.add_argument(
        "--fit-size",
        choices=FITS,
        help="of encoders that don't take --size, as DINOv2 and 1024 px: nearest: the nearest that they "
        "take; crop, pad: images are prepared at --size, then cut, or set into the mean colour "
        "(refused)",
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
        default=DEFAULT.antialias,
        help="when images are made smaller (yes)",
    )
    images.add_argument(
        "--resize-backend",
        choices=BACKENDS,
        help="device: float32, unrounded; pil: Pillow's 8-bit resize, as published pipelines have "
        "it; tensor: torchvision's of float tensors, where bicubic overshoots black and white (device)",
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


def add_reading_flags(how: Flags) -> None:
    """How images are read; nothing here changes a number."""
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


def read_image_options(options: argparse.Namespace) -> dict[str, Any]:
    """What these flags say, as settings of ``ExtractConfig``."""
    return {
        "size": options.size,
        "fit_size": options.fit_size,
        "data": split_words("--data", options.data) or ("all",),
        "source_size": options.source_size,
        "slice_axis": options.slice_axis,
        "slice_neighbours": options.slice_neighbours,
        "window": options.window,
        "skip_errors": options.skip_errors,
        "weights": options.weights,
        "resize": options.resize,
        "interpolation": options.interpolation,
        "antialias": options.antialias,
        "resize_backend": options.resize_backend,
        "mean": options.mean,
        "std": options.std,
        "intensity": options.intensity,
        "channels": options.channels,
        "workers": options.workers,
        "data_root": options.data_root,
    }


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
