"""DermaFlux: synthetic skin-lesion images and whether they improve malignancy classifiers.

A notebook uses `open_corpus`, `open_generator`, `predict` and `read_results`; docs/api.md shows
them. They are loaded on first use, so that `import dermaflux` loads no library.
"""

from importlib import import_module

__all__ = ["open_corpus", "open_generator", "predict", "read_results"]


# Typed in __init__.pyi. An import in this file would make every stage depend on all of the code.
def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("dermaflux.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
