"""What a classifier trains on: subsets, pixels, samples."""
