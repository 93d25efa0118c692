"""Figures of Jacot and Kaiser, "Hamiltonian mechanics of feature learning: bottleneck structure in leaky ResNets"."""
