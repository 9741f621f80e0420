"""From what a user types after ``--model`` to one entry.

dinov2                               a short name of the table
vit_base_patch16_224.dino            any timm name
open_clip:ViT-B-16/laion2b_s34b_b88k any open_clip model and tag
transformers:microsoft/rad-dino      a hub's repository, for transformers
hf-hub:org/name                      a hub's repository: its config says for which library
local-dir:PATH                       the same files in a folder
my_encoder.py:make_encoder           a function of the user's own
NAME                                 an entry point of an installed package
"""

import importlib.metadata
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cache import RequestError
from extract.encoders.anatomy import Statistics
from extract.encoders.table import ENTRIES, ENTRY_POINTS, Entry
from extract.encoders.weights import OPEN_CLIP, SAFE, Hub, Local, Place, config_file
from extract.names import near_names
from extract.network import offline

SHORT_NAMES = {entry.name: entry for entry in ENTRIES}
OPEN_CLIP_PREFIX = "open_clip:"
TRANSFORMERS_PREFIX = "transformers:"
HUB_PREFIX = "hf-hub:"
FOLDER_PREFIX = "local-dir:"

PIL_FILTERS = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # "resample" of a saved preprocessor

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
    points = importlib.metadata.entry_points(group=ENTRY_POINTS)
    if name in points.names:
        return Entry(name, name, library="user", network=name)
    return _timm_entry(name, sorted(points.names))


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
    known = [*SHORT_NAMES, *points, *timm.list_models()]
    raise RequestError(
        f"no encoder {name!r}; {near_names(name, known, every)} "
        "(`extract models` lists them; open_clip:, transformers:, hf-hub:, local-dir: and "
        "FILE.py:FUNCTION name others)"
    )


# ---------------------------------------------------------------------------- hub and folders


def _hub_entry(name: str, repository: str, for_transformers: bool) -> Entry:
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise RequestError(f"--model {name}: expected OWNER/NAME after the colon")

    def read(file: str) -> dict[str, Any] | None:
        path = config_file(repository, file)
        return _read_json(path) if path else None

    def place(files: tuple[str, ...]) -> Place:
        return Hub(repository, files)

    entry = _published_entry(name, name, read, place, for_transformers)
    if entry is None:
        why = (
            "isn't in the hub's cache and HF_HUB_OFFLINE is set; fetch it once with network"
            if offline()
            else "isn't there, so nobody knows how to build this encoder"
        )
        raise RequestError(f"{repository}/config.json {why}")
    return entry


def _folder_entry(name: str, folder: Path) -> Entry:
    if not folder.is_dir():
        raise RequestError(f"--model {name}: no folder at {folder}")

    def read(file: str) -> dict[str, Any] | None:
        path = folder / file
        return _read_json(path) if path.is_file() else None

    def place(files: tuple[str, ...]) -> Place:
        paths = [folder / file for file in files]
        return Local(next((path for path in paths if path.is_file()), paths[0]))

    short = f"{FOLDER_PREFIX}{folder.resolve().name}"  # a row is named without the path
    entry = _published_entry(short, short, read, place, False)
    if entry is None:
        raise RequestError(
            f"--model {name}: no config.json or open_clip_config.json in {folder}, as timm, "
            "open_clip and transformers save them"
        )
    return entry


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} isn't readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise RequestError(f"{path} holds a {type(content).__name__}; expected a JSON object")
    return content


def _published_entry(
    name: str,
    encoder: str,
    read: ReadConfig,
    place: Callable[[tuple[str, ...]], Place],
    for_transformers: bool,
) -> Entry | None:
    """An entry from the configuration files beside the weights, whichever library wrote them."""
    if not for_transformers:
        config = read("open_clip_config.json")
        if config:
            return _open_clip_entry(name, encoder, config, place(OPEN_CLIP))
    config = read("config.json")
    if config is None:
        return None
    if "architecture" in config and not for_transformers:
        return _timm_hub_entry(name, encoder, config, place(SAFE))
    if "model_type" not in config:
        raise RequestError(
            f"{encoder}: its config.json names neither a timm architecture nor a model type of "
            "transformers"
        )
    return Entry(
        name,
        encoder,
        library="transformers",
        config=config,
        statistics=_preprocessor_statistics(read("preprocessor_config.json") or {}),
        weights=place(SAFE),
    )


def _open_clip_entry(name: str, encoder: str, config: dict[str, Any], place: Place) -> Entry:
    model = config.get("model_cfg", config)
    if not {"embed_dim", "vision_cfg"} <= model.keys():
        raise RequestError(f"{encoder}: its open_clip_config.json describes no image tower")
    return Entry(
        name,
        encoder,
        library="open_clip",
        config=model,
        statistics=_statistics(config.get("preprocess_cfg", {}), "mean", "std"),
        weights=place,
    )


def _timm_hub_entry(name: str, encoder: str, config: dict[str, Any], place: Place) -> Entry:
    published = config.get("pretrained_cfg", config)
    size = published.get("input_size")
    return Entry(
        name,
        encoder,
        network=config["architecture"],
        arguments={n: v for n, v in config.get("model_args", {}).items() if n != "num_classes"},
        size=size[-1] if size else None,
        statistics=_statistics(published, "mean", "std"),
        weights=place,
        licence=published.get("license") or "",
    )


def _preprocessor_statistics(config: Mapping[str, Any]) -> Statistics | None:
    if config.get("do_normalize") is False:
        config = {**config, "image_mean": (0, 0, 0), "image_std": (1, 1, 1)}
    interpolation = PIL_FILTERS.get(config.get("resample", 3), "bicubic")
    return _statistics({"interpolation": interpolation, **config}, "image_mean", "image_std")


def _statistics(config: Mapping[str, Any], mean: str, std: str) -> Statistics | None:
    if not config.get(mean) or not config.get(std):
        return None
    return Statistics(
        tuple(config[mean]), tuple(config[std]), config.get("interpolation") or "bicubic"
    )
