"""Alternating gradient flows: what a two-layer network learns, in which order, and when, from a vanishing start."""
