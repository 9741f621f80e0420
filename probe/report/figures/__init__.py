"""Pictures of stored rows: each is drawn from a frame, which can be had as CSV."""
