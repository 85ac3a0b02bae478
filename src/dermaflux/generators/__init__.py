"""Backbone, fine-tuning and sampling of the image generator."""
