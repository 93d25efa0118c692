"""Figures of Jacot, Ged, Simsek, Hongler and Gabriel, "Saddle-to-saddle dynamics in deep linear networks" (arXiv 2106.15933)."""
