"""Near names, for messages about unknown ones."""

import difflib
from collections.abc import Iterable


def near_names(name: str, known: Iterable[str], otherwise: str) -> str:
    """ "near names: ..." out of ``known``, or ``otherwise`` where none is near."""
    known = list(dict.fromkeys(known))
    near = difflib.get_close_matches(name.lower(), known, n=4, cutoff=0.6)
    near += [other for other in known if name.lower() in other and other not in near][:4]
    return f"near names: {', '.join(near[:6])}" if near else otherwise
