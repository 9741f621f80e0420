"""Work for other processes, in a module that loads nothing large there."""

import os

from cache.errors import RequestError


def square(x: int) -> int:
    if x == 13:
        os._exit(1)
    if x == 17:
        raise RequestError("not 17")
    return x * x
