"""What recipes share whose network learns classes: augmentation, cross-entropy, scores."""
