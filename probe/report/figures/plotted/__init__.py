"""Frames as plotly's JavaScript draws them, in a page: ``SHAPE.plot(frame) -> Picture`` a module each.

Plain dictionaries of plotly's names; nothing here imports plotly, whose wheel has the script.
"""
