"""U-Net, diffusion path, autoencoder and the file that holds the weights."""
