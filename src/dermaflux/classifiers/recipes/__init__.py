"""One folder per classifier recipe."""
