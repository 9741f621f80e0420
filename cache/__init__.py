"""The contract between the stages: feature files, written once, read by anyone.

    from cache import open_features

    features = open_features("features/breastmnist/dinov2_224_1a2b3c4d5e6f.h5")
    x = features.array(layer=-1, pool="cls")  # (N, D)
    y = features.labels  # (N,)
    train = features.split == "train"

What a file holds, byte by byte, stands in FORMAT.md beside this file.
"""

from typing import TYPE_CHECKING, Any

from cache.errors import BrokenCache, CacheError, CacheMiss, RequestError, StaleCache

if TYPE_CHECKING:
    from cache.features import Features, open_features

__all__ = [
    "BrokenCache",
    "CacheError",
    "CacheMiss",
    "Features",
    "RequestError",
    "StaleCache",
    "open_features",
]


def __getattr__(name: str) -> Any:
    """Import the reader when it is first asked for: h5py would slow every ``--help`` down."""
    if name in ("Features", "open_features"):
        from cache import features

        return getattr(features, name)
    raise AttributeError(f"module 'cache' has no attribute {name!r}")
