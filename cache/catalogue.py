"""Finding feature files below a folder, and choosing among them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cache.errors import BrokenCache, CacheError, CacheMiss, RequestError
from cache.features import Features, open_features
from cache.key import flatten, key_differences
from cache.store import PARTIAL


@dataclass(frozen=True)
class Wish:
    """Which features a user wants. Empty means any."""

    models: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    datasets: tuple[str, ...] = ()
    where: Mapping[str, str] = field(default_factory=dict)  # part of the key -> value

    def fits(self, features: Features) -> bool:
        """Whether a file is wanted.

        Raises:
            RequestError: its key has no such part.
        """
        return (
            (not self.models or {features.model, features.encoder} & set(self.models) != set())
            and (not self.sizes or features.size in self.sizes)
            and (not self.datasets or features.dataset in self.datasets)
            and all(_key_part(features, name) == value for name, value in self.where.items())
        )


def _key_part(features: Features, name: str) -> str:
    """A part of the key by its dotted name, or by the end of it: "interpolation"."""
    flat = flatten(features.key)
    for full, value in flat.items():
        if full == name or full.endswith(f".{name}"):
            return value
    raise RequestError(
        f"the key of {features.path.name} has no part {name!r}; it has {', '.join(flat)}"
    )


def list_files(root: Path) -> list[Path]:
    """All feature files below a folder, complete and incomplete, by name."""
    if not root.is_dir():
        return []
    return sorted([*root.glob("*/*.h5"), *root.glob(f"*/*.h5{PARTIAL}")])


def find_features(root: Path, wish: Wish) -> tuple[list[Features], list[str]]:
    """Every complete file that fits a wish; of each encoder, size and data set only one.

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
    troubles: list[str] = []
    for path in list_files(root):
        if path.name.endswith(PARTIAL):
            continue
        try:
            features = open_features(path)
        except (CacheError, OSError) as error:
            troubles.append(str(error))
            continue
        if wish.fits(features):
            found.append(features)
    for model in wish.models:
        for dataset in wish.datasets or ("",):
            if not any(_is(f, model, dataset) for f in found):
                troubles.append(_missing(root, wish, model, dataset))
    if not wish.models:
        for dataset in wish.datasets:
            if not any(f.dataset == dataset for f in found):
                troubles.append(_missing(root, wish, "", dataset))
    if not found:
        raise CacheMiss("; ".join(troubles) or _missing(root, wish, "", ""))
    refuse_mixtures(found)
    return found, troubles


def _is(features: Features, model: str, dataset: str) -> bool:
    return model in (features.model, features.encoder) and dataset in ("", features.dataset)


def _missing(root: Path, wish: Wish, model: str, dataset: str) -> str:
    """What isn't there, and the command that makes it."""
    what = " ".join(part for part in (model, f"on {dataset}" if dataset else "") if part)
    for path in list_files(root):
        if path.name.endswith(PARTIAL):
            try:
                open_features(path)
            except CacheMiss as error:
                name = str(path)
                if (not dataset or f"/{dataset}/" in name) and model in (
                    "",
                    path.name.split("_")[0],
                ):
                    return str(error)
            except (BrokenCache, OSError):
                continue
    command = ["extract"]
    command += ["--model", model or "dinov2"]
    command += ["--size", str(wish.sizes[0])] if wish.sizes else []
    command += ["--data", dataset] if dataset else []
    if not model and not dataset:
        command = ["extract", "--demo"]
    return f"no features{' of ' + what if what else ''} in {root}; make them with\n  " + " ".join(
        command
    )


def refuse_mixtures(found: Sequence[Features]) -> None:
    """Never mix keys: one file for each encoder, size and data set.

    Raises:
        RequestError: two files differ in something else; it is named with the flag that chooses.
    """
    groups: dict[tuple[str, int, str], list[Features]] = {}
    for features in found:
        groups.setdefault((features.model, features.size, features.dataset), []).append(features)
    for (model, size, dataset), group in groups.items():
        if len(group) < 2:
            continue
        lines = [f"several features of {model} at {size} px on {dataset}; choose one of them:"]
        for other in group[1:]:
            lines.append(f"  {group[0].path} -> {other.path}")
            differences = key_differences(group[0].key, other.key)
            lines += [f"    {difference}" for difference in differences or ["nothing: a copy"]]
        lines.append(f"  name it by path{_where_words(group)}")
        raise RequestError("\n".join(lines))


def _where_words(group: Sequence[Features]) -> str:
    """The ``--where`` that tells the files of a group apart, if one part of the key does."""
    flat = [flatten(features.key) for features in group]
    for part in flat[0]:
        values = [key.get(part, "") for key in flat]
        # A digest tells files apart too, but nobody wants to type one.
        if len(set(values)) == len(group) and all(values) and "sha256:" not in values[0]:
            return " or by " + ", ".join(f"--where {part}={value}" for value in values)
    return ""
