"""Makes ENCODERS.md out of the table: ``python -m extract.encoders.document > extract/ENCODERS.md``.

Layers, widths and prefix tokens are asked of the architectures themselves, on the meta device: no
weights are needed, and a table that contradicts the code can't be written.
"""

from collections.abc import Iterator

from extract.encoders.anatomy import Statistics
from extract.encoders.encoder import Description, describe
from extract.encoders.table.entries import ENTRIES
from extract.encoders.table.entry import CLIP, HALF, IMAGENET

HEAD = """\
# Encoders

Made from `extract/encoders/table/` by `python -m extract.encoders.document`; a test compares them.

`layers` counts blocks, stages or maps; `width` is that of the first and the last. `prefix` counts
the tokens before the patches: class token and registers, which `mean` never holds. `head` is what
the encoder's own head sees, `proj` its projection into the space of its texts. `norm` is what is
done to each layer before or after pooling (`extract --help`, `--layer-norm`); `norm2` says which
encoders can give `--layer-norm norm2`. `tokens` is the grid of the last layer
at the encoder's own size (`extract --tokens`), "raw" where the family has no norm for tokens. `seen` lists the known medical sets that pretraining saw;
"none" is a closed list without them, "?" means that nobody outside can tell. Mean and std: I = ImageNet's {imagenet}, H = 0.5 and 0.5, C = CLIP's {clip}.
"""

COLUMNS = (
    "name",
    "what",
    "full name",
    "layers",
    "pools",
    "width",
    "head",
    "proj",
    "prefix",
    "norm",
    "norm2",
    "tokens",
    "size",
    "mean, std",
    "interpolation",
    "licence",
)
ORIGIN = ("name", "objective", "trained on", "seen", "papers", "weights")


def make_document() -> Iterator[str]:
    """The lines of ENCODERS.md."""
    yield HEAD.format(imagenet=_numbers(IMAGENET), clip=_numbers(CLIP))
    described = [describe(entry.name, None) for entry in ENTRIES]
    yield from _table(COLUMNS, [_architecture(d) for d in described])
    yield ""
    yield "## Where they come from"
    yield ""
    yield from _table(ORIGIN, [_origin(d) for d in described])


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '/') for cell in row)} |"


def _architecture(d: Description) -> tuple[str, ...]:
    anatomy, entry = d.anatomy, d.entry
    first, last = anatomy.width[0], anatomy.width[-1]
    return (
        f"`{entry.name}`",
        entry.title,
        f"`{entry.encoder}`",
        str(anatomy.n_layers),
        ", ".join(anatomy.pools(0)),
        str(last) if first == last else f"{first}..{last}",
        str(anatomy.head_width or "-"),
        str(anatomy.proj_width or "-"),
        str(anatomy.n_prefix),
        anatomy.norm_rule,
        "-" if anatomy.lacks_norm2 else "yes",
        _tokens(d),
        str(d.outline.own_size),
        _statistics(d.statistics),
        d.statistics.interpolation if d.statistics else "?",
        d.outline.licence or "?",
    )


def _tokens(d: Description) -> str:
    """ "37 x 37" patches of the last layer, or "7 x 7, raw"."""
    grid = d.anatomy.grids[-1]
    raw = ", raw" if d.anatomy.norm_rule in ("pooled", "none") else ""
    return f"{grid[0]} x {grid[1]}{raw}" if grid else "-"


def _origin(d: Description) -> tuple[str, ...]:
    entry = d.entry
    how = entry.pretraining
    seen = "?" if how.seen is None else ", ".join(how.seen) or "none"
    return (
        f"`{entry.name}`",
        how.objective,
        how.images,
        seen,
        ", ".join(entry.papers) or "-",
        str(d.outline.place),
    )


def _statistics(statistics: Statistics | None) -> str:
    if statistics is None:
        return "?"
    for letter, known in (("I", IMAGENET), ("H", HALF), ("C", CLIP)):
        if (statistics.mean, statistics.std) == (known.mean, known.std):
            return letter
    words = _numbers(statistics)
    return words if statistics.intensity == "255" else f"{words}, {statistics.intensity}"


def _numbers(statistics: Statistics) -> str:
    mean, std = (
        ", ".join(f"{v:g}" for v in dict.fromkeys(values))
        for values in (statistics.mean, statistics.std)
    )
    return f"({mean}) and ({std})"


if __name__ == "__main__":
    print("\n".join(make_document()))
