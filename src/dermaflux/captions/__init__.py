"""One caption per image, by the chosen captioner."""
