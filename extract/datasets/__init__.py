"""Data sets: where their images are, what their labels mean, and how to stream them."""
