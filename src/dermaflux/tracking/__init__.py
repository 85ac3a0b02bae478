"""MLflow: runs, their parents over seeds, and the hashes they carry."""
