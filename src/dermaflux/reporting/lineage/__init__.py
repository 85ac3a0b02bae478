"""Where each number comes from: the MLflow run that wrote it, and what that run took."""
