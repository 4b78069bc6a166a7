"""Errors that users of the service can cause or see. service/api/http/problems.py maps them to
HTTP."""

from __future__ import annotations

from collections.abc import Mapping

_MAX_NAMED = 100
"""Of images that can't be used: more than these are counted."""


class ServiceError(Exception):
    """Root of the service's errors: one readable sentence that quotes what was wrong."""


class InputError(ServiceError):
    """The request, a setting or an argument is not acceptable."""


class DatasetError(InputError):
    """The archive or folder can't become a dataset."""


class BrokenImagesError(DatasetError):
    """Images of the upload can't be used: all of them, each with a sentence on what would do."""

    def __init__(self, problems: Mapping[str, Exception]) -> None:
        self.problems = {path: str(error) for path, error in problems.items()}
        sentences = list(self.problems.values())
        count = f"{len(sentences)} images can't be used: " if len(sentences) > 1 else ""
        them = "them" if len(sentences) > 1 else "it"
        rest = len(sentences) - _MAX_NAMED
        more = f"; and {rest} more" if rest > 0 else ""
        super().__init__(
            f"{count}{'; '.join(sentences[:_MAX_NAMED])}{more}. To go on without {them}: "
            f"--skip-broken, or skip_broken over HTTP"
        )


class TooLargeError(DatasetError):
    """The upload is over a size limit."""


class InfeasibleLimitError(InputError):
    """No candidate of the search space is within the job's limits; of those that are too small,
    the smallest that would do."""

    def __init__(
        self,
        message: str,
        *,
        smallest_feasible_bytes: int | None,
        smallest_feasible_macs: int | None = None,
        smallest_feasible_model_bytes: int | None = None,
        smallest_feasible_inference_bytes: int | None = None,
    ) -> None:
        super().__init__(message)
        found = {
            "smallest_feasible_bytes": smallest_feasible_bytes,
            "smallest_feasible_macs": smallest_feasible_macs,
            "smallest_feasible_model_bytes": smallest_feasible_model_bytes,
            "smallest_feasible_inference_bytes": smallest_feasible_inference_bytes,
        }
        self.members = {name: value for name, value in found.items() if value is not None}


class NotFoundError(ServiceError):
    """No dataset, job or checkpoint has this id."""


class ConflictError(ServiceError):
    """The job's state does not allow this."""


class UnauthorizedError(ServiceError):
    """The request came without an API key, or with one that is not active."""


class UnavailableError(ServiceError):
    """The service can't do this now; the same request may work later."""

    def __init__(self, message: str, *, retry_after_seconds: int) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class StoreUnavailableError(UnavailableError):
    """The artifact store does not answer, or can't just now."""


class StoreError(ServiceError):
    """The artifact store refuses, or is not this installation's."""


class BlobError(ServiceError):
    """What the record says is in the artifact store is missing there, or damaged."""


class BlobGoneError(BlobError):
    """The blob has been collected as garbage; it has to be kept again."""


class RateLimitError(UnavailableError):
    """One client sent more requests than it may."""


class SchemaError(ServiceError):
    """The database can't be brought up to date: damaged, out of reach, or of a later version."""


class TaskLostError(ServiceError):
    """The process that ran a task of a job died, and again where it was tried again."""


class ClusterLostError(ServiceError):
    """The Ray cluster does not answer, or is not the one that it was."""


class LeaseLostError(ServiceError):
    """This attempt no longer owns its job: another worker does, or it was ended."""
