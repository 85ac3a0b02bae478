"""Choosing and fitting released images."""
