"""The network: whether we may use it, and how soon a silent host is given up."""

import http.client
import os
import urllib.error
import urllib.request
from typing import Any

# What refusals say, be it --offline or HF_HUB_OFFLINE that forbade it.
FORBIDDEN = "the network is not to be used"
CONNECT_SECONDS = 15  # without an answer for so long, a host is given up

_unreachable: set[str] = set()  # hosts that this process has given up


def offline() -> bool:
    """Whether the user forbade the network (HF_HUB_OFFLINE=1 means all of it)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def open_url(request: urllib.request.Request) -> Any:
    """Open an address; a host that didn't answer once isn't waited for again.

    Raises:
        urllib.error.HTTPError: the host answered, and refused.
        OSError, http.client.HTTPException: it didn't answer, or nonsense.
    """
    if request.host in _unreachable:
        raise TimeoutError(f"{request.host} didn't answer a moment ago")
    try:
        return urllib.request.urlopen(request, timeout=CONNECT_SECONDS)
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException):
        _unreachable.add(request.host)
        raise


def why_unreachable(url: str) -> str | None:
    """Ask a host once, and briefly: None if it answers at all, else the reason."""
    try:
        open_url(urllib.request.Request(url, method="HEAD")).close()
    except urllib.error.HTTPError as error:
        error.close()
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    return None
