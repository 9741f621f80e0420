"""Finding feature files below a folder, and choosing among them."""

import itertools
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from cache.commands.names import (
    N_WEIGHTS,
    NORM2,
    choose_named,
    counted,
    digest_of,
    near_names,
    short_label,
)
from cache.errors import CacheError, CacheMiss, RequestError
from cache.features import Features
from cache.format.key import PARTIAL, file_stem, flatten, key_differences
from cache.format.read import Header, read_header
from cache.header_index import HeaderIndex
from cache.masks import is_masks
from cache.stored import count_done, incomplete_message

T = TypeVar("T")
# Flags of ``extract`` by the part of a key, or the name of it here, that they set.
FLAGS = {
    "protocol": "--protocol",
    "precision": "--precision",
    "store": "--store",
    "layer_norm": "--layer-norm",
}
CALLED = {"layer_norm": "layers.norm"}  # as flags call parts of a key that it calls otherwise
RANDOM = "random"  # of ``extract --weights``
NO_NAME = frozenset("/\\:*?[")  # characters of paths and patterns, and of no data set's name
LINE = 160  # characters of a difference between keys that are shown


@dataclass(frozen=True)
class Wish:
    """Which features a user wants. Empty means any."""

    models: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    datasets: tuple[str, ...] = ()
    where: Mapping[str, str] = field(default_factory=dict)  # part of the key -> value
    tokens: bool = False  # files of patch tokens, and not of pooled features

    def fits(self, features: Features) -> bool:
        """Whether a file is wanted, whatever ``where`` says."""
        return (
            (not self.models or {*_names(features)} & set(self.models) != set())
            and (not self.sizes or features.size in self.sizes)
            and (not self.datasets or features.dataset in self.datasets)
        )

    def parts(self) -> list["Wish"]:
        """The same wish as one for each model, size and data set that is named."""
        return [
            Wish(models, sizes, datasets, self.where, self.tokens)
            for models in _one_by_one(self.models)
            for sizes in _one_by_one(self.sizes)
            for datasets in _one_by_one(self.datasets)
        ]

    def __str__(self) -> str:
        words = [
            *(f"of {model}" for model in self.models),
            *(f"at {size} px" for size in self.sizes),
            *(f"on {dataset}" for dataset in self.datasets),
            *(f"with {part}={value}" for part, value in self.where.items()),
        ]
        return " ".join(words)


def _names(features: Features) -> tuple[str, ...]:
    """What --model may call it: as tables print it, too."""
    return features.label, short_label(features.label), features.model, features.encoder


def _one_by_one(values: tuple[T, ...]) -> list[tuple[T, ...]]:
    return [(value,) for value in dict.fromkeys(values)] or [()]


def _keep_where(found: list[Features], where: Mapping[str, str]) -> list[Features]:
    """The files whose keys have these values.

    Raises:
        RequestError: no key has such a part, or one has several of this name.
    """
    for name, value in where.items():
        parts = [_key_part(features, name) for features in found]
        if found and not any(part is not None for part in parts):
            raise RequestError(
                f"no key has a part {name!r}; {found[0].path.name} has "
                f"{', '.join(_parts(found[0]))}"
            )
        found = [
            f for f, part in zip(found, parts, strict=True) if part is not None and _is(part, value)
        ]
    return found


def _is(part: str, value: str) -> bool:
    """Whether a part of a key is meant by a value; of a digest its first digits are enough.

    Of weights "random, seed 0, sha256:..." the first word is, as ``extract --weights`` calls them.
    """
    is_digest = len(value) >= N_WEIGHTS and digest_of(part).startswith(value)
    return part == value or is_digest or (value == RANDOM and part.startswith(f"{RANDOM}, "))


def _key_part(features: Features, name: str) -> str | None:
    """A part of the key by its dotted name, or by the end of it: "interpolation"."""
    flat = _parts(features)
    name = CALLED.get(name, name)
    if name in flat:
        return flat[name]
    full = [part for part in flat if part.endswith(f".{name}")]
    if len(full) > 1:
        raise RequestError(f"--where {name} may mean {' or '.join(full)}; name one of them")
    return flat[full[0]] if full else None


def _parts(features: Features) -> dict[str, str]:
    """What files are told apart by: the key's parts, flat, after the protocol.

    That isn't in the key, which holds all that it stands for, but it is what a user knows.
    """
    return {"protocol": str(features.notes.get("protocol", "none")), **flatten(features.key)}


def list_files(root: Path) -> list[Path]:
    """All feature files below a folder, complete and incomplete, by name; no masks."""
    if not root.is_dir():
        return []
    return [path for path in _glob(root, "*/*.h5") if not is_masks(path)]


def _glob(folder: Path, pattern: str) -> list[Path]:
    paths = [*folder.glob(pattern), *folder.glob(f"{pattern}{PARTIAL}")]
    # Hidden ones are never ours: macOS leaves "._name" beside files on foreign disks.
    return sorted(path for path in paths if not path.name.startswith("."))


def _read_files(
    paths: Sequence[Path], troubles: list[str], read: Callable[[Path], Header] = read_header
) -> Iterator[tuple[Features, str | None]]:
    """Each file, and what is to be said of it if it isn't complete.

    What can't be read at all is added to the troubles.
    """
    for path in paths:
        try:
            header = read(path)
            n_done = count_done(header)
        except (CacheError, OSError) as error:
            troubles.append(str(error))
            continue
        complete = n_done == header.n_units and not path.name.endswith(PARTIAL)
        yield Features(header), None if complete else incomplete_message(header, n_done)


def find_features(root: Path, wish: Wish) -> tuple[list[Features], list[str]]:
    """Every complete file of images that fits a wish; of each encoder, size and set only one.

    That with random weights is left out where there is another.

    Args:
        root: the folder of features.
        wish: what is wanted.

    Returns:
        The files, by data set, and what stands in the way of others, in words.

    Raises:
        CacheMiss: nothing fits.
        RequestError: several keys fit one request; they are listed with what differs.
    """
    found: list[Features] = []
    unfinished: list[tuple[Features, str]] = []
    troubles: list[str] = []
    others: list[Features] = []  # pooled, where tokens are wished for, and the other way round
    index = HeaderIndex(root)
    for features, incomplete in _read_files(list_files(root), troubles, index.read_header):
        if features.is_text or features.is_part:  # ``find_text`` finds texts; parts are named
            continue
        if features.is_tokens != wish.tokens:
            others.append(features)
            continue
        if incomplete:
            unfinished.append((features, incomplete))
        else:
            found.append(features)
    index.save()
    there = list(found)
    found = _keep_where([f for f in found if wish.fits(f)], wish.where)
    found = choose_named(wish.models, found, _names)
    for part in wish.parts():
        if not any(part.fits(f) for f in found):
            begun = [message for f, message in unfinished if part.fits(f)]
            troubles += begun or [_missing(root, part, there, others)]
    if not found:
        raise CacheMiss("; ".join(troubles))
    found = _without_controls(found)
    refuse_mixtures(found)
    return found, troubles


def _without_controls(found: list[Features]) -> list[Features]:
    """Random weights are a control: they never stand for an encoder whose own are there.

    With ``where``, as in weights=..., none but the wanted ones are left before.
    """

    def named(features: Features) -> tuple[str, int, str]:
        return features.model, features.size, features.dataset

    real = {named(f) for f in found if not f.notes.get("random_weights")}
    return [f for f in found if not f.notes.get("random_weights") or named(f) not in real]


def _near(wish: Wish, there: Sequence[Features]) -> str:
    """Names that are there and like one that is wished for and isn't."""
    models = {name for f in there for name in _names(f)}
    asked = [(wish.models, models), (wish.datasets, {f.dataset for f in there})]
    near = [
        near_names(name, sorted(known), "")
        for names, known in asked
        for name in names
        if name not in known
    ]
    return "".join(f"; {words} (here)" for words in near if words)


def _values_there(wish: Wish, there: Sequence[Features]) -> str:
    """What the files that fit but for ``where`` have of its parts."""
    fit = [f for f in there if wish.fits(f)]
    said = []
    for name in wish.where:
        values = sorted({_key_part(f, name) or "none" for f in fit})
        short = [
            v.rpartition(", ")[0] or digest_of(v)[:N_WEIGHTS] if digest_of(v) else v for v in values
        ]
        said.append(f"{name} {' or '.join(short)}")
    return f"; those that are there have {', '.join(said)}" if fit and said else ""


def _missing(
    root: Path, wish: Wish, there: Sequence[Features], others: Sequence[Features] = ()
) -> str:
    """What isn't there, what is like it, and the command that makes it."""
    pooled = [
        f for f in others if wish.tokens and wish.fits(f) and "--layers" not in f.header.command
    ]
    if pooled:
        command = shlex.join([*pooled[0].header.command, "--tokens", "-1"])
        which = f" {wish}" if str(wish) else ""
        return (
            f"no patch tokens{which} in {root}, only pooled features; make them with\n  {command}"
        )
    where = str(root) if root.is_dir() else f"{root} (no such folder)"
    what, flags = ("patch tokens", ["--tokens", "-1"]) if wish.tokens else ("features", [])
    if not str(wish):
        return (
            f"no {what} in {where}; make some with\n  {shlex.join(['extract', '--demo', *flags])}"
        )
    if there and not (wish.models or wish.datasets):
        among = f"the {counted(len(there), 'file')} in {root}"
        return f"no {what} {wish} among {among}{_values_there(wish, there)}; `cache ls` lists them"
    if odd := [dataset for dataset in wish.datasets if set(dataset) & NO_NAME]:
        names = sorted({features.dataset for features in there})
        stored = _stored_as(odd[0], names)
        kind, _, place = odd[0].partition(":")
        # What extract can read, and hasn't yet, is answered by its command as any other.
        if (
            stored
            or kind not in ("folder", "seg-folder", "csv", "npz")
            or not Path(place).expanduser().exists()
        ):
            return (
                f"no {what} {wish} in {where}: --data takes names, and {odd[0]} is none{stored}; "
                f"here are: {', '.join(names) or 'none'}"
            )
    models = [model.partition(" (")[0] for model in wish.models] or ["dinov2"]
    command = ["extract", "--model", *models]
    command += [word for size in wish.sizes for word in ("--size", str(size))]
    command += [word for dataset in wish.datasets for word in ("--data", dataset)]
    asked = {part: v.partition(",")[0] for part, v in wish.where.items() if v != "none"}
    norms = {asked.pop("layer_norm", ""), *(NORM2 for m in wish.models if m.endswith(f"{NORM2})"))}
    asked |= {"layer_norm": NORM2} if NORM2 in norms else {}
    command += [
        word for part, flag in FLAGS.items() if part in asked for word in (flag, asked[part])
    ]
    command += flags
    command += ["--weights", RANDOM] if asked.get("weights") == RANDOM else []
    near = f"{_values_there(wish, there)}{_near(wish, there)}"
    return f"no {what} {wish} in {where}{near}; make them with\n  {shlex.join(command)}"


def _stored_as(word: str, names: Sequence[str]) -> str:
    """How to say what was meant by a word that is no name: a file, or where images came from."""
    if word.endswith(".h5"):
        return " (a feature file is named without --data)"
    kind, _, place = word.partition(":")
    name = file_stem(Path(place).name if kind.endswith("folder") else Path(place).stem)
    return f" (it is stored as {name})" if name in names else ""


def refuse_mixtures(found: Sequence[Features]) -> None:
    """Never mix keys: one file for each encoder, size and data set.

    Raises:
        RequestError: two files differ in something else; it is named with the flag that chooses.
    """
    groups: dict[tuple[str, int, str], list[Features]] = {}
    for features in found:
        groups.setdefault((features.label, features.size, features.dataset), []).append(features)
    for (model, size, dataset), group in groups.items():
        if len(group) < 2:
            continue
        lines = [f"several features of {model} at {size} px on {dataset}; choose one of them:"]
        lines += _list_differences(group)
        lines.append(f"  name it by path{_where_words(group)}")
        raise RequestError("\n".join(lines))


def _list_differences(group: Sequence[Features]) -> list[str]:
    """What tells each file of a group from its first, as lines."""
    lines = []
    for other in group[1:]:
        lines.append(f"  {group[0].path} -> {other.path}")
        differences = key_differences(group[0].key, other.key)
        lines += [f"    {_shortened(line)}" for line in differences or ["nothing: a copy"]]
        if group[0].key.get("images") != other.key.get("images"):  # digests tell nobody the older
            lines += [f"    {line}" for line in _ages(group[0], other)]
        files = [str(of.notes.get("weights", "?")) for of in (group[0], other)]
        if files[0] != files[1]:  # their digests tell nobody which is which
            lines.append(f"    their files: {files[0]} -> {files[1]}")
    return lines


def _ages(*pair: Features) -> list[str]:
    """How many rows two files have, which one is older, and the command that deletes that."""
    times = [features.path.stat().st_mtime for features in pair]
    rows = " -> ".join(
        f"{counted(features.n_rows, 'row')} ({datetime.fromtimestamp(time):%Y-%m-%d %H:%M})"
        for features, time in zip(pair, times, strict=True)
    )
    if times[0] == times[1]:
        return [rows]
    older = pair[times.index(min(times))].path
    delete = shlex.join(["cache", "rm", str(older)])
    return [f"{rows}; if images changed since the older, delete that: {delete}"]


def _shortened(line: str) -> str:
    """A line that a terminal can hold: of a hundred prompts the first ones tell."""
    return line if len(line) <= LINE else f"{line[: LINE - 2]}.."


def _where_words(group: Sequence[Features]) -> str:
    """The ``--where`` that tells the files of a group apart, if one part of the key does."""
    flat = [_parts(features) for features in group]
    texts = {part: [key.get(part, "") for key in flat] for part in flat[0]}
    # Of digests the first digits; last, for nobody wants to type them.
    digits = {
        part: [digest_of(value)[: 2 * N_WEIGHTS] for value in values]
        for part, values in texts.items()
    }
    plain = [item for item in texts.items() if not any(map(digest_of, item[1]))]
    for part, values in [*plain, *digits.items()]:
        if len(set(values)) == len(group) and all(values):
            choices = [shlex.quote(f"{part}={value}") for value in values]
            return " or by " + ", ".join(f"--where {choice}" for choice in choices)
    return ""


# ---------------------------------------------------------------------------- texts


def find_text(images: Features) -> Features:
    """The complete text file that belongs to a file of images, from the same folder.

    It is looked for by its name, ``*_text_*.h5``, and chosen by what it says of itself.

    Args:
        images: features of images, with a ``proj``.

    Raises:
        CacheMiss: there is none; the message is the command that makes it.
        RequestError: several belong to it; they are listed with what differs.
    """
    found: list[Features] = []
    begun: list[str] = []
    troubles: list[str] = []
    for text, incomplete in _read_files(_glob(images.path.parent, "*_text_*.h5"), troubles):
        if not text.is_text or text_differences(images, text):
            continue
        if incomplete:
            begun.append(incomplete)
        else:
            found.append(text)
    if len(found) > 1:
        lines = [f"several text files of {images.model} on {images.dataset}:"]
        lines += [*_list_differences(found), "  choose one with --text FILE"]
        raise RequestError("\n".join(lines))
    if not found:
        missing = (
            f"no text features of {images.encoder} on {images.dataset} in {images.path.parent}; "
            f"make them with: {_text_command(images)}"
        )
        raise CacheMiss("; ".join(begun or [*troubles, missing]))
    return found[0]


def text_differences(images: Features, text: Features) -> list[str]:
    """Why a text file doesn't belong to a file of images, in words; nothing where it does."""
    pairs = [
        ("data set", images.dataset, text.dataset),
        ("encoder", images.encoder, text.encoder),
        ("weights", images.key.get("weights"), text.key.get("weights")),
    ]
    return [f"{name}: {a} -> {b}" for name, a, b in pairs if a != b]


def _text_command(images: Features) -> str:
    """The command that makes the texts of these images: their own, for what both must share."""
    words = ["extract", "--text"]
    # A folder's encoder is named without its path; the command says how it was called.
    usual = {"--model": images.model, "--data": images.dataset}
    flags = {**usual, **dict(itertools.pairwise(images.header.command))}
    shared = ("--model", "--data", "--weights", "--seed", "--data-root", "--features")
    return shlex.join([*words, *(word for f in shared if f in flags for word in (f, flags[f]))])
