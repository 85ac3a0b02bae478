"""Reading what publishers ship: files, archives, HDF5 containers, CSV tables."""
