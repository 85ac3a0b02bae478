"""Fine-tuning the adapter."""
