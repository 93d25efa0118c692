"""Figures of Kunin, Sagastuy-Brena, Ganguli, Yamins and Tanaka, "Neural mechanics" (arXiv 2012.04728), on small nets."""
