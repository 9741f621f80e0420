"""Stage one: run each frozen encoder over each image once and keep every layer's pools."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from extract.encoders.libraries.user import UserEncoder

__all__ = ["UserEncoder"]


def __getattr__(name: str) -> Any:
    """``UserEncoder`` on demand: torch takes seconds to import, and ``--help`` shouldn't."""
    if name == "UserEncoder":
        from extract.encoders.libraries.user import UserEncoder

        return UserEncoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
