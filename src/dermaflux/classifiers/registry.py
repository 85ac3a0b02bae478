"""Loads versions that were registered before the registry had a room of its own.

MLflow stores the loader's module in every registered model.
"""

from dermaflux.registry.registry import _load_pyfunc

__all__ = ["_load_pyfunc"]
