"""One page that holds a study: what stands on it, and the file that holds all of it."""
