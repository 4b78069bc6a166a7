"""TinyTL: on-device transfer learning with frozen weights (arXiv 2007.11622).

`tinytl.load(path)` loads a bundle. Importing the package alone does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinytl.bundle import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from tinytl.bundle import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
