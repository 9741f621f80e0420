"""The settings of ``extract``: each has one home, here. Flags read this class."""

from dataclasses import dataclass
from pathlib import Path

from cache import RequestError
from cache.places import features_root
from cache.units import UNIT_ROWS

PRECISIONS = ("fp32", "tf32", "fp16", "bf16")
STORES = ("float16", "float32")
LAYER_NORMS = ("final", "none")


@dataclass(frozen=True)
class ExtractConfig:
    """What to extract, how exactly, and where to. The first block changes features."""

    models: tuple[str, ...]
    size: int | None = None  # side of the encoder's input, pixels; None: the encoder's own
    data: tuple[str, ...] = ("all",)
    source_size: int | None = None  # side of the stored images; None: the smallest >= size
    weights: str = "pretrained"  # or "random", or a file
    seed: int = 0  # of random weights
    layers: str = "all"  # or "last4", or numbers like "0,5,-1"
    layer_norm: str = "final"  # or "none": raw block outputs
    precision: str = "fp32"  # never a default that depends on the machine
    store: str = "float16"

    # Nothing below changes a feature's meaning, and none of it is in the key.
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
        ]:
            if value not in allowed:
                raise RequestError(f"{name} takes {', '.join(allowed)}, not {value!r}")
        if self.size is not None and not 1 <= self.size <= 4096:
            raise RequestError(f"--size is the input's side in pixels, 1 to 4096, not {self.size}")
        if self.batch_size is not None and not 1 <= self.batch_size <= UNIT_ROWS:
            raise RequestError(
                f"--batch-size takes 1 to {UNIT_ROWS}, not {self.batch_size}: a batch never "
                f"crosses a unit of {UNIT_ROWS} rows, so that a resumed file equals an "
                "uninterrupted one"
            )
        if not 0 <= self.seed < 2**32:
            raise RequestError(f"--seed takes 0 to 4294967295, not {self.seed}")

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
