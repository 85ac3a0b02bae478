"""Names and colours of the arms of a cell, wherever people see them."""

from __future__ import annotations

TITLES: dict[str, str] = {
    "real": "real only",
    "mixture": "real + synthetic",
    "repeated": "real, repeated",
    "augmented": "real, strongly augmented",
    "random_features": "real, random features",
    "no_teacher": "real + synthetic, no teacher",
    "scratch": "real, from scratch",
}
COLOURS: dict[str, str] = {
    "real": "#2f6db3",
    "mixture": "#d9772b",
    "repeated": "#5d8a3c",
    "augmented": "#8a5fb0",
    "random_features": "#7d8894",
    "no_teacher": "#b8a13a",
    "scratch": "#b5475f",
}
"""Hexadecimal RGB."""
