"""Samplers: which configuration next. One a file; see :class:`tuner.search.search.Sampler`."""
