"""Exports a bundle to a zip, in a process of its own.

python -m tinytl.onnx_export model.tinyfit.zip onnx.zip
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tinytl.errors import BundleError
from tinytl.onnx_export.export import complete_folder, pack_folder, write_models
from tinytl.onnx_export.source import read_bundle


def main(bundle: str, target: str) -> int:
    try:
        source = read_bundle(bundle)
        with tempfile.TemporaryDirectory() as folder:
            write_models(source, Path(folder))
            complete_folder(source, Path(folder), {})
            pack_folder(Path(folder), Path(target))
    except BundleError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
