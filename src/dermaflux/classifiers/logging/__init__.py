"""What training and evaluation leave in MLflow."""
