"""Mixtures of real and synthetic images, training, evaluation, promotion."""
