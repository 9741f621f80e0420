"""From what a user types after ``--model`` to one entry.

dinov2                               a short name of the table
vit_base_patch16_224.dino            any timm name
open_clip:ViT-B-16/laion2b_s34b_b88k any open_clip model and tag
transformers:microsoft/rad-dino      a hub's repository, for transformers
hf-hub:org/name                      a hub's repository: its config says for which library
local-dir:PATH                       the same files in a folder
my_encoder.py:make_encoder           a function of the user's own
NAME                                 an entry point of an installed package

A repository's name may end in @REVISION. A published configuration is somebody else's text: only
plain arguments of the architecture are taken from it, nothing that names files, code or other
repositories.
"""

import importlib.metadata
import inspect
import json
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cache import RequestError
from cache.commands.names import first_line, near_names
from extract.encoders.anatomy import Statistics
from extract.encoders.table.entries import ENTRIES
from extract.encoders.table.entry import ENTRY_POINTS, Entry, Pretraining
from extract.encoders.weights.published import OPEN_CLIP, SAFE, Hub, Local, Place, config_file
from extract.machine.network import FORBIDDEN, offline

SHORT_NAMES = {entry.name: entry for entry in ENTRIES}
OPEN_CLIP_PREFIX = "open_clip:"
TRANSFORMERS_PREFIX = "transformers:"
HUB_PREFIX = "hf-hub:"
FOLDER_PREFIX = "local-dir:"

# "resample" of a saved preprocessor: Pillow's numbers. Those that INTERPOLATIONS lacks keep their
# name, so that the plan refuses them by it.
PIL_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}

ReadConfig = Callable[[str], dict[str, Any] | None]  # a file's name -> its JSON, or None


def find_entry(name: str) -> Entry:
    """The table's entry for a short name, or a new one for any name that a library knows.

    Raises:
        RequestError: nobody knows it; the message lists near names.
    """
    if name in SHORT_NAMES:
        return SHORT_NAMES[name]
    if name.startswith(OPEN_CLIP_PREFIX):
        return Entry(name, name, library="open_clip", network=name.removeprefix(OPEN_CLIP_PREFIX))
    for prefix in (TRANSFORMERS_PREFIX, HUB_PREFIX):
        if name.startswith(prefix):
            return _hub_entry(name, name.removeprefix(prefix), prefix == TRANSFORMERS_PREFIX)
    if name.startswith(FOLDER_PREFIX):
        return _folder_entry(name, Path(name.removeprefix(FOLDER_PREFIX)).expanduser())
    path, colon, function = name.rpartition(":")
    if colon and path.endswith(".py"):
        # A row is named without the path: the code's digest is in the key.
        return Entry(
            f"{Path(path).stem}:{function}",
            f"{Path(path).name}:{function}",
            library="user",
            network=name,
        )
    if name.endswith(".py"):
        raise RequestError(f"--model {name}: name its function too, as in {name}:make_encoder")
    points = entry_point_names()
    import timm  # here, for it takes its time, and only now is it needed

    if name in points:
        if timm.is_model(name):  # a package can't take a known name's place
            raise RequestError(
                f"{name!r} is both a timm name and an entry point of the group {ENTRY_POINTS}; "
                "uninstall that package, or ask its authors for another name"
            )
        return Entry(name, name, library="user", network=name)
    return _timm_entry(name, points)


def entry_point_names() -> list[str]:
    """Encoders that installed packages offer, by name. None of their code is run."""
    return sorted(importlib.metadata.entry_points(group=ENTRY_POINTS).names)


def _timm_entry(name: str, points: list[str]) -> Entry:
    import timm

    if timm.is_model(name):
        architecture, _, wished_tag = name.partition(".")
        known_tags = timm.list_pretrained(f"{architecture}.*")
        if wished_tag and name not in known_tags:
            raise RequestError(
                f"timm's {architecture} has no weights {wished_tag!r}; "
                f"it has {', '.join(known_tags) or 'none'}"
            )
        config = timm.get_pretrained_cfg(name)
        tag = config.tag if config else ""
        return Entry(name, f"{architecture}.{tag}" if tag else architecture)
    every = f"short names: {', '.join(SHORT_NAMES)}; or any name of timm.list_models()"
    if name.count("/") == 1 and all(name.split("/")):
        every = f"a repository of the hub is named {HUB_PREFIX}{name}"
    known = [*SHORT_NAMES, *points, *timm.list_models()]
    raise RequestError(
        f"no encoder {name!r}; {near_names(name, known, every)} "
        "(`extract models` lists them; open_clip:, transformers:, hf-hub:, local-dir: and "
        "FILE.py:FUNCTION name others)"
    )


# ---------------------------------------------------------------------------- hub and folders


def _hub_entry(name: str, typed: str, for_transformers: bool) -> Entry:
    repository, at, revision = typed.partition("@")
    _check_repository(name, repository)
    if at and not revision:
        raise RequestError(f"--model {name}: expected a revision after the @")

    def read(file: str) -> dict[str, Any] | None:
        path = config_file(repository, file, revision)
        return _read_json(path) if path else None

    def place(files: tuple[str, ...]) -> Place:
        return Hub(repository, files, revision=revision)

    entry = _published_entry(name, read, place, for_transformers)
    if entry is None:
        why = (
            f"isn't in the hub's cache and {FORBIDDEN}; fetch it once with network"
            if offline()
            else "isn't there, so nobody knows how to build this encoder"
        )
        raise RequestError(f"{typed}/config.json {why}")
    return entry


def _check_repository(name: str, repository: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise RequestError(f"--model {name}: {first_line(error)}") from error
    if repository.count("/") != 1:
        raise RequestError(f"--model {name}: expected OWNER/NAME after the colon")


def _folder_entry(name: str, folder: Path) -> Entry:
    if not folder.is_dir():
        raise RequestError(f"--model {name}: no folder at {folder}")

    def read(file: str) -> dict[str, Any] | None:
        path = folder / file
        return _read_json(path) if path.is_file() else None

    def place(files: tuple[str, ...]) -> Place:
        paths = [folder / file for file in files]
        return Local(next((path for path in paths if path.is_file()), paths[0]))

    # A row is named without the path. "." and ".." have no name of their own.
    named = folder.resolve() if folder.name in ("", "..") else folder
    entry = _published_entry(f"{FOLDER_PREFIX}{named.name}", read, place, False)
    if entry is None:
        raise RequestError(
            f"--model {name}: no config.json or open_clip_config.json in {folder}, as timm, "
            "open_clip and transformers save them"
        )
    return entry


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"{path} isn't readable JSON: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise RequestError(f"{path} holds a {type(content).__name__}; expected a JSON object")
    return content


# ---------------------------------------------------------------------------- configurations


def _published_entry(
    name: str,
    read: ReadConfig,
    place: Callable[[tuple[str, ...]], Place],
    for_transformers: bool,
) -> Entry | None:
    """An entry from the configuration files beside the weights, whichever library wrote them.

    timm's CLIPs are published for timm and open_clip at once: "hf-hub:" then means timm, as in
    timm. Other CLIPs are often published for open_clip and transformers: open_clip's is taken,
    for it brings the texts.
    """
    config = read("config.json")
    if not for_transformers:
        if config and "architecture" in config:
            return _timm_hub_entry(name, config, place(SAFE))
        of_open_clip = read("open_clip_config.json")
        if of_open_clip is not None:
            return _open_clip_entry(name, of_open_clip, place(OPEN_CLIP))
    if config is None:
        return None
    if "model_type" not in config:
        raise RequestError(
            f"{name}: its config.json names neither a timm architecture nor a model type of "
            "transformers"
        )
    return Entry(
        name,
        name,
        library="transformers",
        config=config,
        statistics=_preprocessor_statistics(name, _read_preprocessor(read)),
        weights=place(SAFE),
    )


def _read_preprocessor(read: ReadConfig) -> Mapping[str, Any]:
    """transformers' words on how images are prepared; newer releases keep them one level deeper."""
    alone = read("preprocessor_config.json")
    if alone is None:
        alone = (read("processor_config.json") or {}).get("image_processor")
    return alone if isinstance(alone, dict) else {}


def _section(name: str, config: Mapping[str, Any], section: str, default: Any) -> dict[str, Any]:
    """One object of a configuration."""
    found = default if config.get(section) is None else config[section]
    if not isinstance(found, dict):
        raise _broken(name, f"{section} is {found!r}, not a JSON object")
    return found


def _broken(name: str, why: str) -> RequestError:
    return RequestError(f"{name}: its configuration can't be used: {why}")


def _open_clip_entry(name: str, config: dict[str, Any], place: Place) -> Entry:
    import timm
    from open_clip.model import CLIPVisionCfg

    model = _section(name, config, "model_cfg", config)
    if not isinstance(model.get("embed_dim"), int) or "vision_cfg" not in model:
        raise RequestError(f"{name}: its open_clip_config.json describes no image tower")
    vision = _section(name, model, "vision_cfg", {})
    unknown = vision.keys() - inspect.signature(CLIPVisionCfg).parameters.keys()
    if unknown:
        raise _broken(name, f"open_clip's image towers have no {', '.join(sorted(unknown))}")
    trunk = vision.get("timm_model_name")
    if trunk and not _is_architecture(trunk):  # "hf-hub:..." would be read by timm, and fetched
        raise _broken(name, f"timm {timm.__version__} has no architecture {trunk!r}")
    preprocessing = _section(name, config, "preprocess_cfg", {})
    return Entry(
        name,
        name,
        library="open_clip",
        config=model,
        statistics=_statistics(name, preprocessing, "mean", "std"),
        weights=place,
    )


def _timm_hub_entry(name: str, config: dict[str, Any], place: Place) -> Entry:
    import timm

    architecture = config["architecture"]
    if not _is_architecture(architecture):
        every = "it may be of another version of timm"
        near = near_names(str(architecture), timm.list_models(), every)
        raise _broken(name, f"timm {timm.__version__} has no architecture {architecture!r}; {near}")
    published = _section(name, config, "pretrained_cfg", config)
    arguments = _plain_arguments(name, architecture, _section(name, config, "model_args", {}))
    licence = published.get("license")
    return Entry(
        name,
        name,
        network=architecture,
        arguments=arguments,
        size=_own_side(name, published, arguments),
        statistics=_statistics(name, published, "mean", "std"),
        weights=place,
        pretraining=Pretraining(licence if isinstance(licence, str) else ""),
    )


def _is_architecture(name: object) -> bool:
    """Whether timm itself has it: no tag, no path, no repository, which timm would go and read."""
    import timm

    return isinstance(name, str) and name.isidentifier() and timm.is_model(name)


# What every architecture is given by us, or must not be given.
NOT_FROM_FILES = {"self", "args", "kwargs", "num_classes", "in_chans", "device", "dtype"}


def _plain_arguments(name: str, architecture: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the architecture's own constructor, with plain values.

    timm would hand the others to its model factory, where they name checkpoints (with pickled
    code), other configurations and repositories.
    """
    arguments = {n: value for n, value in given.items() if value is not None}
    arguments.pop("num_classes", None)
    if arguments.pop("in_chans", 3) != 3:
        raise _broken(name, f"it takes images of {given['in_chans']} channels, not of 3")
    known = _constructor_arguments(architecture)
    for argument, value in arguments.items():
        if argument not in known:
            raise _broken(name, f"model_args has {argument!r}, no argument of {architecture}")
        if not _is_plain(value):
            raise _broken(name, f"model_args has {argument}={value!r}, which isn't a plain value")
    return arguments


def _constructor_arguments(architecture: str) -> set[str]:
    """What the class of a timm architecture, or a class above it, takes by name."""
    import timm
    import torch

    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = timm.create_model(architecture, num_classes=0)
    names: set[str] = set()
    for parent in type(model).__mro__:
        names |= inspect.signature(parent.__init__).parameters.keys()
    return {n for n in names - NOT_FROM_FILES if not n.startswith("pretrained")}


def _is_plain(value: object) -> bool:
    """A number, a word or a list of such. A dotted word could be taken for a class."""
    if isinstance(value, list):
        return all(_is_plain(item) for item in value)
    return isinstance(value, bool | int | float) or (isinstance(value, str) and "." not in value)


def _own_side(name: str, published: Mapping[str, Any], arguments: Mapping[str, Any]) -> int | None:
    """Side of the input, pixels; None where the configuration leaves it to the architecture."""
    sides = published.get("input_size") or []  # (channels, height, width)
    built = arguments.get("img_size")
    if built is not None and (published.get("fixed_input_size") or not sides):
        sides = built if isinstance(built, list) else [built]
    if not isinstance(sides, list) or not all(isinstance(s, int) and s > 0 for s in sides):
        raise _broken(name, f"its size is {sides!r}")
    if len(sides) == 3 and sides[0] != 3:
        raise _broken(name, f"it takes images of {sides[0]} channels, not of 3")
    if len(set(sides[-2:])) > 1:
        raise _broken(name, f"it takes images of {sides[-2]} x {sides[-1]} px, and not square ones")
    return sides[-1] if sides else None


# ---------------------------------------------------------------------------- mean and std


def _preprocessor_statistics(name: str, config: Mapping[str, Any]) -> Statistics | None:
    if not config:
        return None
    if config.get("do_normalize") is False:
        config = {**config, "image_mean": (0, 0, 0), "image_std": (1, 1, 1)}
    resample = config.get("resample", 3)
    interpolation = PIL_FILTERS.get(resample, resample) if isinstance(resample, int) else resample
    found = _statistics(name, {**config, "interpolation": interpolation}, "image_mean", "image_std")
    # Its mean and std are of values multiplied by this; ours of values in 0..1.
    factor = config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1
    if not isinstance(factor, int | float) or factor <= 0:
        raise _broken(name, f"rescale_factor is {factor!r}")
    if found is None or math.isclose(factor * 255, 1, rel_tol=1e-6):
        return found
    mean, std = (tuple(v / (factor * 255) for v in vs) for vs in (found.mean, found.std))
    return Statistics(mean, std, found.interpolation)


def _statistics(name: str, config: Mapping[str, Any], mean: str, std: str) -> Statistics | None:
    """Mean and std as published; None where the configuration doesn't say them."""
    triples = []
    for field in (mean, std):
        numbers = config.get(field)
        if numbers is None:
            return None
        numbers = [numbers] * 3 if isinstance(numbers, int | float) else numbers
        if (
            not isinstance(numbers, list | tuple)
            or len(numbers) != 3
            or not all(isinstance(v, int | float) and math.isfinite(v) for v in numbers)
            or (field == std and min(numbers) <= 0)
        ):
            raise _broken(name, f"{field} is {numbers!r}; expected three numbers")
        triples.append(tuple(numbers))
    return Statistics(triples[0], triples[1], str(config.get("interpolation") or "bicubic"))
