"""What differences of models a test set can show: tests, intervals, families, decisions, claims."""
