"""U-ViT, prototypes, text tower, and the file that holds the weights."""
