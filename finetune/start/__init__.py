"""What a run starts from: a stored head, episodes, an earlier row."""
