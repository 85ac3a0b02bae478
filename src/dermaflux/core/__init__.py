"""What all rooms share: the image table, images, files, hashes, seeds, caches."""
