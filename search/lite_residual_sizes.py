"""The sizes of lite residual modules that one supernet's modules hold, and which holds them.

No torch here: the web process prices candidates of every size without it.
"""

from __future__ import annotations

from collections.abc import Sequence

from search.errors import AdaptationError
from tinytl.config import LiteResidualSize

LARGEST = LiteResidualSize(groups=2, max_kernel_size=5)
"""What supernets are pretrained with."""

SIZES = tuple(
    LiteResidualSize(groups=groups, max_kernel_size=kernel_size)
    for groups in (2, 4)
    for kernel_size in (3, 5)
)
"""Every size that a module of the largest size holds (TinyTL, arXiv 2007.11622, section 3.3)."""


def holder(sizes: Sequence[LiteResidualSize]) -> LiteResidualSize:
    """The size of a module that holds all these: that of the only one, else LARGEST.

    Raises AdaptationError where sizes are none, not different, or several not all of SIZES.
    """
    if not sizes or len(set(sizes)) < len(sizes):
        raise AdaptationError(
            f"lite_residual_sizes must be different and not empty but are {list(sizes)}"
        )
    if len(sizes) == 1:
        return sizes[0]
    for size in sizes:
        if size not in SIZES:
            raise AdaptationError(
                f"lite_residual_sizes must be a single one or of {list(SIZES)} but hold {size}"
            )
    return LARGEST
