"""What every command does alike: its terminal, its names, a user's code."""
