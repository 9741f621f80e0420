"""Frozen encoders: which there are, how their weights are read, and what each layer gives."""
