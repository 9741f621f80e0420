"""Units of work: what is written, checked and lost as a whole; and the blocks that they lie in.

The forward pass goes by blocks of 256 rows. A unit of pooled features is a block; one of tokens is
a part of it, so that its bytes stay few.
"""

UNIT_ROWS = (
    256  # rows of a block, and of a unit of pooled features: what a SIGKILL can cost at most
)
UNIT_BYTES = 64_000_000  # a unit of tokens stays below
MIN_UNIT_ROWS = 16


def count_units(n_rows: int, rows: int = UNIT_ROWS) -> int:
    """How many units of ``rows`` hold ``n_rows``; the last may be shorter."""
    return -(-n_rows // rows)


def unit_rows(unit: int, n_rows: int, rows: int = UNIT_ROWS) -> tuple[int, int]:
    """First row of a unit of ``rows`` and the row behind its last."""
    return unit * rows, min((unit + 1) * rows, n_rows)


def block_of(unit: int, rows: int) -> int:
    """The block that a unit of ``rows`` lies in."""
    return unit * rows // UNIT_ROWS


def fitting_rows(row_bytes: int, unit_bytes: int) -> int:
    """Rows of a unit of tokens: the largest power of two whose unit stays below UNIT_BYTES.

    Args:
        row_bytes: of a row, all arrays together.
        unit_bytes: what a unit has besides its rows.

    Returns:
        MIN_UNIT_ROWS to UNIT_ROWS; a unit of so few rows may be larger.
    """
    rows = UNIT_ROWS
    while rows > MIN_UNIT_ROWS and rows * row_bytes + unit_bytes >= UNIT_BYTES:
        rows //= 2
    return rows
