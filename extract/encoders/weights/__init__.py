"""Weights: where they are, what their files hold, which tensor is which."""
