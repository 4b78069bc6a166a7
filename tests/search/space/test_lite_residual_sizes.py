import subprocess
import sys

import pytest

from search.errors import AdaptationError
from search.space.lite_residual_sizes import LARGEST, NONE_OR_ANY, SIZES, holder, method_of
from tinytl.description.config import LiteResidualSize
from tinytl.description.method import Method

OTHER = LiteResidualSize(expand=2.0)


def test_what_holds_which():
    assert holder(SIZES) == LARGEST
    assert holder(SIZES[2:]) == LARGEST
    for size in (*SIZES, OTHER):
        assert holder([size]) == size


@pytest.mark.parametrize(
    ("sizes", "complaint"),
    [
        ([], "empty"),
        ([None], "empty"),
        ([LARGEST, LARGEST], "different"),
        ([LARGEST, OTHER], r"expand=2\.0"),
    ],
)
def test_what_none_holds(sizes, complaint):
    with pytest.raises(AdaptationError, match=complaint):
        holder(sizes)


def test_none_needs_no_module():
    assert holder(NONE_OR_ANY) == LARGEST
    assert holder([None, OTHER]) == OTHER


def test_without_modules_the_rest_of_a_method_is_trained():
    for method in Method:
        assert method_of(method, LARGEST) is method
        assert not method_of(method, None).uses_lite_residual
        assert method_of(method, None).trains_bias == method.trains_bias
    assert method_of(Method.LITE_RESIDUAL_BIAS, None) is Method.BIAS
    assert method_of(Method.LITE_RESIDUAL, None) is Method.HEAD
    assert method_of(Method.FULL, None) is Method.FULL


def test_the_web_process_needs_no_torch_for_them():
    code = "import sys, search.space.lite_residual_sizes; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
