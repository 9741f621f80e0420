"""One file for each kind of probe; table.py names them."""
