"""The settings of ``extract``: each has one home, here, and its flag with it.

The classes are the groups of ``--help``; ``finetune`` takes some of them.
"""

import argparse
import math
import os
from dataclasses import MISSING, dataclass, field
from pathlib import Path

from cache import RequestError
from cache.commands.names import NORM2
from cache.commands.settings import check, flags_of, setting
from cache.format.units import UNIT_ROWS
from cache.places import features_root
from cache.splits.rules import SplitRule
from extract.datasets.files.options import TableOptions

PRECISIONS = ("fp32", "tf32", "fp16", "bf16")
STORES = ("float16", "float32", "int8")
LAYER_NORMS = ("final", "none", NORM2)
PROTOCOL_NAMES = ("wu2025", "doerrich2024", "huix2024", "baharoon2023")  # see prepare/protocols.py

# The words for preprocessing. What each does, exactly, is with Transform in transforms.py.
RESIZES = (
    "scale",  # the whole image to size x size, aspect ratio given up
    "pad",  # longest side at most size, never enlarged, in the middle of black
    "pad-fit",  # longest side to size, in the middle of black: a user's own images, by default
    "pad-after-norm",  # the same in the middle of the mean colour (Doerrich et al. 2024)
    "crop",  # shorter side to 256/224 of size, then the middle (torchvision's classification)
    "scale-crop",  # both sides to 256/224 of size, then the middle (Huix et al. 2024)
    "longest",  # longest side to size, mean colour to the right and below (SAM)
)
BACKENDS = ("device", "pil", "tensor")  # where and by what the resize is done
FITS = ("nearest", "crop", "pad")  # what is done where an encoder doesn't take a size
INTERPOLATIONS = ("bicubic", "bilinear", "nearest")
INTENSITIES = {  # word on the command line -> entry of the key
    "255": "uint8 / 255",
    "min-max": "min-max",  # over an image's channels (MedSAM)
    "min-max-channel": "min-max per channel",  # Baharoon et al. 2023
}
COLOUR = "RGB"
FIRST_FILTER = "grey into the first filter"  # Huix et al. 2024
CHANNELS = {"rgb": "grey repeated to RGB", "first-filter": FIRST_FILTER}  # of grey images, likewise


# Of ExtractConfig, what --text has a use for, too.
OF_TEXTS = {
    *("models", "data", "weights", "seed", "precision", "store", "text", "prompts", "templates"),
    *("data_root", "features", "device", "dry_run", "overwrite"),
}


# ---------------------------------------------------------------------------- what flags may say


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


# ---------------------------------------------------------------------------- what changes features


@dataclass(frozen=True)
class SourceConfig:
    """Which encoder, and which images."""

    models: tuple[str, ...] = setting(
        MISSING,
        "one or more encoders, comma separated: a short name (`extract models` lists them), any "
        "timm name, open_clip:MODEL/TAG, transformers:OWNER/NAME, hf-hub:OWNER/NAME, "
        "local-dir:PATH, or your own FILE.py:FUNCTION",
        flag="--model",
        short="-m",
        metavar="NAMES",
        keyed=False,
    )
    # None: the protocol's, or the encoder's own.
    size: int | str | None = setting(
        None,
        "side of the encoder's input in pixels, or native: its own, whatever a protocol says",
        metavar="PX",
        read=read_size,
        shown="its own",
        keyed=False,
    )
    data: tuple[str, ...] = setting(
        ("all",),
        "MedMNIST flags, comma separated; all = the twelve 2D sets; all3d = the six 3D sets; "
        "demo; demo-masks; npz:FILE; folder:PATH; seg-folder:PATH; csv:FILE; a recipe or a name of "
        "your own (`extract data` lists them)",
        metavar="NAMES",
        keyed=False,
    )
    source_size: int | None = setting(
        None,
        "which MedMNIST files: 28, 64, 128 or 224, of volumes 28 or 64",
        metavar="PX",
        shown="the smallest that is at least --size, else the largest",
    )
    slice_axis: int | None = setting(
        None,
        "axis of a volume along which it is cut into slices, 0 to 2; each slice goes through "
        "the encoder, and probe averages a volume's slices",
        metavar="A",
        least=0,
        most=2,
        takes="0, 1 or 2",
        shown="0",
    )
    slice_neighbours: bool = setting(
        False, "a slice's channels are the slices before, at and after it"
    )
    window: str | None = setting(  # see datasets/files/windows.py
        None,
        "which stored value becomes black and which white, of grey images: LO,HI; ct, lung, "
        "soft-tissue, bone or brain; percentile:5,95; min-max; header (DICOM's own); full (the "
        "range of the type)",
        metavar="W",
        shown="8 bit as stored, 16 bit full, DICOM header",
    )
    skip_errors: bool = setting(
        False, "leave out files that can't be read; the file and its key say so"
    )
    weights: str = setting(
        "pretrained",
        "pretrained, random, a file of this architecture, FILE:KEY (a part of a training "
        "checkpoint), or a folder of safetensors with an index",
        metavar="W",
    )


@dataclass(frozen=True)
class FeaturesConfig:
    """Which features of it are kept, and how exactly."""

    seed: int = setting(0, "of random weights", least=0, most=2**32 - 1)
    layers: str = setting("all", "all, last4, -1, or numbers like 0,5,-1", metavar="L")
    layer_norm: str | None = setting(
        None,
        "final: the encoder's own final norm on every layer, as its family wants it; none: raw; "
        "norm2: what a block's norm between attention and MLP gives, as attentive layer fusion has it",
        among=LAYER_NORMS,
        shown="final",
    )
    precision: str = setting(  # never a default that depends on the machine
        "fp32",
        "of the arithmetic; a bf16 forward pass changes features by 2.5 to 5 % of their spread",
        among=PRECISIONS,
    )
    store: str = setting(
        "float16",
        "type of the stored numbers; int8, of tokens alone, has a scale for each channel and unit",
        among=STORES,
    )


@dataclass(frozen=True)
class TokensConfig:
    """Patch tokens instead of pooled features."""

    tokens: str | None = setting(
        None,
        "the layers whose patch tokens are stored, in a file of their own and without pools: -1, "
        "last4, 5,11 or all",
        metavar="L",
        shown="",
    )
    ids: tuple[str, ...] = setting(
        (),
        "only these images, comma separated: a small file for maps, never taken for the whole; a "
        "volume is all its slices",
        shown="all",
    )
    pictures: bool = setting(
        True, "with a colour picture of each image as the encoder sees it, 224 px, for maps"
    )


@dataclass(frozen=True)
class ProtocolConfig:
    """Images as a paper prepares them."""

    protocol: str | None = setting(
        None,
        "as a paper's released code does it; flags below override its parts",
        among=PROTOCOL_NAMES,
    )


@dataclass(frozen=True)
class PreparingConfig:
    """How images are prepared. None: as the protocol says, else the encoder's own."""

    # Of encoders that don't take that size, as DINOv2 and 1024 (no multiple of 14; tables 3 of Huix et
    # al. 2024 and 8 of Baharoon et al. 2023 have both, and don't say how).
    fit_size: str | None = setting(
        None,
        "of encoders that don't take --size, as DINOv2 and 1024 px: nearest: the nearest that they "
        "take; crop, pad: images are prepared at --size, then cut, or set into the mean colour",
        among=FITS,
        shown="refused",
        keyed=False,
    )
    resize: str | None = setting(
        None,
        "scale: the whole image to a square; pad: never enlarged, centred on black; "
        "pad-fit: longest side to the size, centred on black; pad-after-norm: on the mean colour; "
        "crop: shorter side to 256/224 of the size, then the centre; scale-crop: both sides, then "
        "the centre; longest: longest side to the size, mean colour right and below",
        among=RESIZES,
        shown="scale",
    )
    interpolation: str | None = setting(None, "", among=INTERPOLATIONS, shown="the encoder's own")
    antialias: bool | None = setting(None, "when images are made smaller", shown="yes")
    resize_backend: str | None = setting(
        None,
        "device: float32, unrounded; pil: Pillow's 8-bit resize, as published pipelines have "
        "it; tensor: torchvision's of float tensors, where bicubic overshoots black and white",
        among=BACKENDS,
        shown="device",
    )
    mean: tuple[float, ...] | None = setting(  # of three channels
        None, "one number or R,G,B of 0..1", metavar="M", read=read_numbers, shown="its own"
    )
    std: tuple[float, ...] | None = setting(
        None, "one number or R,G,B", metavar="S", read=read_numbers, shown="its own"
    )
    intensity: str | None = setting(
        None,
        "before mean and std: 255: divided by 255; min-max: each image stretched to 0..1; "
        "min-max-channel: each of its channels",
        among=tuple(INTENSITIES),
        shown="its own, nearly always 255",
    )
    channels: str | None = setting(
        None,
        "of grey images: rgb: repeated; first-filter: only the first input channel of the "
        "encoder's first layer sees them",
        among=tuple(CHANNELS),
        shown="rgb",
    )


@dataclass(frozen=True)
class TextConfig:
    """Text features for zero-shot, instead of images."""

    text: bool = setting(
        False, "store the features of class prompts, not of images, for probe --kind zeroshot"
    )
    prompts: Path | None = setting(
        None, 'JSON: {"class name": ["prompt", ...], ...}', metavar="FILE", shown="made by template"
    )
    templates: tuple[str, ...] = setting(
        (),
        "a prompt with {} for the class; may be given several times",
        flag="--template",
        metavar="TEXT",
        repeated=True,
        shown="the data set's own",
    )


# ---------------------------------------------------------------------------- what doesn't


@dataclass(frozen=True)
class SplitConfig:
    """The split of files of images, see cache/splits/make.py. A file's command says what was drawn."""

    split: str | None = setting(
        None,
        "80/10/10 and the like, systematic:TEST,VAL, or test; stratified, and by patient where "
        "patients are known; probe --split tries others without a forward pass",
        metavar="RULE",
        shown="the owner's, else 80/10/10",
    )
    split_seed: int | None = setting(
        None, "of the rule", metavar="S", least=0, shown="0, or of the split that is kept"
    )
    keep_split: str | None = setting(  # see datasets/drawn.py
        None,
        "a split that was drawn before stays when labels or samples change, and new samples "
        "alone are drawn; this is the feature file that has it, or none to draw all anew",
        metavar="FILE",
        shown="the newest complete file of the data set",
    )
    strict: bool = setting(
        False, "refuse copies of an image, or a patient, on two sides of a split"
    )


@dataclass(frozen=True)
class ReadingConfig:
    """How images are read; nothing here changes a number."""

    workers: int | None = setting(
        None,
        "processes that decode files of images",
        short="-j",
        metavar="N",
        least=0,
        most=256,
        shown="one a core, at most 16",
        keyed=False,
    )
    data_root: Path | None = setting(
        None, "folder of MedMNIST's or MedSegBench's files", metavar="DIR", shown="~/.medmnist"
    )


@dataclass(frozen=True)
class OutputConfig:
    """Where feature files go, and on what they are made."""

    features: Path | None = setting(
        None, "where feature files go", metavar="DIR", shown="$MEDPROBE_FEATURES or ./features"
    )
    batch_size: int | None = setting(
        None, "1 to 256", short="-b", metavar="N", shown="by device and size", keyed=False
    )
    device: str = setting("auto", "auto, cpu, cuda, cuda:I or mps", keyed=False)
    # (I, N): this process takes the units u with u mod N == I.
    shard: tuple[int, int] = setting(
        (0, 1),
        "do the I-th of N shares, I from 0; N processes fill one file",
        metavar="I/N",
        read=read_shard,
        shown="torchrun's RANK and WORLD_SIZE, else 0/1",
        keyed=False,
    )
    dry_run: bool = setting(False, "print the plan and stop", keyed=False)
    overwrite: bool = setting(False, "throw away what is stored already", keyed=False)


@dataclass(frozen=True)
class ExtractConfig(
    OutputConfig,
    ReadingConfig,
    SplitConfig,
    TextConfig,
    TokensConfig,
    PreparingConfig,
    ProtocolConfig,
    FeaturesConfig,
    SourceConfig,  # the last base's fields come first
):
    """What to extract, how exactly, and where to."""

    table: TableOptions = field(default_factory=TableOptions)  # of csv:FILE

    def __post_init__(self) -> None:
        check(self)
        size = self.size
        if isinstance(size, str) and size != "native":
            raise RequestError(f"--size takes pixels or native, not {size!r}")
        if isinstance(size, int) and not 1 <= size <= 4096:
            raise RequestError(f"--size is the input's side in pixels, 1 to 4096, not {size}")
        for name, numbers in [("--mean", self.mean), ("--std", self.std)]:
            if numbers is not None and len(numbers) != 3:
                raise RequestError(f"{name} takes one number or three, found {len(numbers)}")
            if numbers is not None and max(numbers) > 1:
                raise RequestError(
                    f"{name} is of values in 0..1, found {max(numbers):g}; divide it by 255"
                )
        if self.mean is not None and min(self.mean) < 0:
            raise RequestError(f"--mean is of values in 0..1, found {min(self.mean):g}")
        if self.std is not None and min(self.std) <= 0:
            raise RequestError(f"--std takes numbers above 0, found {min(self.std):g}")
        if (self.prompts or self.templates) and not self.text:
            raise RequestError("--prompts and --template belong to --text")
        if self.prompts and self.templates:
            raise RequestError("--prompts says every prompt; leave --template out")
        if self.text:
            self._refuse_image_options()
        self._check_tokens()
        for template in self.templates:
            if template.count("{}") != 1:
                raise RequestError(f"--template needs one {{}} for the class, not {template!r}")
        if self.batch_size is not None and not 1 <= self.batch_size <= UNIT_ROWS:
            raise RequestError(
                f"--batch-size takes 1 to {UNIT_ROWS}, not {self.batch_size}: a batch never "
                f"crosses a unit of {UNIT_ROWS} rows, so that a resumed file equals an "
                "uninterrupted one"
            )
        if self.window is not None:
            from extract.datasets.files.windows import Window  # here: numpy would slow --help down

            Window.parse(self.window)
        if self.split is not None:
            SplitRule.parse(self.split)

    def _check_tokens(self) -> None:
        if self.tokens is not None:
            if self.layers != "all":
                raise RequestError("--tokens says which layers; leave --layers out")
            return
        if self.store == "int8":
            raise RequestError(
                "--store int8 is for --tokens, whose many patches share a scale; pooled features "
                "are small: use float16"
            )
        if self.ids or not self.pictures:
            flag = "--ids" if self.ids else "--no-pictures"
            raise RequestError(f"{flag} belongs to --tokens; name its layers, as --tokens -1")

    def _refuse_image_options(self) -> None:
        """What says how images are read has no effect on texts, and isn't ignored silently."""
        for flag in flags_of(ExtractConfig):
            if flag.field not in OF_TEXTS and getattr(self, flag.field) != flag.default:
                no = "no-" if getattr(self, flag.field) is False else ""
                cure = "leave it out with --text"
                if flag.field == "shard":
                    cure = "texts are few: run --text in one process, without torchrun"
                raise RequestError(f"--{no}{flag.name[2:]} is about images; {cure}")

    @property
    def root(self) -> Path:
        """Where feature files go."""
        return self.features or features_root()


def default_batch_size(device_type: str, size: int) -> int:
    """A batch that keeps the device busy without filling its memory.

    Measured on a ViT-S at 224 px on two CPU cores: 16 to 32 images are the fastest, larger ones
    fall out of the cache. On a GPU 128 images of 224 px are enough; larger images get fewer.
    """
    at_224 = 16 if device_type == "cpu" else 128
    return int(min(at_224, max(1, at_224 * 224**2 // size**2)))
