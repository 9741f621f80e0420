"""The key: everything that changes the features, and nothing else.

A key is a plain JSON object, made by ``extract`` and kept in the file; this module only names,
compares and shortens keys. Device, batch size, workers, host, path, labels and splits are never
in it: none of them may cost a forward pass.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

N_DIGEST = 12  # hex digits of the digest in a file's name: 48 bits, enough for any disk


def canonical_json(value: Any) -> str:
    """One text for one value: sorted names, no spaces, no NaN.

    Raises:
        ValueError: a number is NaN or infinite, which JSON can't say.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def key_digest(key: Mapping[str, Any]) -> str:
    """SHA-256 of the key's canonical JSON, 64 hex digits."""
    return hashlib.sha256(canonical_json(key).encode()).hexdigest()


def untagged(encoder: str) -> str:
    """An encoder's full name without the tag of its published weights: other weights don't get it.

    Names with a colon are of repositories, folders and code, and whole; but open_clip's have a tag.

    >>> untagged("vit_base_patch16_224.dino"), untagged("open_clip:ViT-B-16/laion2b_s34b_b88k")
    ('vit_base_patch16_224', 'open_clip:ViT-B-16')
    """
    if encoder.startswith("open_clip:"):
        return encoder.partition("/")[0]
    return encoder if ":" in encoder else encoder.partition(".")[0]


def file_stem(name: str) -> str:
    """``name`` with everything that a path could trip over replaced: a name is never a path.

    >>> file_stem("hf-hub:timm/vit")
    'hf-hub-timm-vit'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "unnamed"


def feature_path(
    root: Path, dataset: str, model: str, size: int | None, key: Mapping[str, Any]
) -> Path:
    """Where the features of this key live: ``root/{dataset}/{model}_{size}_{digest}.h5``.

    Those of texts, which have no size, in ``{model}_text_{digest}.h5``; patch tokens in
    ``{model}_{size}_tokens_{digest}.h5``.
    """
    what = f"{size}_tokens" if "tokens" in key else size or "text"
    name = f"{file_stem(model)}_{what}_{key_digest(key)[:N_DIGEST]}.h5"
    return root / file_stem(dataset) / name


def key_differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """What differs between two keys, in words, one entry a line.

    >>> key_differences({"transform": {"interpolation": "bicubic"}},
    ...                 {"transform": {"interpolation": "bilinear"}})
    ['transform.interpolation: bicubic -> bilinear']
    """
    flat_a, flat_b = flatten(a), flatten(b)
    names = list(flat_a) + [name for name in flat_b if name not in flat_a]
    return [
        f"{name}: {flat_a.get(name, '(absent)')} -> {flat_b.get(name, '(absent)')}"
        for name in names
        if flat_a.get(name) != flat_b.get(name)
    ]


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested key as dotted names and printable values; lists stay whole."""
    flat: dict[str, str] = {}
    for name, item in value.items():
        if isinstance(item, Mapping):
            flat.update(flatten(item, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = item if isinstance(item, str) else json.dumps(item)
    return flat


PARTIAL = ".partial"


def partial_path(path: Path) -> Path:
    """The name of a file that isn't complete yet."""
    return path.with_name(path.name + PARTIAL)
