"""`extract --text`: prompts through an encoder's text tower."""
