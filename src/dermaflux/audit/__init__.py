"""Fidelity and memorisation of synthetic images."""
