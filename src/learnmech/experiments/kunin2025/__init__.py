"""Figures of Kunin et al., "Alternating gradient flows" (arXiv 2506.06489)."""
