"""Words for messages: near names, and what an exception says."""

import difflib
from collections.abc import Iterable


def near_names(name: str, known: Iterable[str], otherwise: str) -> str:
    """ "near names: ..." out of ``known``, or ``otherwise`` where none is near."""
    known = {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower(), known, n=4, cutoff=0.6)
    near += [other for other in known if name.lower() in other and other not in near][:4]
    near = [known[other] for other in near]
    return f"near names: {', '.join(near[:6])}" if near else otherwise


def counted(n: int, noun: str) -> str:
    """ "1 row", "2 rows"."""
    return f"{n:_} {noun}" if n == 1 else f"{n:_} {noun}s"


def first_line(error: BaseException) -> str:
    """The first line of an exception's text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
