"""Stored rows: reading, choosing, and which of them may stand beside each other."""
