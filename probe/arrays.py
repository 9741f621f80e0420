"""Kinds of arrays by name; their shapes stand beside them, in comments and docstrings."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]  # of any type: labels are whole numbers, or of a regression floats
Floats = NDArray[np.floating]  # of any width: features may be float16, as they are stored
Doubles = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.integer]  # of any width: labels, counts
Indices = NDArray[np.intp]  # rows or places of something
Bools = NDArray[np.bool_]
Texts = NDArray[np.str_]
