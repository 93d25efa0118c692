"""Figures of Kunin et al. 2024, "Get rich quick: exact solutions reveal how unbalanced initializations promote rapid feature learning" (arXiv 2406.06158)."""
