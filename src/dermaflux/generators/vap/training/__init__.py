"""Training of a U-ViT on cached latents and descriptions."""
