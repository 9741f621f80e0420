"""Tables, and how each format writes them."""
