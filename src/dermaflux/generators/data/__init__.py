"""Training images, their latents, and the way from these to noise and back."""
