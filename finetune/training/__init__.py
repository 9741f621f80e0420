"""The loop: loss, rates, ranks, checkpoints, predictions."""
