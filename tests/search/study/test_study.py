import functools
import random
from dataclasses import replace

import numpy as np
import pytest

from search.errors import SearchError, SpaceError
from search.sampler.breeding import Breeder, Facts
from search.space.architecture import SupernetSpec
from search.space.bulk_pricing import BulkPricing
from search.space.candidates import SearchSpace
from search.space.encoding import Encoding
from search.space.lite_residual_sizes import NONE_OR_ANY
from search.space.pricing import macs_of, smallest_feasible
from search.study.optuna_trials import Finished
from search.study.study import Study
from tinytl.accounting.planner import plans
from tinytl.description.config import LiteResidualSize
from tinytl.description.method import Method
from tinytl.description.plan import Plan
from tinytl.errors import InfeasibleError

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


class CheapPricing:
    """cheap_price as a search asks for prices; the lean plan is the leanest of all."""

    encoding = Encoding(SPACE)

    def price_bytes(self, candidate):
        return cheap_price(candidate)

    def lean(self, candidate, limit_bytes):
        lean = replace(candidate, plan=LEAN_PLAN)
        return lean, cheap_price(lean)

    def lean_peak_bytes(self, rows, limit_bytes):
        return 1_000_000 + self._weights(rows) * (1000 + 10 * 24)

    def macs(self, rows):
        return self._weights(rows) ** 2

    def _weights(self, rows):
        """weight of many."""
        rows = self.encoding.canonical(rows)
        factors = {"kernel": 1, "expand": 2, "depth": 10, "resolution": 1, "lite": 0}
        found = np.zeros(len(rows), dtype=np.int64)
        for column, (name, values) in enumerate(self.encoding.choices.items()):
            factor = factors[name.partition("_")[0]]
            if factor:
                found += factor * np.array(values)[rows[:, column]]
        return found


def make_study(limit_bytes=2_000_000, seed=0, finished=(), **options):
    return Study(
        SPACE, CheapPricing(), limit_bytes=limit_bytes, seed=seed, finished=finished, **options
    )


def run(study, num_trials):
    """Ask and tell until num_trials are finished; returns them all."""
    trials = []
    while study.num_finished < num_trials:
        asked = study.ask(num_trials - study.num_finished)
        assert asked
        for proposal in asked:
            trials.append(proposal)
            study.tell(proposal.number, accuracy(proposal.candidate))
    return trials


def as_finished(proposals):
    return [
        Finished(number=p.number, candidate=p.candidate, accuracy=accuracy(p.candidate))
        for p in proposals
    ]


def test_the_cheap_pricing_is_one():
    pricing = CheapPricing()
    rng = random.Random(0)
    candidates = [SPACE.sample(rng) for _ in range(20)]
    rows = Encoding(SPACE).rows(candidates)
    assert pricing.lean_peak_bytes(rows, 1).tolist() == [
        pricing.lean(candidate, 1)[1] for candidate in candidates
    ]


@pytest.mark.parametrize("sampler", ["predictor", "tpe", "random"])
def test_proposals_fit_with_the_fastest_plan_and_differ(sampler):
    limit = 2_000_000
    trials = run(make_study(limit, sampler=sampler), 24)
    assert [trial.number for trial in trials] == list(range(24))
    for trial in trials:
        SPACE.check(trial.candidate)
        assert trial.peak_bytes == cheap_price(trial.candidate) <= limit
        lean = replace(trial.candidate, plan=trial.lean_plan)
        assert trial.lean_peak_bytes == cheap_price(lean) <= trial.peak_bytes
        assert trial.macs == weight(trial.candidate) ** 2
        for faster in plans(8)[: plans(8).index(trial.candidate.plan)]:
            assert cheap_price(replace(trial.candidate, plan=faster)) > limit
    assert len({(t.candidate.subnet, t.candidate.resolution) for t in trials}) == 24


def test_anchors_come_first():
    trials = run(make_study(10**9), 4)
    for trial, resolution in zip(trials, (80, 64, 48), strict=False):
        assert trial.candidate.subnet == SPACE.supernet.largest
        assert trial.candidate.resolution == resolution
        assert trial.candidate.plan == Plan.whole(8)
    candidate = run(make_study(1_500_000), 1)[0].candidate
    uniform = {candidate.subnet.kernel_sizes[0], candidate.subnet.kernel_sizes[-1]}
    assert len(uniform) == 1
    assert candidate.resolution == 80


@pytest.mark.parametrize("limit_bytes", [2_500_000, 10**9])
def test_where_the_method_is_searched_anchors_are_of_both_kinds(limit_bytes):
    space = replace(SPACE, lite_residual_sizes=NONE_OR_ANY)
    pricing = BulkPricing(space, Method.LITE_RESIDUAL_BIAS, 10)
    study = Study(space, pricing, limit_bytes=limit_bytes, seed=0)
    anchors = study.ask(4)
    assert anchors[0].candidate.resolution == 80
    assert len({each.candidate.lite_residual is None for each in anchors}) == 2
    for each in anchors:
        assert each.peak_bytes == pricing.price_bytes(each.candidate) <= limit_bytes
    if limit_bytes == 10**9:  # where all fits, modules make the larger network
        assert [each.candidate.lite_residual is None for each in anchors] == [False] * 3 + [True]


@pytest.mark.parametrize("modules_help", [True, False])
def test_it_is_found_out_whether_modules_help(modules_help):
    space = replace(SPACE, lite_residual_sizes=NONE_OR_ANY)
    pricing = BulkPricing(space, Method.LITE_RESIDUAL_BIAS, 10)
    study = Study(space, pricing, limit_bytes=3_000_000, seed=0)
    proposals = []
    while study.num_finished < 32:
        for each in study.ask(4):
            has_modules = each.candidate.lite_residual is not None
            found = weight(each.candidate) / 1000 + 0.2 * (has_modules is modules_help)
            study.tell(each.number, found)
            proposals.append(each)
    assert (study.best().candidate.lite_residual is not None) is modules_help
    late = [each.candidate.lite_residual is not None for each in proposals[16:]]
    assert np.mean(np.equal(late, modules_help)) > 0.6
    again = Study(space, pricing, limit_bytes=3_000_000, seed=0, finished=study.finished[:16]).ask(
        4
    )
    assert again == proposals[16:20]


@pytest.mark.parametrize("sampler", ["predictor", "tpe"])
def test_tight_limit_still_gives_varied_candidates(sampler):
    limit = cheap_price(SMALLEST) + 40_000
    trials = run(make_study(limit, sampler=sampler), 16)
    assert len({trial.candidate for trial in trials}) == 16
    assert all(trial.peak_bytes <= limit for trial in trials)


@pytest.mark.parametrize("sampler", ["predictor", "tpe"])
def test_only_the_smallest_fits(sampler):
    study = make_study(cheap_price(SMALLEST), sampler=sampler)
    (trial,) = study.ask(4)
    assert trial.candidate == SMALLEST
    study.tell(trial.number, 0.5)
    assert study.ask(3) == []


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["predictor", "random"])
def test_where_candidates_run_out_each_is_scored_once(sampler):
    limit = cheap_price(SMALLEST) + 2_500  # one step of one choice
    rows = Encoding(SPACE).rows([SPACE.smallest()])
    breeder = Breeder(
        SPACE.choices(),
        lambda rows: Facts(CheapPricing().lean_peak_bytes(rows, limit), np.ones(len(rows))),
        limit_bytes=limit,
        mac_limit=np.inf,
        canonical=Encoding(SPACE).canonical,
    )
    num_fitting = len(breeder.feasible(breeder.neighbours(rows)))
    whole = run(make_study(limit, sampler=sampler), num_fitting)
    assert len({trial.candidate for trial in whole}) == num_fitting > 20
    assert make_study(limit, sampler=sampler, finished=as_finished(whole)).ask(4) == []
    rebuilt = make_study(limit, sampler=sampler, finished=as_finished(whole[:-7]))
    assert run(rebuilt, num_fitting) == whole[-7:]


def test_infeasible():
    smallest_bytes = cheap_price(SMALLEST)
    with pytest.raises(InfeasibleError, match=f"{smallest_bytes} bytes") as raised:
        make_study(smallest_bytes - 1)
    assert raised.value.smallest_feasible_bytes == smallest_bytes


def test_limit_of_multiply_accumulates():
    least = weight(SMALLEST) ** 2
    limit = int(1.5 * least)
    trials = run(make_study(10**9, mac_limit=limit), 16)
    assert all(trial.macs <= limit for trial in trials)
    assert max(trial.macs for trial in trials) > 0.9 * limit
    with pytest.raises(InfeasibleError, match=f"and {least} multiply-accumulates$"):
        make_study(10**9, mac_limit=least - 1)


@pytest.mark.parametrize("sampler", ["predictor", "tpe", "nsga2", "random"])
def test_same_seed_same_trials(sampler):
    first = run(make_study(seed=5, sampler=sampler), 20)
    assert first == run(make_study(seed=5, sampler=sampler), 20)
    assert first != run(make_study(seed=6, sampler=sampler), 20)


@functools.cache
def undisturbed(sampler, num_trials):
    return run(make_study(sampler=sampler), num_trials)


@pytest.mark.parametrize("sampler", ["predictor", "tpe"])
@pytest.mark.parametrize("num_finished", [1, 6, 11, 16])
def test_rebuilt_study_goes_on_as_the_undisturbed_one(num_finished, sampler):
    whole = undisturbed(sampler, 20)
    finished = as_finished(whole[:num_finished])
    random.Random(num_finished).shuffle(finished)
    study = make_study(finished=finished, sampler=sampler)
    assert run(study, 20) == whole[num_finished:]
    assert accuracy(study.best().candidate) == max(accuracy(t.candidate) for t in whole)


def test_generations_without_end_can_be_rebuilt():
    rng = random.Random(0)
    finished = [
        Finished(number=number, candidate=SPACE.sample(rng), accuracy=rng.random())
        for number in range(4_500)
    ]
    assert make_study(finished=finished, sampler="nsga2").ask(1)


@pytest.mark.parametrize("num_finished", [12, 20, 30])
def test_rebuilt_generations_are_the_undisturbed_ones(num_finished):
    whole = undisturbed("nsga2", 36)
    study = make_study(finished=as_finished(whole[:num_finished]), sampler="nsga2")
    assert run(study, 36) == whole[num_finished:]


@pytest.mark.parametrize("sampler", ["predictor", "tpe", "nsga2"])
def test_rebuilt_where_the_same_is_sampled_again_and_again(sampler):
    limit = cheap_price(SMALLEST) + 6_200  # few candidates are within it
    whole = run(make_study(limit, sampler=sampler), 28)
    for num_finished in (12, 20, 24):
        finished = as_finished(whole[:num_finished])
        study = make_study(limit, sampler=sampler, finished=finished)
        assert run(study, 28) == whole[num_finished:]


def test_least_memory_is_found_within_the_limit_of_multiply_accumulates():
    """With all weights trained the candidate of least memory is none of the smallest images."""
    space = replace(SPACE, resolutions=(48, 64, 80, 96))
    pricing = BulkPricing(space, Method.FULL, 10)
    least, least_bytes = smallest_feasible(space, Method.FULL, 10)
    mac_limit = macs_of(space, least, Method.FULL, 10) - 1
    within, within_bytes = smallest_feasible(space, Method.FULL, 10, mac_limit)
    fewest_bytes = pricing.lean(space.smallest(), within_bytes)[1]
    assert least_bytes < within_bytes < fewest_bytes
    assert macs_of(space, within, Method.FULL, 10) <= mac_limit
    study = Study(space, pricing, limit_bytes=within_bytes, mac_limit=mac_limit, seed=0)
    [proposal] = study.ask(1)
    assert proposal.lean_peak_bytes <= within_bytes
    assert proposal.macs <= mac_limit
    with pytest.raises(InfeasibleError, match=rf"takes .* \({within_bytes} bytes\)"):
        Study(space, pricing, limit_bytes=within_bytes - 1, mac_limit=mac_limit, seed=0)


def test_rebuilt_with_a_gap_in_the_batch():
    whole = run(make_study(), 16)
    kept = [trial for trial in whole[:12] if trial.number not in {9, 10}]
    study = make_study(finished=as_finished(kept))
    assert study.ask(8) == [whole[9], whole[10]]


def test_order_of_telling_does_not_matter():
    whole = run(make_study(), 16)
    study = make_study()
    trials = []
    while study.num_finished < 16:
        asked = study.ask(3) + study.ask(3)
        assert study.ask(3) == []
        trials += asked
        for trial in reversed(asked):
            study.tell(trial.number, accuracy(trial.candidate))
    assert trials == whole


def test_one_given_up_is_learnt_from_and_never_chosen():
    study = make_study(num_images=400)
    asked = study.ask(4)
    for trial in asked:
        study.tell(trial.number, 0.5)
    first = study.ask(1)[0]
    study.tell(first.number, 0.9, num_images=64, is_complete=False)
    assert study.best().candidate in [trial.candidate for trial in asked]
    assert len(run(study, 20)) == 15


@pytest.mark.parametrize("sampler", ["predictor", "tpe", "nsga2"])
def test_learns_from_accuracies(sampler):
    rng = random.Random(0)
    typical = sum(accuracy(SPACE.sample(rng)) for _ in range(300)) / 300
    trials = run(make_study(limit_bytes=10**9, sampler=sampler), 40)
    late = sum(accuracy(trial.candidate) for trial in trials[24:]) / 16
    assert late > typical * 1.05


def test_front():
    study = make_study(10**9)
    trials = {trial.number: trial for trial in run(study, 24)}
    front = study.front()
    assert study.best() == front[-1]
    peaks = [trials[point.number].lean_peak_bytes for point in front]
    accuracies = [point.accuracy for point in front]
    assert peaks == sorted(set(peaks))
    assert accuracies == sorted(set(accuracies))
    for trial in trials.values():
        assert any(
            peak <= trial.lean_peak_bytes and found >= accuracy(trial.candidate)
            for peak, found in zip(peaks, accuracies, strict=True)
        )


def test_of_equally_accurate_ones_the_one_of_lowest_loss_is_best():
    study = make_study(10**9)
    asked = sorted(study.ask(4), key=lambda trial: trial.lean_peak_bytes)
    assert len({trial.lean_peak_bytes for trial in asked}) == 4
    for trial, loss in zip(asked, (0.5, 0.7, 0.3, 0.3), strict=True):
        study.tell(trial.number, 0.9, loss=loss)
    assert [point.number for point in study.front()] == [asked[0].number, asked[2].number]
    assert study.best().candidate == asked[2].candidate


def test_trials_of_a_larger_limit_are_learnt_from_and_not_chosen():
    whole = run(make_study(10**9), 24)
    study = make_study(1_450_000, finished=as_finished(whole))
    for trial in run(study, 32):
        assert trial.peak_bytes <= 1_450_000
    pricing = CheapPricing()
    for point in study.front():
        assert pricing.lean(point.candidate, 0)[1] <= 1_450_000


def test_where_nothing_inherited_fits_anchors_come_first():
    large = [trial for trial in run(make_study(10**9), 24) if trial.lean_peak_bytes > 1_450_000]
    finished = [replace(trial, number=i) for i, trial in enumerate(as_finished(large[:4]))]
    study = make_study(1_450_000, finished=finished, num_inherited=4)
    anchors = [trial.candidate for trial in run(make_study(1_450_000), 3)]
    assert [trial.candidate for trial in study.ask(3)] == anchors


def test_none_is_proposed_that_the_front_would_leave_out():
    """Of some candidates, no lean plan fits a limit that another plan fits."""
    space = replace(SPACE, resolutions=(48, 64, 80, 96), lite_residual_sizes=(LiteResidualSize(),))
    pricing = BulkPricing(space, Method.FULL, 10)
    study = Study(space, pricing, limit_bytes=4_350_000, seed=0)
    assert all(trial.lean_peak_bytes <= 4_350_000 for trial in study.ask(4))


def test_stands_still():
    study = make_study()
    run(study, 8)
    assert not study.stands_still(8)
    found = study.best().candidate
    for _ in range(3):
        for trial in study.ask(4):
            study.tell(trial.number, 0.0)
    assert study.best().candidate == found
    assert study.stands_still(12)
    assert not study.stands_still(16)
    study.tell(study.ask(1)[0].number, 1.0)
    assert not study.stands_still(12)


def test_misuse():
    study = make_study()
    with pytest.raises(SearchError, match="no trial"):
        study.best()
    with pytest.raises(SearchError, match="never asked"):
        study.tell(0, 0.5)
    trial = study.ask(1)[0]
    with pytest.raises(SearchError, match=r"1\.5"):
        study.tell(trial.number, 1.5)
    study.tell(trial.number, 0.5)
    with pytest.raises(SearchError, match="told twice"):
        study.tell(trial.number, 0.5)
    other = SearchSpace(supernet=SPACE.supernet, resolutions=(50,))
    with pytest.raises(SpaceError, match="50"):
        make_study(finished=[Finished(number=0, candidate=other.smallest(), accuracy=0.1)])
    twice = as_finished([trial, trial])
    with pytest.raises(SearchError, match="told twice"):
        make_study(finished=twice)


def test_with_the_real_price():
    pricing = BulkPricing(SPACE, Method.LITE_RESIDUAL_BIAS, 10)
    study = Study(SPACE, pricing, limit_bytes=5_000_000, seed=0)
    for trial in run(study, 12):
        assert trial.peak_bytes == pricing.price_bytes(trial.candidate) <= 5_000_000
