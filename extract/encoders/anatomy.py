"""What an encoder gives at each layer, and what it expects of its input: in words and numbers."""

from dataclasses import dataclass

NORM_RULES = ("tokens", "pooled", "each stage", "last stage", "none")


@dataclass(frozen=True)
class Statistics:
    """What the encoder expects of its input."""

    mean: tuple[float, ...]  # of values in 0..1
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    intensity: str = "255"  # one of transforms.INTENSITIES


@dataclass(frozen=True)
class Tap:
    """A module whose output is one layer. ``layout`` is one of pooling.LAYOUTS."""

    module: str
    layout: str


@dataclass(frozen=True)
class Anatomy:
    """How to read one encoder: taps, prefix tokens, norm, and the widths that come out."""

    family: str  # class name in its library
    norm_rule: str  # one of NORM_RULES
    width: tuple[int, ...]  # of each layer
    taps: tuple[Tap, ...]  # one a layer; empty: the library's own kept maps are pooled instead
    n_parameters: int
    known: bool = True  # whether a table says so; else the layers are raw, and the plan says that
    n_prefix: int = 0  # class token and registers
    has_cls: bool = False
    head_width: int | None = None  # None: no vector before the projection
    proj_width: int | None = None  # None: no projection

    @property
    def n_layers(self) -> int:
        """Blocks, stages or maps."""
        return len(self.width)

    def pools(self, layer: int) -> tuple[str, ...]:
        """The pools of a layer, ``head`` and ``proj`` apart."""
        return ("cls", "mean") if self.has_cls else ("mean",)
