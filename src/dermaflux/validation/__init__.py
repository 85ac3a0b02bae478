"""Great Expectations suites over corpus, captions, synthetic pool and training mixtures."""
