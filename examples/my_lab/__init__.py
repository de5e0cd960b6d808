"""A device, a backend, an estimator, a space and a searcher for fasternas, one a file."""
