"""Class-conditional diffusion on latents of a frozen autoencoder (DerMAE, arXiv 2602.19848)."""
