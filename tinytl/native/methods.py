"""What the device trainer trains by. No torch."""

from __future__ import annotations

from tinytl.description.method import Method


def refusal(method: Method) -> str | None:
    """Why the trainer does not train by a method; None where it does."""
    if method.trains_on_device:
        return None
    return (
        f"the device trainer does not train by {method.value!r}, which changes what it keeps "
        f"frozen; train the job by 'lite_residual+bias', 'lite_residual', 'bias' or 'head'"
    )
