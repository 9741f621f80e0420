"""What reads stored rows: tables of them, comparisons, claims, and pandas DataFrames.

from probe.report import load_results, scores_of
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probe.report.rows.frame import load_results, scores_of

__all__ = ["load_results", "scores_of"]


def __getattr__(name: str) -> Any:
    """Import what needs pandas when it is asked for: commands don't wait for it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from probe.report.rows import frame

    return getattr(frame, name)
