import random
from dataclasses import replace

import pytest

from search.architecture import SupernetSpec
from search.errors import SearchError, SpaceError
from search.pricing import price
from search.space import SearchSpace
from search.study import BATCH_SIZE, Study
from tinytl.errors import InfeasibleError
from tinytl.plan import Plan
from tinytl.planner import plans
from tinytl.trainable import Method

SPACE = SearchSpace(
    supernet=SupernetSpec.parse("ofa_proxyless_d234_e346_k357_w0.35"),
    resolutions=(48, 64, 80),
)
LEAN_PLAN = replace(SPACE.slow_plan, optimizer_bits=8, trained_bits=16)
SMALLEST = replace(SPACE.smallest(), plan=LEAN_PLAN)


def weight(candidate):
    """A number that every choice adds to."""
    subnet = candidate.subnet
    return (
        sum(subnet.kernel_sizes)
        + 2 * sum(subnet.expand_ratios)
        + 10 * sum(subnet.depths)
        + candidate.resolution
    )


def cheap_price(candidate):
    """A price that a plan's micro-batches and bits take part in, as in a real one."""
    plan = candidate.plan
    images = max(stretch.micro_batch_size for stretch in plan.stretches)
    state_bytes = 10 * weight(candidate) * (plan.optimizer_bits + plan.trained_bits)
    return 1_000_000 + weight(candidate) * images * 1000 + state_bytes


def accuracy(candidate):
    """Deterministic, best for a middling size at 64 px."""
    return 1 / (1 + abs(weight(candidate) - 400) / 100 + abs(candidate.resolution - 64) / 64)


def make_study(limit_bytes=2_000_000, seed=0, finished=()):
    return Study(SPACE, cheap_price, limit_bytes=limit_bytes, seed=seed, finished=finished)


def run(study, num_trials):
    """Ask and tell until num_trials are finished; returns them all."""
    trials = []
    while study.num_finished < num_trials:
        asked = study.ask(num_trials - study.num_finished)
        assert asked
        for number, candidate, peak_bytes in asked:
            trials.append((number, candidate, peak_bytes))
            study.tell(number, accuracy(candidate))
    return trials


def test_proposals_fit_with_the_fastest_plan_and_differ():
    limit = 2_000_000
    trials = run(make_study(limit), 24)
    assert [number for number, _, _ in trials] == list(range(24))
    for _, candidate, peak_bytes in trials:
        SPACE.check(candidate)
        assert peak_bytes == cheap_price(candidate) <= limit
        for faster in plans(8)[: plans(8).index(candidate.plan)]:
            assert cheap_price(replace(candidate, plan=faster)) > limit
    assert len({(c.subnet, c.resolution) for _, c, _ in trials}) == 24


def test_anchors_come_first():
    trials = run(make_study(10**9), 4)
    for (_, candidate, _), resolution in zip(trials, (80, 64, 48), strict=False):
        assert candidate.subnet == SPACE.supernet.largest
        assert candidate.resolution == resolution
        assert candidate.plan == Plan.whole(8)
    _, candidate, _ = run(make_study(1_500_000), 1)[0]
    uniform = {candidate.subnet.kernel_sizes[0], candidate.subnet.kernel_sizes[-1]}
    assert len(uniform) == 1
    assert candidate.resolution == 80


def test_tight_limit_still_gives_varied_candidates_close_to_it():
    limit = cheap_price(SMALLEST) + 40_000
    trials = run(make_study(limit), 16)
    assert len({candidate for _, candidate, _ in trials}) == 16
    assert all(peak_bytes <= limit for _, _, peak_bytes in trials)
    shrunk = [peak_bytes for number, _, peak_bytes in trials if number >= BATCH_SIZE]
    assert min(shrunk) > limit - 45_000
    assert sum(shrunk) / len(shrunk) > limit - 15_000


def test_only_the_smallest_fits():
    trials = run(make_study(cheap_price(SMALLEST)), 6)
    assert {candidate for _, candidate, _ in trials} == {SMALLEST}


def test_infeasible():
    smallest_bytes = cheap_price(SMALLEST)
    with pytest.raises(InfeasibleError, match=f"{smallest_bytes} bytes") as raised:
        make_study(smallest_bytes - 1)
    assert raised.value.smallest_feasible_bytes == smallest_bytes


def test_same_seed_same_trials():
    first = run(make_study(seed=5), 20)
    assert first == run(make_study(seed=5), 20)
    assert first != run(make_study(seed=6), 20)


@pytest.mark.parametrize("num_finished", range(1, 20, 3))
def test_rebuilt_study_goes_on_as_the_undisturbed_one(num_finished):
    whole = run(make_study(), 20)
    finished = [(n, c, accuracy(c)) for n, c, _ in whole[:num_finished]]
    random.Random(num_finished).shuffle(finished)
    study = make_study(finished=finished)
    assert run(study, 20) == whole[num_finished:]
    assert study.best() == max((c for _, c, _ in whole), key=accuracy)


def test_rebuilt_with_a_gap_in_the_batch():
    whole = run(make_study(), 16)
    finished = [(n, c, accuracy(c)) for n, c, _ in whole if n not in {9, 10}][:10]
    study = make_study(finished=finished)
    assert study.ask(8) == [whole[9], whole[10]]


def test_order_of_telling_does_not_matter():
    whole = run(make_study(), 16)
    study = make_study()
    trials = []
    while study.num_finished < 16:
        asked = study.ask(3) + study.ask(3)
        assert study.ask(3) == []
        trials += asked
        for number, candidate, _ in reversed(asked):
            study.tell(number, accuracy(candidate))
    assert trials == whole


def test_failed_trials_are_passed_over():
    study = make_study()
    asked = study.ask(4)
    for number, _, _ in asked:
        study.tell(number, 0.5 if number == 2 else None)
    assert study.num_finished == 4
    assert study.best() == asked[2][1]
    assert len(study.ask(4)) == 4


def test_learns_from_accuracies():
    rng = random.Random(0)
    typical = sum(accuracy(SPACE.sample(rng)) for _ in range(300)) / 300
    trials = run(make_study(limit_bytes=10**9), 40)
    late = sum(accuracy(candidate) for _, candidate, _ in trials[24:]) / 16
    assert late > typical * 1.05


def test_misuse():
    study = make_study()
    with pytest.raises(SearchError, match="no trial"):
        study.best()
    with pytest.raises(SearchError, match="never asked"):
        study.tell(0, 0.5)
    number, candidate, _ = study.ask(1)[0]
    with pytest.raises(SearchError, match=r"1\.5"):
        study.tell(number, 1.5)
    study.tell(number, 0.5)
    with pytest.raises(SearchError, match="told twice"):
        study.tell(number, 0.5)
    other = SearchSpace(supernet=SPACE.supernet, resolutions=(50,))
    with pytest.raises(SpaceError, match="50"):
        make_study(finished=[(0, other.smallest(), 0.1)])
    with pytest.raises(SearchError, match="told twice"):
        make_study(finished=[(0, candidate, 0.1), (0, candidate, 0.2)])


def test_with_the_real_price():
    def real_price(candidate):
        return price(SPACE, candidate, Method.LITE_RESIDUAL_BIAS, 10).total_bytes

    study = Study(SPACE, real_price, limit_bytes=5_000_000, seed=0)
    for _ in range(3):
        for number, candidate, peak_bytes in study.ask(4):
            assert peak_bytes == real_price(candidate) <= 5_000_000
            study.tell(number, accuracy(candidate))
