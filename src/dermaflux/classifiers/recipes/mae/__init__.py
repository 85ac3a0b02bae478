"""Masked-autoencoder pre-training (He et al. 2022, arXiv 2111.06377), then fine-tuning."""
