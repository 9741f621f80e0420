"""An encoder with a head, and which of its parts learn."""
