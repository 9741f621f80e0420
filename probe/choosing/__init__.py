"""One of several candidates: by val, by folds, or inside an episode."""
