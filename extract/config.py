"""The settings of ``extract``: each has one home, here. Flags read this class."""

from dataclasses import dataclass, field
from pathlib import Path

from cache import RequestError
from cache.format.units import UNIT_ROWS
from cache.places import features_root
from cache.splits.rules import SplitRule
from extract.datasets.files.options import TableOptions

PRECISIONS = ("fp32", "tf32", "fp16", "bf16")
STORES = ("float16", "float32")
LAYER_NORMS = ("final", "none")
PROTOCOL_NAMES = ("wu2025", "doerrich2024", "huix2024", "baharoon2023")  # see preprocessing.py

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


# Of ExtractConfig, what --text has no use for.
IMAGE_OPTIONS = (
    "size",
    "fit_size",
    "slice_axis",
    "slice_neighbours",
    "source_size",
    "window",
    "skip_errors",
    "split",
    "split_seed",
    "keep_split",
    "strict",
    "workers",
    "layers",
    "layer_norm",
    "protocol",
    "resize",
    "interpolation",
    "antialias",
    "resize_backend",
    "mean",
    "std",
    "intensity",
    "channels",
    "batch_size",
    "shard",
)


@dataclass(frozen=True)
class ExtractConfig:
    """What to extract, how exactly, and where to. The first block changes features."""

    models: tuple[str, ...]
    # Side of the encoder's input, pixels; "native": the encoder's own; None: the protocol's, or own.
    size: int | str | None = None
    # Of encoders that don't take that size, as DINOv2 and 1024 (no multiple of 14; tables 3 of Huix et
    # al. 2024 and 8 of Baharoon et al. 2023 have both, and don't say how). "nearest": the nearest
    # that they take. "crop", "pad": images are prepared at that size, and their middle is cut out, or
    # mean colour put around them. None: they are refused.
    fit_size: str | None = None
    data: tuple[str, ...] = ("all",)
    table: TableOptions = field(default_factory=TableOptions)  # of csv:FILE
    window: str | None = None  # see datasets/windows.py; None: the data set's, or as stored
    skip_errors: bool = False  # leave unreadable files out
    slice_axis: int | None = None  # of volumes, 0 to 2; None: 0
    slice_neighbours: bool = False  # the slices before, at and after as channels
    source_size: int | None = None  # side of the stored images; None: the smallest >= size
    weights: str = "pretrained"  # or "random", or a file
    seed: int = 0  # of random weights
    layers: str = "all"  # or "last4", or numbers like "0,5,-1"
    layer_norm: str | None = None  # "final", or "none": raw block outputs; None: final
    precision: str = "fp32"  # never a default that depends on the machine
    store: str = "float16"

    # Preprocessing; None: as the protocol says, else the encoder's own.
    protocol: str | None = None  # one of PROTOCOL_NAMES
    resize: str | None = None  # one of RESIZES; scale where nobody says
    interpolation: str | None = None
    antialias: bool | None = None
    resize_backend: str | None = None
    mean: tuple[float, ...] | None = None  # of three channels, values in 0..1
    std: tuple[float, ...] | None = None
    intensity: str | None = None
    channels: str | None = None

    # Text features for zero-shot, instead of images.
    text: bool = False
    prompts: Path | None = None  # JSON: class name -> prompts; None: by template
    templates: tuple[str, ...] = ()  # with {}; (): the data set's own

    # Nothing below changes a feature's meaning, and none of it is in the key.
    split: str | None = (
        None  # of files of images, see cache/splits/make.py; None: the owner's, or usual
    )
    split_seed: int | None = None  # None: of the split that is kept, else 0
    keep_split: str | None = None  # see datasets/drawn.py; None: of the newest complete file
    strict: bool = False  # refuse copies and patients on two sides of a split
    workers: int | None = None  # processes that decode files of images; None: by the cores
    data_root: Path | None = None  # of MedMNIST's files; None: ~/.medmnist
    features: Path | None = None  # None: $MEDPROBE_FEATURES or ./features
    batch_size: int | None = None  # None: by device and size
    device: str = "auto"
    shard: tuple[int, int] = (0, 1)  # (I, N): this process takes the units u with u mod N == I
    dry_run: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name, value, allowed in [
            ("--precision", self.precision, PRECISIONS),
            ("--store", self.store, STORES),
            ("--layer-norm", self.layer_norm, LAYER_NORMS),
            ("--protocol", self.protocol, PROTOCOL_NAMES),
            ("--resize", self.resize, RESIZES),
            ("--interpolation", self.interpolation, INTERPOLATIONS),
            ("--fit-size", self.fit_size, FITS),
            ("--resize-backend", self.resize_backend, BACKENDS),
            ("--intensity", self.intensity, tuple(INTENSITIES)),
            ("--channels", self.channels, tuple(CHANNELS)),
        ]:
            if value is not None and value not in allowed:
                raise RequestError(f"{name} takes {', '.join(allowed)}, not {value!r}")
        if self.slice_axis not in (None, 0, 1, 2):
            raise RequestError(f"--slice-axis takes 0, 1 or 2, not {self.slice_axis}")
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
        if self.split_seed is not None and self.split_seed < 0:
            raise RequestError(f"--split-seed takes 0 and more, not {self.split_seed}")
        if self.workers is not None and not 0 <= self.workers <= 256:
            raise RequestError(f"--workers takes 0 to 256, not {self.workers}")
        if not 0 <= self.seed < 2**32:
            raise RequestError(f"--seed takes 0 to 4294967295, not {self.seed}")

    def _refuse_image_options(self) -> None:
        """What says how images are read has no effect on texts, and isn't ignored silently."""
        for name in IMAGE_OPTIONS:
            if getattr(self, name) != getattr(ExtractConfig, name):
                no = "no-" if name == "antialias" and not self.antialias else ""
                flag = f"--{no}{name.replace('_', '-')}"
                cure = "leave it out with --text"
                if name == "shard":
                    cure = "texts are few: run --text in one process, without torchrun"
                raise RequestError(f"{flag} is about images; {cure}")

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
