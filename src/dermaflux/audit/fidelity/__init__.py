"""Fidelity and diversity: how close synthetic images as a whole are to real ones."""
