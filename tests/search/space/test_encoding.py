import random

import numpy as np
import pytest

from search.space.architecture import SupernetSpec
from search.space.candidates import SearchSpace
from search.space.encoding import Encoding

SPACES = [
    SearchSpace(supernet=SupernetSpec.parse(name), resolutions=(48, 64))
    for name in (
        "ofa_proxyless_d234_e346_k357_w0.35",
        "ofa_mbv3_d123_e34_k35_w1.0",
        "efficientnet_lite0",
    )
]


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.supernet.id)
def test_rows_are_candidates(space):
    encoding = Encoding(space)
    rng = random.Random(0)
    candidates = [space.sample(rng) for _ in range(50)]
    rows = encoding.rows(candidates)
    assert rows.shape == (50, len(space.choices()))
    assert (rows < [len(values) for values in space.choices().values()]).all()
    assert [encoding.candidate(row) for row in rows] == candidates
    assert (encoding.canonical(rows) == rows).all()


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.supernet.id)
def test_canonical_is_the_supernets(space):
    encoding = Encoding(space)
    counts = [len(values) for values in space.choices().values()]
    rows = np.random.default_rng(0).integers(counts, size=(100, len(counts)))
    before = rows.copy()
    canonical = encoding.canonical(rows)
    assert (rows == before).all()
    assert (canonical != rows).any()
    assert (canonical == encoding.rows([encoding.candidate(row) for row in rows])).all()


def test_no_candidates():
    encoding = Encoding(SPACES[0])
    assert encoding.rows([]).shape == (0, len(encoding.names))
