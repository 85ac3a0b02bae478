"""Whose images are worth most: one protocol, one test split, ranks with their uncertainty."""
