"""What an export's files are called. Imports nothing."""

from __future__ import annotations

from typing import Literal

Precision = Literal["float", "int8"]

MODEL_FILES: dict[Precision, str] = {"float": "model.onnx", "int8": "model.int8.onnx"}
