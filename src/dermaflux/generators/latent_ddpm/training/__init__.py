"""Training of the U-Net on cached latents."""
