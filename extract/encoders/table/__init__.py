"""The encoders that are known by name."""
