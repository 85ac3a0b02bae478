"""Loads versions that were registered before the package `dermaflux.registry` existed.

MLflow stores the loader's module in every registered model.
"""

from dermaflux.registry.registry import _load_pyfunc

__all__ = ["_load_pyfunc"]
