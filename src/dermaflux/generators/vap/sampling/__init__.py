"""Opening the trained U-ViT and sampling from it."""
