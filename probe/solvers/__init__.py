"""Fast solvers and searches, which know nothing of kinds."""
