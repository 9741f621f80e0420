"""The words for preprocessing, and how a user's wishes, a paper's protocol and an encoder's own
statistics become one transform. No torch here: the command line reads these words.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cache import RequestError
from extract.config import ExtractConfig
from extract.encoders.anatomy import Statistics
from extract.encoders.table.entry import IMAGENET, Entry


@dataclass(frozen=True)
class Protocol:
    """How a paper's released code prepares images. Every part can be overridden by its flag."""

    paper: str
    size: int  # side of the input, pixels
    resize: str
    interpolation: str | None = None  # None: the encoder's own
    backend: str = "pil"
    antialias: bool = True
    sizes: Mapping[str, int] = field(default_factory=dict)  # of single encoders
    statistics: Statistics | str = "encoder"  # or "data set", or numbers for every encoder
    intensity: str | None = None
    channels: str = "rgb"
    raw_layers: tuple[str, ...] = ()  # encoders whose layers are taken before the final norm


# As the papers' code does it; sections of the papers don't always say.
PROTOCOLS = {
    # FupingWu90/FMMIC at 4119c3b: Common_Main.py:121-123, dataset.py:179-182 and :282-291. The
    # 224-px files are used as they are; DINOv2 alone is enlarged, by SAM's ResizeLongestSide.
    "wu2025": Protocol(
        "Wu & Papiez 2025",
        size=224,
        resize="longest",
        interpolation="bilinear",
        sizes={"dinov2": 518},
    ),
    # sdoerrich97/rethinking-model-prototyping-MedMNISTPlus, main.py:75-92: no resize at all.
    "doerrich2024": Protocol("Doerrich et al. 2024", size=224, resize="pad-after-norm"),
    # joanaapa/Foundation-Medical: params.json:100-150, defaults/datasets.py, defaults/models.py.
    "huix2024": Protocol(
        "Huix et al. 2024",
        size=224,
        resize="scale-crop",
        interpolation="bilinear",
        statistics="data set",
        channels="first-filter",
    ),
    # MohammedSB/DINOv2ForRadiology: data/transforms.py:26-39 and :94-115; linear.py:426 calls it
    # without the crop (the kNN's 256 step is --resize scale-crop). Images are tensors before the
    # resize (data/datasets/chexpert.py:102-104), which torchvision 0.15.0 (requirements.txt) doesn't
    # antialias and, of floats, doesn't clip; there they are float16, which rounds by a sixteenth of a
    # grey level. Its wrappers of transformers' models take hidden states, which are before the final
    # norm; DINOv2's are after it.
    "baharoon2023": Protocol(
        "Baharoon et al. 2023",
        size=224,
        resize="scale",
        interpolation="bicubic",
        backend="tensor",
        antialias=False,
        sizes={"sam-l": 1024},
        statistics=IMAGENET,
        intensity="min-max-channel",
        raw_layers=("vit-l", "msn-l", "clip-l14", "openclip-h14", "mae-l"),
    ),
}


@dataclass(frozen=True)
class Preprocessing:
    """What is done to images for one encoder, but for what depends on the data set."""

    resize: str
    interpolation: str
    antialias: bool
    backend: str
    intensity: str
    channels: str
    mean: tuple[float, ...] | None  # None: of the data set
    std: tuple[float, ...] | None
    content: int | None = None  # side that is cut or padded to the input's; None: it is the input's

    @property
    def of_data_set(self) -> bool:
        """Whether mean and std are the data set's own."""
        return self.mean is None or self.std is None


def find_protocol(config: ExtractConfig) -> Protocol | None:
    """The protocol that was named."""
    return PROTOCOLS[config.protocol] if config.protocol else None


def wished_size(config: ExtractConfig, entry: Entry) -> int | None:
    """The input's side, pixels; None means the encoder's own."""
    protocol = find_protocol(config)
    if isinstance(config.size, int):
        return config.size
    if config.size == "native" or protocol is None:
        return None
    return protocol.sizes.get(entry.name, protocol.size)


def wished_norm(config: ExtractConfig, entry: Entry) -> str:
    """One of ``extract.config.LAYER_NORMS``."""
    protocol = find_protocol(config)
    raw = protocol is not None and entry.name in protocol.raw_layers
    return config.layer_norm or ("none" if raw else "final")


def preprocess(
    config: ExtractConfig, entry: Entry, own: Statistics | None, usual_resize: str = "scale"
) -> Preprocessing:
    """Settle everything: flags first, then the protocol, then the encoder's own.

    Args:
        config: the user's wishes.
        entry: the encoder.
        own: what it expects of its input, where that is known.
        usual_resize: of the data set, where neither flag nor protocol says.

    Raises:
        RequestError: nobody says which mean and std the encoder wants.
    """
    protocol = find_protocol(config)
    base: Statistics | str | None = own
    if protocol is not None and protocol.statistics != "encoder":
        base = protocol.statistics
    known = base if isinstance(base, Statistics) else None
    mean = config.mean or (known.mean if known else None)
    std = config.std or (known.std if known else None)
    if (mean is None or std is None) and base != "data set":
        raise RequestError(
            f"nobody says which mean and std {entry.encoder} was trained with, and none are "
            "guessed; give them: --mean 0.5 --std 0.5, or three numbers each"
        )
    intensity = own.intensity if own else "255"
    interpolation = own.interpolation if own else "bicubic"
    if protocol is not None:
        intensity = protocol.intensity or intensity
        interpolation = protocol.interpolation or interpolation
    backend = config.resize_backend or (protocol.backend if protocol else "device")
    # Pillow has no choice: whoever asks for it has it antialiased.
    antialias = protocol is None or protocol.antialias or backend == "pil"
    return Preprocessing(
        resize=config.resize or (protocol.resize if protocol else usual_resize),
        interpolation=config.interpolation or interpolation,
        antialias=antialias if config.antialias is None else config.antialias,
        backend=backend,
        intensity=config.intensity or intensity,
        channels=config.channels or (protocol.channels if protocol else "rgb"),
        mean=mean,
        std=std,
    )
