"""From pixels to an encoder's input."""
