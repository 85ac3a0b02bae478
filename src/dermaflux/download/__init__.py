"""Fetching the published datasets."""
