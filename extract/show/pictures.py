"""``extract data show`` and ``extract data twins``: their flags, and the pictures they write."""

import argparse
import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from cache import RequestError
from cache.commands.settings import add_flags, given
from cache.commands.terminal import Parser, run_command, show
from cache.files import write_whole
from cache.format.sample_tables import SPLITS
from cache.leaks import describe_leaks
from extract.config import (
    ExtractConfig,
    PreparingConfig,
    ProtocolConfig,
    ReadingConfig,
    SourceConfig,
    SplitConfig,
)
from extract.datasets.files.options import TableOptions
from extract.datasets.looks import THUMBNAIL_SIDE
from extract.datasets.sources import Source
from extract.encoders.table.entry import IMAGENET, Entry
from extract.job import Job
from extract.key import make_transform
from extract.loaded import find_transform
from extract.machine.digests import DigestMemory
from extract.machine.progress import CheckProgress
from extract.plan import SourceFinder, make_plan
from extract.prepare.protocols import preprocess
from extract.prepare.transforms import Transform
from extract.show.classes import draw_classes
from extract.show.twins import (
    PER_SHEET,
    by_likeness,
    describe_shared,
    describe_twin,
    draw_twins,
    look_for_twins,
    twin_facts,
)

MOST_PER_CLASS = 50
SIZE = 224  # px, where no encoder and no --size says: what most encoders take


def main(command: str, arguments: Sequence[str]) -> int:
    """Run ``extract data show`` or ``extract data twins``; returns the exit status."""
    parser, run = {
        "show": (make_show_parser(), run_show),
        "twins": (make_twins_parser(), run_twins),
    }[command]
    options = parser.parse_args(arguments)
    if options.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    return run_command(parser.prog, lambda: run(options))


# ---------------------------------------------------------------------------- show


def make_show_parser() -> Parser:
    """The flags of ``extract data show``."""
    parser = Parser(
        prog="extract data show",
        description="Draw some images of each class as an encoder will see them: after resize, "
        "crop, padding and intensity.",
    )
    _add_common_flags(parser, "NAME_contact_sheet.png")
    parser.add_argument(
        "--per-class", type=int, default=6, metavar="N", help="images (%(default)s)"
    )
    parser.add_argument(
        "--of", choices=(*SPLITS, "all"), help="the split (the first that has images)"
    )
    how = parser.add_argument_group("how they are prepared, as for extract")
    how.add_argument("--model", "-m", metavar="NAME", help="as for this encoder (as for most)")
    how.add_argument("--size", type=int, metavar="PX", help=f"(the encoder's own, or {SIZE})")
    add_flags(
        how, ExtractConfig, only=("fit_size", "protocol", "resize", "interpolation", "intensity")
    )
    return parser


def run_show(options: argparse.Namespace) -> int:
    """Draw a contact sheet."""
    if not 1 <= options.per_class <= MOST_PER_CLASS:
        raise RequestError(f"--per-class takes 1 to {MOST_PER_CLASS}, not {options.per_class}")
    for flag, value in (("--protocol", options.protocol), ("--fit-size", options.fit_size)):
        if value and not options.model:
            raise RequestError(f"{flag} prepares images for an encoder; name it with --model")
    found = find_present(make_config(options), options.size or SIZE)
    config, source, job = found.config, found.source, found.job
    path = options.output or Path(f"{source.name}_contact_sheet.png")
    check_output(path, options.overwrite)
    memory = DigestMemory(config.root / ".digests.json")
    dataset = source.open(memory)
    transform = find_transform(job, dataset, memory) if job else plain_transform(config, source)
    sheet, said = draw_classes(dataset, transform, options.of, options.per_class)
    write_png(sheet, path, options.overwrite)
    for line in [*dataset.notes, *found.notes, str(transform), *said]:
        show(line)
    show(f"drawn: {path}")
    return 0


def plain_transform(config: ExtractConfig, source: Source) -> Transform:
    """What happens to images before most encoders."""
    most = Entry("", "most encoders")
    preprocessing = preprocess(config, most, IMAGENET, source.usual_resize)
    return make_transform(int(config.size or SIZE), preprocessing, source.n_channels)


# ---------------------------------------------------------------------------- twins


def make_twins_parser() -> Parser:
    """The flags of ``extract data twins``."""
    parser = Parser(
        prog="extract data twins",
        description="List images of test that train or val hold too, and of val that train holds: "
        "exact copies and near twins, whose thumbnails correlate above .99; and draw them side by "
        "side.",
    )
    _add_common_flags(parser, "NAME_twins.png, NAME_twins_2.png...")
    parser.add_argument(
        "--sheets",
        type=int,
        default=4,
        metavar="N",
        help=f"draw at most so many, of {PER_SHEET} pairs, the most alike first (%(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="the pairs, as JSON")
    return parser


def run_twins(options: argparse.Namespace) -> int:
    """List twins across splits and draw them."""
    if options.sheets < 0:
        raise RequestError(f"--sheets takes 0 and more, not {options.sheets}")
    found = find_present(make_config(options), THUMBNAIL_SIDE)
    dataset = found.source.open(DigestMemory(found.config.root / ".digests.json"))
    first = options.output or Path(f"{dataset.name}_twins.png")
    if options.sheets and not options.json:
        check_output(first, options.overwrite)
    leaks = look_for_twins(dataset)
    twins = by_likeness(leaks.twins)
    if options.json:
        facts = [twin_facts(dataset, twin) for twin in twins]
        show(json.dumps({**leaks.summary(), "twins": facts}, indent=1, ensure_ascii=False))
        return 0
    for twin in twins:
        show(describe_twin(dataset, twin))
    counts = f"leaks: {describe_leaks(leaks.summary())}"
    for line in [*describe_shared(dataset, leaks), *dataset.notes, *found.notes, counts]:
        show(line)
    pages = [twins[i : i + PER_SHEET] for i in range(0, len(twins), PER_SHEET)]
    paths = [first, *(first.with_stem(f"{first.stem}_{n + 1}") for n in range(1, len(pages)))]
    drawn = list(zip(pages, paths, strict=False))[: options.sheets]
    for _, path in drawn:
        check_output(path, options.overwrite)
    for number, (page, path) in enumerate(drawn, 1):
        of = f" · sheet {number} of {len(pages)}" if len(pages) > 1 else ""
        write_png(draw_twins(dataset, page, f"{counts}{of}"), path, options.overwrite)
        show(f"drawn: {path}")
    if 0 < len(drawn) < len(pages):
        show(f"not drawn: {len(pages) - len(drawn)} more sheets; --sheets {len(pages)}")
    return 0


# ---------------------------------------------------------------------------- both


def _add_common_flags(parser: Parser, usual_output: str) -> None:
    parser.add_argument("name", metavar="NAME", help="anything that --data takes")
    parser.add_argument("--output", "-o", type=Path, metavar="FILE.png", help=f"(./{usual_output})")
    parser.add_argument("--overwrite", action="store_true", help="a picture that is there already")
    images = parser.add_argument_group("which images, and how they are read, as for extract")
    add_flags(
        images,
        ExtractConfig,
        only=(
            *("data_root", "source_size", "slice_axis", "slice_neighbours", "window"),
            *("skip_errors", "split", "split_seed", "workers"),
        ),
    )
    images.add_argument("--offline", action="store_true")
    add_flags(parser.add_argument_group("of a table: which column is what"), TableOptions)


def make_config(options: argparse.Namespace) -> ExtractConfig:
    """Flags -> settings of ``extract``."""
    if options.name in ("all", "all3d") or "," in options.name:
        raise RequestError(f"{options.name} is several data sets; name one")
    model = getattr(options, "model", None)
    found = given(
        options, SourceConfig, ProtocolConfig, PreparingConfig, SplitConfig, ReadingConfig
    )
    found |= {"models": (model,) if model else (), "data": (options.name,)}
    return ExtractConfig(**found, table=TableOptions(**given(options, TableOptions)))


@dataclass(frozen=True)
class Found:
    """A data set whose images are on this machine."""

    config: ExtractConfig
    source: Source
    job: Job | None  # what extract would do, where an encoder was named
    notes: tuple[str, ...] = ()  # about the file that was chosen


def find_present(config: ExtractConfig, size: int) -> Found:
    """What ``extract`` would open; of official files the largest that is here, if that isn't.

    Args:
        config: of one data set, and one encoder or none.
        size: that the images should have at least, where no encoder says.

    Raises:
        RequestError: it isn't here. A picture is no reason to fetch gigabytes unasked.
    """
    found = _find(config, size)
    if found.source.present:
        return found
    wanted = found.source.file
    assert wanted is not None, "only what has a file can be absent"
    here = wanted.here
    if not here or config.source_size is not None:
        raise RequestError(
            f"no {wanted.path}; extract --model dinov2 --data {wanted.name} --source-size "
            f"{wanted.source_size} fetches it, or get {wanted.url}, or name its folder with "
            "--data-root DIR"
        )
    note = f"{wanted.path.name} isn't here, which extract would take; {max(here)} px are drawn"
    found = _find(dataclasses.replace(config, source_size=max(here)), size)
    return dataclasses.replace(found, notes=(note,))


def _find(config: ExtractConfig, size: int) -> Found:
    with CheckProgress() as progress:
        if config.models:
            (job,) = make_plan(config, progress.report).jobs
            return Found(config, job.source, job)
        (name,) = config.data
        return Found(config, SourceFinder(config, progress.report)(name, size), None)


def check_output(path: Path, overwrite: bool) -> None:
    """Refuse a place for a picture before any work is done for it.

    Raises:
        RequestError: no .png, no folder, or something is there already.
    """
    if path.suffix.lower() != ".png":
        raise RequestError(f"-o takes a file that ends in .png, not {path}")
    if not path.parent.is_dir():
        raise RequestError(f"no folder {path.parent} for {path.name}; make it first")
    if path.exists() and not overwrite:
        raise RequestError(f"{path} is there already; --overwrite replaces it, -o names another")


def write_png(sheet: Image.Image, path: Path, overwrite: bool) -> None:
    """Write a picture; a file that came meanwhile is not replaced either."""
    with write_whole(path, overwrite=overwrite) as file:
        sheet.save(file, "PNG")
