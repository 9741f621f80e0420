"""``report maps``: what patch tokens see, as pictures, and masks over images."""

import argparse
from pathlib import Path

from cache.commands.names import counted
from cache.commands.settings import add_flags, given
from cache.commands.terminal import Parser, complain, show
from cache.errors import RequestError
from cache.files import write_asked
from probe.finding import FindConfig, choose_files
from probe.report.commands.figure import WIDTHS, form_of, width_of
from probe.report.figures.catalogue import FORMATS, check_drawing
from probe.report.maps.asked import AskedOfMaps
from probe.report.maps.given import find_given
from probe.report.maps.make import make_sheet

EXAMPLES = """\
examples:
  report maps --data scans -o maps.png                       components of patches, masks and errors
  report maps features/scans/FILE.h5 --layer 5,11 --what pca,kmeans -o layers.pdf
  report maps --data scans --model dinov2,vit --what pca -o encoders.svg
  report maps --data scans --images wrong:8 -o wrong.png     masks of the smallest Dice
  report maps --data scans --what cosine --patch scan7:40%,55% -o alike.png
  extract --data scans --tokens=-1 --ids scan7,scan9         a small token file, to name by path
"""


def make_parser(prog: str) -> Parser:
    """The flags."""
    parser = Parser(
        prog=prog,
        description="Draw maps of patch tokens, a row each image, a column each map: principal components "
        "as colours (Oquab et al. 2023), parts by k-means, cosines to one patch, norms, attention of an "
        "attentive probe, and true and predicted masks with errors. Layers, and token files of several "
        "encoders, stand side by side. A value a patch is a square; nothing is smoothed. Reads token "
        "files, masks and rows; needs matplotlib: pip install 'medprobe[report]'.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    files = parser.add_argument_group("which token files")
    files.add_argument("paths", nargs="*", type=Path, metavar="FILE", help="by path")
    add_flags(files, FindConfig)
    add_flags(parser.add_argument_group("what is shown"), AskedOfMaps)
    over = parser.add_argument_group("what lies over images")
    over.add_argument(
        "--row",
        type=Path,
        action="append",
        metavar="FILE",
        help="rows of masks or attention, or whose wrong answers are shown (of masks the best on val; "
        "those of the results folder)",
    )
    over.add_argument(
        "--masks", type=Path, metavar="FILE", help="the true ones (those beside the token file)"
    )
    over.add_argument(
        "--results", type=Path, metavar="DIR", help="($MEDPROBE_RESULTS or ./results)"
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--output", "-o", type=Path, metavar="FILE", help=f"a file.{'|'.join(FORMATS)}"
    )
    how.add_argument(
        "--width", default="two", metavar="WIDTH", help="of the picture: one or two columns of a "
        f"paper ({WIDTHS['one']:g} and {WIDTHS['two']:g} mm), or a number of mm (two)",
    )  # fmt: skip
    parser.set_defaults(prog=prog)
    return parser


def check(options: argparse.Namespace) -> None:
    """Refuse flags that don't go together.

    Raises:
        RequestError: nowhere to write, files named in two ways, or a value that a flag doesn't take.
    """
    if options.output is None:
        raise RequestError("name a file: -o maps.png")
    form_of(options.output)
    width_of(options.width)
    if options.paths and any(getattr(options, name) for name in ("data", "model", "size", "where")):
        raise RequestError("name token files by path, or by what they are of, not both")
    AskedOfMaps(**given(options, AskedOfMaps))


def run(options: argparse.Namespace) -> int:
    """Read token files, masks and rows; draw.

    Raises:
        RequestError: what is asked for isn't there; the message has the command that makes it.
    """
    check_drawing()
    asked = AskedOfMaps(**given(options, AskedOfMaps))
    find = FindConfig(files=tuple(options.paths), **given(options, FindConfig))
    files, failures = choose_files(find, tokens=True)
    for what, why in failures:
        complain(options.prog, f"{what}: {why}")
    found = find_given(files, options.row, options.results, options.masks, find.folder)
    sheet = make_sheet(asked, found)
    from probe.report.figures.drawn.maps import write

    with write_asked(options.output) as file:
        write(sheet, file, form_of(options.output), width_of(options.width), smooth=asked.smooth)
    show(
        f"{options.output}: {counted(len(sheet.names), 'image')}, {counted(len(sheet.columns), 'column')}"
    )
    for note in sheet.notes:
        show(note)
    return 1 if failures else 0
