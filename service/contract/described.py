"""The base of what users send and get."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Described(BaseModel):
    """What stands below a field, in its docstring, describes it in the OpenAPI document."""

    model_config = ConfigDict(use_attribute_docstrings=True)
