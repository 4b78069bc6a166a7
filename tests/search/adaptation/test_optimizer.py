import pytest
import torch
from torch import nn

from search.adaptation.optimizer import SubnetAdam
from tinytl.engine.optimizer import Adam
from tinytl.errors import BundleError


def make_parameters():
    generator = torch.Generator().manual_seed(0)
    return {
        name: nn.Parameter(torch.randn(shape, generator=generator))
        for name, shape in (("first", (3, 4)), ("second", (5,)))
    }


def gradient(parameter, seed):
    return torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))


def test_each_parameter_counts_the_steps_that_it_takes():
    """As the engine's Adam for each alone, whose parameters take every step."""
    parameters, alone = make_parameters(), make_parameters()
    optimizer = SubnetAdam(parameters)
    references = {name: Adam({name: alone[name]}) for name in alone}
    for step, names in enumerate([("first",), ("first", "second"), (), ("second",)]):
        for name in names:
            parameters[name].grad = gradient(parameters[name], step)
            references[name].begin_step(0.1 / (step + 1))
            references[name].update(name, gradient(alone[name], step))
        optimizer.step(0.1 / (step + 1))
        assert all(parameter.grad is None for parameter in parameters.values())
        for name, parameter in parameters.items():
            torch.testing.assert_close(parameter, alone[name], rtol=1e-6, atol=1e-7)
    steps = {name: optimizer.state_tensors()[f"step.{name}"].item() for name in parameters}
    assert steps == {"first": 2, "second": 2}


def saved_after_a_step():
    parameters = make_parameters()
    optimizer = SubnetAdam(parameters)
    parameters["second"].grad = gradient(parameters["second"], 1)
    optimizer.step(0.1)
    return {name: value.detach().clone() for name, value in optimizer.state_tensors().items()}


def test_goes_on_where_it_was_saved():
    saved = saved_after_a_step()
    assert saved.keys() == {
        *("parameter.first", "parameter.second"),
        *("step.second", "exp_avg.second", "exp_avg_sq.second"),
    }
    parameters = make_parameters()
    optimizer = SubnetAdam(parameters)
    optimizer.load_state(saved)
    found = optimizer.state_tensors()
    assert found.keys() == saved.keys()
    assert all(torch.equal(value, saved[name]) for name, value in found.items())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("parameter.first", torch.zeros(4, 3)),
        ("exp_avg.second", torch.zeros(4)),
        ("step.second", torch.zeros(1)),
        ("exp_avg_sq.second", None),
        ("parameter.second", None),
    ],
)
def test_a_damaged_state_is_refused(name, value):
    saved = saved_after_a_step()
    if value is None:
        del saved[name]
    else:
        saved[name] = value
    with pytest.raises(BundleError, match=name):
        SubnetAdam(make_parameters()).load_state(saved)
