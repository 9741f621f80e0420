"""The command ``cache``: what features there are, whether they are whole, how they differ."""

import argparse
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cache.commands.names import counted
from cache.commands.settings import add_flags, given
from cache.commands.terminal import (
    Parser,
    complain,
    confirm,
    in_line,
    join_layers,
    run_command,
    show,
)
from cache.errors import BrokenCache, CacheError, CacheMiss, RequestError
from cache.files import no_file
from cache.places import features_root
from cache.sharing import Sharing

if TYPE_CHECKING:
    from cache.features import Features
    from cache.format.read import Header


def make_parser() -> argparse.ArgumentParser:
    """The commands and their flags."""
    parser = Parser(prog="cache", description="Look after feature files.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    folder = Parser(add_help=False)
    folder.add_argument(
        "--features", type=Path, metavar="DIR", help="($MEDPROBE_FEATURES or ./features)"
    )
    commands.add_parser(
        "ls", parents=[folder], help="list the feature files, complete or not, and masks"
    )
    shown = commands.add_parser("show", help="all that a file says of itself")
    shown.add_argument("file", type=Path)
    verify = commands.add_parser(
        "verify", parents=[folder], help="compare every unit with its checksum"
    )
    verify.add_argument("file", type=Path, nargs="*", help="(all that are found)")
    diff = commands.add_parser(
        "diff", help="why two files are not the same features, or the same key made other numbers"
    )
    diff.add_argument("a", type=Path)
    diff.add_argument("b", type=Path)
    rm = commands.add_parser("rm", help="delete feature files")
    rm.add_argument("file", type=Path, nargs="+")
    rm.add_argument("--yes", "-y", action="store_true", help="don't ask")
    _add_export(commands)
    return parser


def _add_export(commands: "argparse._SubParsersAction[Parser]") -> None:
    export = commands.add_parser(
        "export",
        help="a small file to share: some layers and pools, ids hashed",
        description="Write a smaller feature file to share. It holds no pictures, no paths, and "
        "of the notes only what says how the features were made.",
        epilog="Features aren't anonymous: a vector finds its own image again among others, and may "
        "tell age, sex or site. Hashed ids don't change that; share features with those who may "
        "have the images.",
    )
    export.add_argument("file", type=Path)
    add_flags(export, Sharing)
    export.add_argument(
        "-o", dest="output", type=Path, required=True, metavar="OUT", help="the new file, .h5"
    )
    export.add_argument("--overwrite", action="store_true", help="replace OUT if it is there")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = make_parser()
    options = parser.parse_args(join_layers(sys.argv[1:] if arguments is None else arguments))
    if options.command == "verify" and options.file and options.features:
        parser.error("name feature files by path or their root by --features, not both")
    run = {
        "ls": run_ls,
        "show": run_show,
        "verify": run_verify,
        "diff": run_diff,
        "rm": run_rm,
        "export": run_export,
    }
    return run_command("cache", lambda: run[options.command](options))


def run_ls(options: argparse.Namespace) -> int:
    """One line a file."""
    from cache.header_index import HeaderIndex
    from cache.masks import is_masks

    root = options.features or features_root()
    paths = _found_below(root)
    lines: list[tuple[str, ...]] = [("size", "rows", "layers", "pools", "stored", "state", "file")]
    broken = []
    index = HeaderIndex(root)
    for path in paths:
        try:
            summary = (
                _summary_of_masks(path) if is_masks(path) else _summary(index.read_header(path))
            )
            lines.append((*map(in_line, summary), in_line(str(path))))
        except (CacheError, OSError) as error:
            broken.append(str(error))
            lines.append(("", "", "", "", "", "BROKEN", in_line(str(path))))
    index.save()
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [cell.rjust(w) for cell, w in zip(line[:3], widths[:3], strict=True)]
        cells += [cell.ljust(w) for cell, w in zip(line[3:], widths[3:], strict=True)]
        show("  ".join(cells).rstrip())
    for text in broken:
        complain("cache", text)
    return 1 if broken else 0


def _summary(header: "Header") -> tuple[str, str, str, str, str, str]:
    """size, rows, layers (or that the rows are texts), pools, stored type, state."""
    from cache.commands.names import format_bytes
    from cache.features import Features

    features = Features(header)
    return (
        format_bytes(header.path.stat().st_size),
        f"{header.n_rows:_}",
        "text" if features.is_text else str(features.n_layers),
        "+".join(f"{pool}{_grids(features)}" for pool in features.pools),
        str(features.key.get("store", "")),
        _state(header),
    )


def _grids(features: "Features") -> str:
    """ " 16 x 16", of tokens; of layers with several grids all of them."""
    grids = {features.grid(layer) for layer in features.layers} if features.is_tokens else ()
    return ",".join(f" {h} x {w}" for h, w in sorted(grids, reverse=True))


def _summary_of_masks(path: Path) -> tuple[str, str, str, str, str, str]:
    from cache.commands.names import format_bytes
    from cache.masks import open_masks

    masks = open_masks(path)
    size, classes = format_bytes(path.stat().st_size), f"{len(masks.class_names)} classes"
    return size, f"{len(masks):_}", "masks", classes, "uint8", "complete"


def _state(header: "Header") -> str:
    from cache.format.key import PARTIAL
    from cache.stored import count_done

    done = count_done(header)
    if done == header.n_units and not header.path.name.endswith(PARTIAL):
        return "complete"
    return f"{done}/{header.n_units} units"


def run_show(options: argparse.Namespace) -> int:
    """Everything the header holds, key included."""
    from cache.commands.names import format_bytes
    from cache.features import Features
    from cache.format.fingerprint import short_form
    from cache.format.key import flatten
    from cache.format.read import read_header
    from cache.masks import is_masks

    path = _existing(options.file)
    if is_masks(path):
        return _show_masks(path)
    header = read_header(path)
    features = Features(header)
    show(f"{path}  {format_bytes(path.stat().st_size)}")
    facts = {
        "state": _state(header),
        "model": features.label,
        "encoder": features.encoder,
        "dataset": features.dataset,
        "task": features.task,
        "classes": ", ".join(features.class_names),
        "positive": header.attributes["positive_class"],
        "samples": _samples(features),
        "arrays": ", ".join(f"{n} {' x '.join(map(str, s))}" for n, s in header.row_shapes.items()),
        "units": f"{header.n_units} of {header.unit_rows} rows" if features.is_tokens else "",
        "rounding": _rounding(features),
        "made by": header.attributes["command"],
        "versions": _pairs(features.versions),
        "fingerprint": short_form(features.fingerprint),
        "cost": _pairs({name: v for name, v in features.cost.items() if name != "leaks"}),
        "leaks": _leaks(features),
    }
    for name, value in {**facts, **{n: str(v) for n, v in features.notes.items()}}.items():
        if value:
            show(f"  {in_line(name):<15} {in_line(value)}")
    show(f"  key             {header.digest}")
    for name, value in flatten(header.key).items():
        show(f"    {in_line(name):<24} {in_line(value)}")
    return 0


def _rounding(features: "Features") -> str:
    """What int8 did to each layer's tokens; nothing where they weren't rounded, or aren't yet all."""
    if _state(features.header) != "complete":
        return ""
    found = {layer: features.rounding(layer) for layer in features.layers if features.is_tokens}
    return ", ".join(
        f"layer {layer}: RMS error {r.rms:.2g} of the tokens' RMS, {r.largest:.2g} at most"
        for layer, r in found.items()
        if r
    )


def _show_masks(path: Path) -> int:
    from cache.commands.names import format_bytes
    from cache.masks import open_masks

    masks = open_masks(path)
    show(f"{path}  {format_bytes(path.stat().st_size)}")
    for name, value in masks.facts().items():
        show(f"  {in_line(name):<15} {in_line(value)}")
    return 0


def _samples(features: "Features") -> str:
    """How many images each split has, or how many prompts there are."""
    if features.is_text:
        return f"{features.n_rows:_} prompts, no images"
    counts = {name: int((features.split == name).sum()) for name in ("train", "val", "test")}
    return ", ".join(f"{name} {n:_}" for name, n in counts.items())


def _leaks(features: "Features") -> str:
    """What was counted when the file was finished; nothing where it wasn't."""
    from cache.leaks import describe_leaks

    with contextlib.suppress(LookupError, TypeError):  # the cost has no checksum
        return describe_leaks(features.cost["leaks"])
    return ""


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def run_verify(options: argparse.Namespace) -> int:
    """Read every byte; name what is damaged and the command that mends it."""
    status = 0
    for path in options.file or _found_below(options.features or features_root()):
        try:
            show(_verify(path), flush=True)
        except (CacheError, OSError) as error:
            complain("cache", str(error))
            status = 1
    return status


def _verify(path: Path) -> str:
    """What is right about a file, in one line.

    Raises:
        BrokenCache: something isn't.
    """
    from cache.features import Features
    from cache.format.key import PARTIAL
    from cache.format.read import read_header, read_table
    from cache.masks import is_masks, open_masks
    from cache.store import bad_arrays, done_units

    if is_masks(_existing(path)):
        masks = open_masks(path)
        masks.verify()
        return f"{path}: all {len(masks)} masks right"
    header = read_header(path)
    for name in header.tables:
        read_table(header, name)
    with path.open("rb", buffering=0) as file:
        done = done_units(file, header)
        bad = {unit: names for unit in done if (names := bad_arrays(file, header, unit))}
    missing = header.n_units - len(done)
    partial = path.name.endswith(PARTIAL)
    if bad or (missing and not partial):
        what = [f"unit {unit} ({', '.join(names[:3])})" for unit, names in bad.items()]
        what += [f"{missing} units are missing"] if missing and not partial else []
        raise BrokenCache(
            f"{path} is damaged: {'; '.join([*what[:5], *(['...'] if len(what) > 5 else [])])}; "
            f"this computes just that again:\n  {header.cure}"
        )
    if partial:
        return f"{path}: {len(done)} units right, {missing} to do"
    _ = Features(header).cost  # the one thing without a checksum: it must at least be readable
    return f"{path}: all {header.n_units} units right"


def run_diff(options: argparse.Namespace) -> int:
    """What differs between two files, in words; status 0 where the features are the same, else 1.

    Labels, splits and the like are no features: they are told, and change no status.
    """
    from cache.features import Features
    from cache.format.key import key_differences
    from cache.format.read import read_header

    a, b = (Features(read_header(_existing(path))) for path in (options.a, options.b))
    differences = key_differences(a.key, b.key)
    if a.is_text != b.is_text:
        words = {False: "images", True: "texts"}
        differences.insert(0, f"features of: {words[a.is_text]} -> {words[b.is_text]}")
    found, moved = _compare_fingerprints(a, b)
    missing = _missing_arrays(a, b)
    if differences:
        # Files from before there were fingerprints: what the keys say is all there is to say.
        found = found if a.fingerprint or b.fingerprint else []
    elif moved:
        found.insert(0, "the same key, other numbers:")
    elif missing:
        found = ["the same key: the same features, of what both hold", *missing, *found]
    else:
        found.insert(0, "the same key: the same features")
    # The same features of other labels, or another split.
    tables = [f.header.tables for f in (a, b)]
    names = sorted(tables[0].keys() | tables[1].keys())
    other = ", ".join(name for name in names if tables[0].get(name) != tables[1].get(name))
    found += [f"other tables: {other}"] if other and not differences else []
    show("\n".join([*differences, *found]))
    return 1 if differences or moved or missing else 0


def _missing_arrays(a: "Features", b: "Features") -> list[str]:
    """What only one of two files holds, a line for each that does: layers, pools, hashes, pictures."""
    arrays = [f.header.arrays for f in (a, b)]
    only = [[n for n in arrays[i] if n not in arrays[1 - i]] for i in (0, 1)]
    return [
        f"only in {features.path.name}: {', '.join(names)}"
        for features, names in zip((a, b), only, strict=True)
        if names
    ]


def _compare_fingerprints(a: "Features", b: "Features") -> tuple[list[str], bool]:
    """What the fingerprints of two files tell, as lines, and whether they moved."""
    from cache.format.fingerprint import describe_drift, describe_versions, drift, tolerance

    widths = [f.header.row_shapes for f in (a, b)]
    missing = [f.path.name for f in (a, b) if not f.fingerprint]
    moved = drift(a.fingerprint, b.fingerprint)
    if missing:
        return [f"no fingerprint in {' and '.join(missing)}: drift of a library can't show"], False
    if widths[0] != widths[1] or not moved:
        return [], False  # other encoders or layers: nothing to compare
    largest, allowed = max(moved.values()), tolerance(a.key, b.key)
    if largest <= allowed:
        return [f"fingerprints agree to {largest:.1g} of a vector's length"], False
    return [describe_drift(moved, allowed), describe_versions(a.versions, b.versions)], True


def run_rm(options: argparse.Namespace) -> int:
    """Delete feature files, never anything else, and none that is being written."""
    from cache.commands.names import format_bytes
    from cache.format.read import read_header
    from cache.store import delete_file

    paths = [_existing(path) for path in dict.fromkeys(options.file)]
    for path in paths:
        # A damaged file may go, a file that was never ours may not.
        with contextlib.suppress(BrokenCache):
            read_header(path)
            continue
        if not (path.name.endswith((".h5", ".h5.partial")) and _is_hdf5(path)):
            raise RequestError(f"{path} is no feature file; delete it yourself if you mean it")
    what = f"{counted(len(paths), 'file')}, {format_bytes(sum(p.stat().st_size for p in paths))}"
    if not confirm(what, options.yes):
        return 0
    for path in paths:
        delete_file(path)
    show(f"deleted {what}")
    return 0


def run_export(options: argparse.Namespace) -> int:
    """Write a smaller file, and say what is in it."""
    from cache.commands.names import format_bytes
    from cache.export import export_features
    from cache.features import open_features
    from cache.masks import is_masks

    sharing = Sharing(**given(options, Sharing))
    if is_masks(_existing(options.file)):
        raise RequestError(
            f"{options.file} is of masks, not features, and isn't made smaller: copy it as it is, if "
            "its ids may be seen"
        )
    features = open_features(options.file)
    salt = export_features(features, options.output, sharing, overwrite=options.overwrite)
    made = open_features(options.output)
    size = format_bytes(options.output.stat().st_size)
    show(
        f"{options.output}: {counted(made.n_rows, 'row')}, {', '.join(made.header.arrays)}, {size}"
    )
    if columns := sorted(made.meta):
        show(f"with {', '.join(columns)}; --drop-meta leaves them out")
    if not sharing.hash_ids:
        show("with the ids as they are; --hash-ids hides them")
    if salt:
        show(f"salt {salt}: stored nowhere; --salt with it makes the same ids again")
    return 0


def _found_below(root: Path) -> list[Path]:
    from cache.catalogue import list_files
    from cache.masks import list_masks

    if not (paths := [*list_files(root), *list_masks(root)]):
        raise CacheMiss(f"no features in {root}; make some with\n  extract --demo")
    return paths


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(8) == b"\x89HDF\r\n\x1a\n"


def _existing(path: Path) -> Path:
    if not path.is_file():
        there = os.path.lexists(path)
        if path.is_dir() and path.suffix != ".h5":
            raise CacheMiss(f"{path} is a folder; name files in it, or all below it by --features")
        cure = "delete or rename it" if there else "`cache ls` lists what there is"
        raise CacheMiss(f"{no_file(path)}; {cure}")
    return path
