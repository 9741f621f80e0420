"""Numbers of scores and labels, and their intervals."""
