"""Text columns, and the targets that they become."""
