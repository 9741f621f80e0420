"""Stage one: frozen encoders over images, every layer pooled and kept, once."""
