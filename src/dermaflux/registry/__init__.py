"""The MLflow model registry: promotion, serving, rollback, export."""
