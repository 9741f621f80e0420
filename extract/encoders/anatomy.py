"""What an encoder gives at each layer, and what it expects of its input: in words and numbers."""

from dataclasses import dataclass

Grid = tuple[int, int]  # rows and columns of patches
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
    blocks: str = ""  # class of its blocks of tokens; "" where layers are something else
    # Rows and columns of each layer's patches or map; None where nobody knows how they lie.
    grids: tuple[Grid | None, ...] = ()
    norm2: str = ""  # of a block: name of the norm between its attention and its MLP; "": none

    @property
    def n_layers(self) -> int:
        """Blocks, stages or maps."""
        return len(self.width)

    def pools(self, layer: int) -> tuple[str, ...]:
        """The pools of a layer, ``head`` and ``proj`` apart."""
        return ("cls", "mean") if self.has_cls else ("mean",)

    @property
    def lacks_norm2(self) -> str:
        """Why its layers can't be those of ``--layer-norm norm2``, and the cure; "" where they can."""
        cure = "take --layer-norm final or none"
        if not self.known:
            return f"isn't in the table of families; {cure}"
        if not self.blocks and self.taps and self.taps[0].layout == "tokens":
            return "has the layers that its own code names; name those norms there, and norm=None"
        if not self.blocks:
            return f"has stages or maps as layers; {cure}"
        if not self.norm2:
            return f"has blocks ({self.blocks}) with none there; {cure}"
        return "" if self.norm_rule != "none" else f"has no final norm of its tokens; {cure}"
