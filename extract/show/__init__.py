"""What only shows: `extract models` and `extract data`."""
