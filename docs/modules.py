"""Prints every module with the first sentence of its docstring: `make modules`."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("tinytl", "search", "service")


def main() -> None:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py"), key=_by_room):
            docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
            first_paragraph = " ".join(docstring.split("\n\n")[0].split())
            name = path.relative_to(ROOT)
            if path.name == "__init__.py":
                print(f"\n{name.parent}/  {first_paragraph}")
            else:
                print(f"  {path.name:24} {first_paragraph}")


def _by_room(path: Path) -> tuple[Path, bool, str]:
    return path.parent, path.name != "__init__.py", path.name


if __name__ == "__main__":
    main()
