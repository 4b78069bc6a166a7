"""The records of a program file (trainer/program.h has their fields)."""

from __future__ import annotations

import struct

HEADER = struct.Struct("<8s2I32s18I3I3I3I3I2I2I5H3H10d")
OP = struct.Struct("<8B2H3If2I16H")
BUFFER = struct.Struct("<4I")
SEGMENT = struct.Struct("<4I")

SECTIONS = ("ops", "buffers", "segments", "classes", "frozen", "values")

assert OP.size == 68
assert HEADER.size == 280
