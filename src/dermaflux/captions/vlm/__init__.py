"""Captions by a vision-language model, in process or behind an endpoint."""
