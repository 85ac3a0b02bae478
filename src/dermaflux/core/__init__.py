"""What every room stands on: the one table, images, files, hashes, seeds, caches."""
