import json
from dataclasses import asdict

import pytest

from search.errors import SpecError
from search.space.spec import load_spec, parse_spec
from tinytl.description.config import GROUP_NORM
from tinytl.description.method import Method
from tinytl.description.plan import Plan, Stretch

_SPEC = {
    "network": "proxyless_mobile",
    "method": "lite_residual+bias",
    "resolution": 224,
    "batch_size": 8,
    "num_classes": 102,
}


def test_defaults():
    spec = parse_spec(_SPEC)
    assert spec.method is Method.LITE_RESIDUAL_BIAS
    assert spec.network.has_lite_residual
    assert spec.network.num_classes == 102
    assert spec.given_plan is None
    assert spec.plan == Plan.whole(8)
    assert spec.frozen_param_bits == 8


def test_a_plan_is_as_in_a_candidate():
    plan = Plan(
        batch_size=8,
        stretches=(
            Stretch(micro_batch_size=1, recomputes=True),
            Stretch(from_stage=3, micro_batch_size=8),
        ),
        optimizer_bits=8,
    )
    content = json.loads(json.dumps(asdict(plan)))
    assert parse_spec({**_SPEC, "plan": content}).plan == plan
    assert parse_spec(_SPEC).with_plan(content) == parse_spec({**_SPEC, "plan": content})
    assert parse_spec({**_SPEC, "micro_batch_size": 2}).given_plan == Plan.whole(8, 2)


def test_a_supernet_without_subnet_is_its_largest():
    spec = parse_spec({**_SPEC, "network": "ofa_proxyless_d234_e346_k357_w1.3"})
    assert len(spec.network.active_blocks) == 22


def test_the_papers_norm():
    spec = parse_spec({**_SPEC, "norm": "group"})
    assert spec.network.norm == GROUP_NORM
    assert spec.network.has_lite_residual


@pytest.mark.parametrize("norm", [{}, {"norm": "group"}, {"norm": None}])
def test_a_network_with_group_norm_keeps_it(norm):
    name = "ofa_proxyless_d234_e346_k357_w0.35_gn_mine"
    assert parse_spec({**_SPEC, "network": name, **norm}).network.norm == GROUP_NORM
    with pytest.raises(SpecError, match=f"'{name}' has group norm but got norm 'batch'"):
        parse_spec({**_SPEC, "network": name, "norm": "batch"})


def test_batch_norm_is_the_default_elsewhere():
    network = parse_spec({**_SPEC, "network": "ofa_mbv3_d234_e346_k357_w1.0"}).network
    assert network.norm.kind == "batch"


def test_the_figures_of_a_published_case_are_let_pass():
    parse_spec({**_SPEC, "total_bytes": 1, "param_bytes": 1, "peak_activation_bytes_per_image": 1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "layer"}, "'layer'"),
        ({"network": "resnet50"}, "'resnet50'"),
        ({"network": 5}, "5"),
        ({"subnet": {"ks": [], "e": [], "d": []}}, "has no subnet"),
        ({"network": "ofa_mbv3_d234_e346_k357_w1.0", "subnet": {"ks": [3]}}, "keys"),
        (
            {
                "network": "ofa_mbv3_d234_e346_k357_w1.0",
                "subnet": {"ks": [3] * 20, "e": [3] * 20, "d": [2, 2, 2, 2, 9]},
            },
            "9",
        ),
        (
            {
                "network": "ofa_mbv3_d234_e346_k357_w1.0",
                "subnet": {"ks": [3] * 20, "e": [3] * 20, "d": [2.0, 2, 2, 2, 2]},
            },
            r"but got 2\.0",
        ),
        ({"method": "magic"}, "'magic'"),
        ({"resolution": 8}, "resolution must be an integer from 32 to 512 but got 8"),
        ({"resolution": True}, "True"),
        ({"batch_size": 0}, "batch_size must be an integer from 1"),
        ({"micro_batch_size": 9}, "from 1 to 8 but got 9"),
        ({"micro_batch_size": 1, "plan": {}}, "give one of them"),
        ({"plan": {"batch_size": 8}}, "not a training plan"),
        ({"plan": asdict(Plan.whole(4))}, "batch_size must be the spec's, 8, but got 4"),
        (
            {
                "plan": {
                    "batch_size": 8,
                    "stretches": [
                        {"micro_batch_size": 1},
                        {"from_stage": 5, "micro_batch_size": 1},
                    ],
                }
            },
            "starts at stage 5",
        ),
        ({"frozen_param_bits": 7}, r"one of \[8, 32\] but got 7"),
        ({"num_classes": "many"}, "'many'"),
        ({"colour": 1}, r"unknown keys \['colour'\]"),
    ],
)
def test_what_is_wrong_is_quoted(change, message):
    with pytest.raises(SpecError, match=message):
        parse_spec({**_SPEC, **change})


def test_a_byte_order_mark_is_let_pass(tmp_path):
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(_SPEC), encoding="utf-8-sig")
    assert load_spec(path) == parse_spec(_SPEC)


def test_a_file_that_is_no_spec(tmp_path):
    path = tmp_path / "spec.json"
    with pytest.raises(SpecError, match="can't read"):
        load_spec(path)
    path.write_text("{")
    with pytest.raises(SpecError, match="is not JSON"):
        load_spec(path)
    path.write_text("[" * 100_000)
    with pytest.raises(SpecError, match="is not JSON"):
        load_spec(path)
    path.write_text("[]")
    with pytest.raises(SpecError, match="must be a JSON object"):
        load_spec(path)
    path.write_text(json.dumps({"method": "bias"}))
    with pytest.raises(SpecError, match="lacks"):
        load_spec(path)
