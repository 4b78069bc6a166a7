"""The sizes of lite residual modules that one supernet's modules hold, and which holds them.

None is a size, too: that of a network without modules. No torch here: the web process prices
candidates of every size without it.
"""

from __future__ import annotations

from collections.abc import Sequence

from search.errors import AdaptationError
from tinytl.description.config import LiteResidualSize
from tinytl.description.method import Method

LARGEST = LiteResidualSize(groups=2, max_kernel_size=5)
"""What supernets are pretrained with."""

SIZES = tuple(
    LiteResidualSize(groups=groups, max_kernel_size=kernel_size)
    for groups in (2, 4)
    for kernel_size in (3, 5)
)
"""Every size that a module of the largest size holds (TinyTL, arXiv 2007.11622, section 3.3)."""


NONE_OR_ANY: tuple[LiteResidualSize | None, ...] = (None, *SIZES)
"""Where it is searched whether there are modules at all."""


def method_of(method: Method, size: object | None) -> Method:
    """What trains a candidate with modules of this size, or None, in a search with the method."""
    return method.without_lite_residual if size is None else method


def holder(sizes: Sequence[LiteResidualSize | None]) -> LiteResidualSize:
    """The size of a module that holds all these but None: that of the only one, else LARGEST.

    Raises AdaptationError where sizes are none, not different, or several not all of SIZES.
    """
    of_modules = [size for size in sizes if size is not None]
    if not of_modules or len(set(sizes)) < len(sizes):
        raise AdaptationError(
            f"lite_residual_sizes must be different and, None aside, not empty "
            f"but are {list(sizes)}"
        )
    if len(of_modules) == 1:
        return of_modules[0]
    for size in of_modules:
        if size not in SIZES:
            raise AdaptationError(
                f"lite_residual_sizes must be a single one or of {list(SIZES)} but hold {size}"
            )
    return LARGEST
