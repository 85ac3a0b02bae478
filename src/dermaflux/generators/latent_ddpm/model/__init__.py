"""U-Net, and the file that holds the weights."""
