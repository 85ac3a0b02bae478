"""Training images and their latents."""
