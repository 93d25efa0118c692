"""Figures of Chizat, Netrapalli 2024, "The feature speed formula" (arXiv 2311.18718), and a table of its scalings."""
