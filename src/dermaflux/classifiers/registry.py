"""Loader of versions registered before the registry had a room of its own: they name this module.

MLflow stores the loader's module in every registered model; `dermaflux.registry.registry` is it now.
"""

from dermaflux.registry.registry import _load_pyfunc

__all__ = ["_load_pyfunc"]
