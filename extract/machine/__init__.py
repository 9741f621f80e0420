"""What the machine gives: progress, workers, the network, digests of files."""
