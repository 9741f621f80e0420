"""Numbers that papers printed, one CSV a paper: what ``numbers.py`` reads, as package data."""
