import pytest

from tests.tinytl.conftest import MOBILENETV3, PROXYLESS
from tinytl.accounting.model_size import model_bytes, part_model_bytes
from tinytl.description.method import Method
from tinytl.engine.network import build_network


@pytest.mark.parametrize("method", list(Method), ids=str)
@pytest.mark.parametrize("group_norm", [False, True])
@pytest.mark.parametrize("supernet", [PROXYLESS, MOBILENETV3])
def test_it_is_that_of_the_values(small_network, supernet, group_norm, method):
    config = small_network(supernet, group_norm=group_norm, lite=method.uses_lite_residual)
    values = build_network(config, method).state_dict().values()
    assert model_bytes(config, method) == sum(v.numel() * v.element_size() for v in values)
    assert len(part_model_bytes(config, method)) == len(config.active_blocks) + 3
