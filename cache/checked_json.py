"""JSON that programs remember things in: a line with its checksum, then the text.

Losing such a file only costs time, so one that was edited or damaged counts as lost.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cache.files import open_regular, write_whole


def read_checked(path: Path) -> dict[str, Any]:
    """What was written; empty where there is nothing, or it isn't as it was written."""
    try:
        with open_regular(path) as file:
            digest, _, text = file.read().partition(b"\n")
    except OSError:
        return {}
    is_whole = hashlib.sha256(text).hexdigest().encode() == digest
    value = json.loads(text) if is_whole else {}
    return value if isinstance(value, dict) else {}


def write_checked(path: Path, value: Mapping[str, Any]) -> None:
    """Write ``value`` as JSON; a folder that can't be written is no reason to stop."""
    text = json.dumps(value).encode()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(path) as file:
            file.write(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
