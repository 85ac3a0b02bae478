"""The training loop that every generator shares, and what it runs on."""
