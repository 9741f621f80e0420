"""What is asked: labels, splits, external validation, leaks."""
