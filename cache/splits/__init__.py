"""Who trains, who chooses, who tests."""
