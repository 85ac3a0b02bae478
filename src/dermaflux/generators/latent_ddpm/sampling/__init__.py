"""Opening the trained U-Net and sampling from it."""
