"""Errors that callers of tinytl can cause and may want to catch."""


class TinyTLError(ValueError):
    """Root of the package's errors; raised itself for input that fits no narrower one."""


class ConfigError(TinyTLError):
    """A network description is malformed or asks for something unsupported."""


class InfeasibleError(TinyTLError):
    """No training plan fits the memory limit."""

    def __init__(self, message: str, *, smallest_feasible_bytes: int) -> None:
        super().__init__(message)
        self.smallest_feasible_bytes = smallest_feasible_bytes


class DataError(TinyTLError):
    """Images or labels can't be used for training."""


class BundleError(TinyTLError):
    """A checkpoint bundle or training checkpoint is damaged or of another kind."""


class CancelledError(TinyTLError):
    """The caller asked the running work to stop."""


class DivergenceError(TinyTLError):
    """Raised when a training's loss is no longer finite."""
