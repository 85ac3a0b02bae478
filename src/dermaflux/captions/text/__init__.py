"""Captions as text: prompts, length, quality, agreement with the image."""
