"""What README and docs name as `tinytl.NAME` is there, and costs no torch until it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tinytl


@pytest.mark.parametrize("name", tinytl.__all__)
def test_public_names_come_from_their_rooms(name):
    found = getattr(tinytl, name)
    assert found.__module__.startswith("tinytl.")
    assert found.__name__ == name


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        tinytl.trian  # noqa: B018


def test_descriptions_and_prices_load_no_torch():
    code = (
        "import sys; from tinytl import Method, Plan, fastest_plan, peak_memory; "
        "from tinytl import multiply_accumulates, published_memory; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
