"""Units of work: what is written, checked and lost as a whole."""

UNIT_ROWS = 256  # rows of a unit: what a SIGKILL can cost at most


def count_units(n_rows: int) -> int:
    """How many units of UNIT_ROWS hold ``n_rows``; the last may be shorter."""
    return -(-n_rows // UNIT_ROWS)


def unit_rows(unit: int, n_rows: int) -> tuple[int, int]:
    """First row of a unit and the row behind its last."""
    return unit * UNIT_ROWS, min((unit + 1) * UNIT_ROWS, n_rows)
