"""The device trainer: a training unrolled into a program, and the C that runs it.

`unroll/` turns a network and its plan into operations, `layout` gives their buffers places in one
arena, `program_file` writes them; `trainer/` is the C. `build` and `delivery` make what a device
gets, `importer` a bundle of what it learned. docs/device.md has the formats.
"""
