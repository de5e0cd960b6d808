"""Spaces for NNI: `NniSpace(fn.SPACES["fasternet-32"], fn.build)` is an `nni.nas` model space."""

from nas.searching.nni_bridge import NniSearcher, NniSpace

__all__ = ["NniSearcher", "NniSpace"]
