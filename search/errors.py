"""Errors that callers of search can cause and may want to catch."""


class SearchError(ValueError):
    """Root of the package's errors."""


class SpaceError(SearchError):
    """A supernet id, subnet or candidate is malformed or outside its space."""


class SupernetError(SearchError):
    """A supernet's file is missing, damaged, of another architecture, or can't be fetched."""


class AdaptationError(SearchError):
    """An adaptation's input, checkpoint or saved result can't be used."""


class SpecError(SearchError):
    """A SPEC.json can't be read or describes no training."""


class PretrainError(SearchError):
    """A pretraining's settings, images or checkpoint can't be used."""
