"""Intervals, effects and comparisons over lesions and seeds."""
