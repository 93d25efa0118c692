"""Figures in the manner of Chizat, Oyallon, Bach 2019, "On lazy training in differentiable programming" (arXiv 1812.07956)."""
