"""The feature file, byte by byte, as FORMAT.md says it."""
