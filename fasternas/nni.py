"""Spaces for NNI: `NniSpace(fn.SPACES["fasternet-32"], fn.build)` is an `nni.nas` model space."""

from nas.search.nni import NniSearcher, NniSpace

__all__ = ["NniSearcher", "NniSpace"]
