import gc
import os

import pytest

from search.supernets.registry import DEFAULT_SUPERNET
from tinytl.environment import torch_environment

os.environ.update(torch_environment())  # read when torch is first imported
os.environ["TINYFIT_SUPERNET"] = DEFAULT_SUPERNET  # wider ones take long
os.environ["TINYFIT_JOB_NICENESS"] = "0"  # the tests beside a job would leave it no time


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files start first, so that the others fill the time beside them."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="module", autouse=True)
def _settled() -> None:
    """What is there stays: gc, which tests of memory ask for all objects again and again, can
    skip it."""
    gc.collect()
    gc.freeze()
