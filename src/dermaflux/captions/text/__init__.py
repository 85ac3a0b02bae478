"""Captions as text: sentences, prompts, length, quality."""
