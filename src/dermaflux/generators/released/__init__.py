"""Released images in place of a generator."""
