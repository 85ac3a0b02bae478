"""U-ViT on latents, conditioned on class, description and prototypes (VAP-Diffusion, 2025)."""
