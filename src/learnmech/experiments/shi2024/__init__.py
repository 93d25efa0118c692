"""Figures of Shi, Pan, Dokmanić 2024, "A spring-block theory of feature learning" (arXiv 2407.19353)."""
