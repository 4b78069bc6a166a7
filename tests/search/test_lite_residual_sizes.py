import subprocess
import sys

import pytest

from search.errors import AdaptationError
from search.lite_residual_sizes import LARGEST, SIZES, holder
from tinytl.config import LiteResidualSize

OTHER = LiteResidualSize(expand=2.0)


def test_what_holds_which():
    assert holder(SIZES) == LARGEST
    assert holder(SIZES[2:]) == LARGEST
    for size in (*SIZES, OTHER):
        assert holder([size]) == size


@pytest.mark.parametrize(
    ("sizes", "complaint"),
    [([], "empty"), ([LARGEST, LARGEST], "different"), ([LARGEST, OTHER], r"expand=2\.0")],
)
def test_what_none_holds(sizes, complaint):
    with pytest.raises(AdaptationError, match=complaint):
        holder(sizes)


def test_the_web_process_needs_no_torch_for_them():
    code = "import sys, search.lite_residual_sizes; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
