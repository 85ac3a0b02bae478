from dermaflux.api import open_corpus as open_corpus
from dermaflux.api import open_generator as open_generator
from dermaflux.api import predict as predict
from dermaflux.api import read_results as read_results

__all__ = ["open_corpus", "open_generator", "predict", "read_results"]
