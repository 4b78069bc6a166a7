import json
import random
from dataclasses import FrozenInstanceError, replace

import pytest

from search.errors import SpaceError
from search.space.architecture import SupernetSpec
from search.space.candidates import Candidate, SearchSpace
from tinytl.accounting.planner import plans
from tinytl.description.config import LiteResidualSize
from tinytl.description.plan import Plan, Stretch

LITE = "efficientnet_lite0"
IDS = ["ofa_proxyless_d234_e346_k357_w0.35", "ofa_mbv3_d234_e346_k357_w1.0", LITE]


def make_space(supernet_id=IDS[0]):
    return SearchSpace(
        supernet=SupernetSpec.parse(supernet_id),
        resolutions=(48, 64, 96),
        lite_residual_sizes=(LiteResidualSize(), LiteResidualSize(expand=0.5)),
    )


@pytest.mark.parametrize("supernet_id", IDS)
def test_round_trips(supernet_id):
    space = make_space(supernet_id)
    rng = random.Random(3)
    for _ in range(50):
        candidate = space.sample(rng)
        assert space.decode(space.encode(candidate)) == candidate
        assert hash(candidate) == hash(space.decode(space.encode(candidate)))
        planned = replace(candidate, plan=rng.choice(plans(8)))
        space.check(planned)
        assert Candidate.from_dict(json.loads(json.dumps(planned.to_dict()))) == planned


def test_no_lite_residuals_are_a_size_too():
    space = replace(make_space(), lite_residual_sizes=(None, LiteResidualSize()))
    assert space.choices()["lite_residual"] == ("none", "groups2_kernel5_expand1")
    plain, other = (
        space.candidate(space.supernet.smallest, 48, size) for size in (None, LiteResidualSize())
    )
    assert plain.to_dict()["lite_residual"] is None
    for candidate in (plain, other):
        assert space.decode(space.encode(candidate)) == candidate
        assert Candidate.from_dict(json.loads(json.dumps(candidate.to_dict()))) == candidate
    assert replace(plain, lite_residual=LiteResidualSize()) == other
    with pytest.raises(SpaceError, match="not in the space"):
        make_space().check(plain)


def test_a_plan_as_json():
    stretches = (
        Stretch(micro_batch_size=1, recomputes=True),
        Stretch(from_stage=3, micro_batch_size=8),
    )
    plan = Plan(batch_size=8, stretches=stretches, optimizer_bits=8, trained_bits=16)
    assert replace(make_space().largest(), plan=plan).to_dict()["plan"] == {
        "batch_size": 8,
        "stretches": [
            {"from_stage": 0, "micro_batch_size": 1, "recomputes": True},
            {"from_stage": 3, "micro_batch_size": 8, "recomputes": False},
        ],
        "optimizer_bits": 8,
        "trained_bits": 16,
    }


def test_encode_names_every_choice_and_decode_needs_them():
    space = make_space()
    parameters = space.encode(space.largest())
    choices = space.choices()
    assert all(parameters[name] in values for name, values in choices.items())
    assert parameters.keys() == choices.keys()
    del parameters["depth_3"]
    with pytest.raises(SpaceError, match="depth_3"):
        space.decode(parameters)


def test_what_has_one_value_is_not_searched():
    choices = make_space(LITE).choices()
    assert "kernel_size_0" not in choices
    assert choices["kernel_size_2"] == (3, 5)
    assert (choices["depth_0"], choices["depth_4"]) == ((1, 2), (1, 2, 3, 4))


def test_frozen_and_sampling_is_repeatable():
    space = make_space()
    with pytest.raises(FrozenInstanceError):
        space.largest().resolution = 32
    first = [space.sample(random.Random(seed)) for seed in range(20)]
    assert first == [space.sample(random.Random(seed)) for seed in range(20)]
    assert len(set(first)) == 20
    assert {candidate.resolution for candidate in first} == {48, 64, 96}


def test_ends():
    space = make_space()
    assert space.smallest().resolution == 48
    assert space.largest().resolution == 96
    assert space.smallest(64).subnet.depths == (2,) * 5
    with pytest.raises(SpaceError, match="but got 50"):
        space.smallest(50)


def change(path, value):
    def apply(data):
        target = data
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value

    return apply


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (change(("resolution",), "64"), "resolution must be .* but got '64'"),
        (change(("resolution",), True), "but got True"),
        (change(("extra",), 1), "must have the fields"),
        (change(("subnet", "depths"), 4), "depths must be a list but got 4"),
        (change(("subnet", "kernel_sizes", 2), 0), r"kernel_sizes\[2\] must be .* but got 0"),
        (change(("lite_residual", "expand"), -1), "expand must be above 0 .* got -1"),
        (change(("plan", "stretches", 0, "micro_batch_size"), 9), "micro-batch size .* got 9"),
        (change(("plan", "stretches"), 4), "not a training plan"),
        (change(("plan", "optimizer_bits"), 7), "optimizer_bits must be 8 or 32 but got 7"),
        (change(("plan",), None), "plan must be an object but got None"),
    ],
)
def test_from_dict_refuses(apply, message):
    data = json.loads(json.dumps(make_space().largest().to_dict()))
    apply(data)
    with pytest.raises(SpaceError, match=message):
        Candidate.from_dict(data)


def test_check_refuses_what_is_outside_the_space():
    space = make_space()
    candidate = space.largest()
    outside = [
        replace(candidate, resolution=50),
        replace(candidate, lite_residual=LiteResidualSize(groups=4)),
        replace(candidate, plan=Plan.whole(4)),
        replace(candidate, subnet=replace(candidate.subnet, depths=(2,) * 5)),
    ]
    for other in outside:
        with pytest.raises(SpaceError):
            space.check(other)


@pytest.mark.parametrize(
    "settings",
    [
        {"resolutions": ()},
        {"resolutions": (64, 48)},
        {"resolutions": (8,)},
        {"resolutions": (48, 513)},
        {"batch_size": 0},
        {"lite_residual_sizes": ()},
        {"lite_residual_sizes": (LiteResidualSize(), None)},
        {"lite_residual_sizes": (None, None)},
    ],
)
def test_space_refuses(settings):
    base = {"supernet": SupernetSpec.parse(IDS[0]), "resolutions": (48,)}
    with pytest.raises(SpaceError):
        SearchSpace(**{**base, **settings})
