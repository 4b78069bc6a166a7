import copy
import random
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from search.adaptation.adapt import AdaptedSupernet, AdaptSettings, adapt
from search.adaptation.score import score
from search.elastic.lite_residual import cut
from search.elastic.supernet import (
    Supernet,
    load_supernet,
    supernet_from_weights,
    untrained_supernet,
)
from search.errors import AdaptationError
from search.space.architecture import SupernetSpec
from search.space.candidates import SearchSpace
from search.space.lite_residual_sizes import LARGEST, NONE_OR_ANY, SIZES
from search.supernets.registry import DEFAULT_SUPERNET
from tinytl.description.config import LiteResidualSize
from tinytl.description.method import Method
from tinytl.engine.network import build_network
from tinytl.errors import CancelledError
from tinytl.training.data import ImageSplit, ImageStore

PROXYLESS = "ofa_proxyless_d23_e34_k35_w0.2"
MBV3 = "ofa_mbv3_d23_e34_k35_w0.2"
GROUP_NORM = "ofa_mbv3_d23_e34_k35_w0.2_gn"
RESOLUTIONS = (32, 40)


def make_store(counts=(40, 8, 24), seed=0):
    """Noise with a bright stripe whose place is the class: easy, but not for an idle network."""
    rng = np.random.default_rng(seed)

    def split(images_per_class):
        images, labels = [], []
        for label, count in enumerate(images_per_class):
            batch = rng.integers(0, 120, (count, 3, 40, 40), dtype=np.uint8)
            batch[:, label % 3, 13 * label : 13 * label + 13] += 130
            images.append(batch)
            labels += [label] * count
        return ImageSplit(np.concatenate(images), np.array(labels))

    splits = {"train": split(counts), "val": split((20, 20, 20)), "test": split((1, 1, 1))}
    return ImageStore(splits, ("top", "middle", "bottom"), 40)


@pytest.fixture(scope="module")
def store():
    return make_store()


@pytest.fixture
def supernet(elastic_network):
    net = elastic_network(PROXYLESS)
    return supernet_from_weights(SupernetSpec.parse(PROXYLESS), net.state_dict(), source="test")


def with_pretrained_modules(supernet_id):
    """A supernet whose lite residuals add something."""
    generator = torch.Generator().manual_seed(5)
    supernet = untrained_supernet(
        SupernetSpec.parse(supernet_id), 7, lite_residuals=True, generator=generator
    )
    for module in supernet.lite_residuals.values():
        module.final_bn.weight.uniform_(0.5, 1, generator=generator)
        module.final_bn.bias.normal_(generator=generator)
    return supernet


def settings(**changes):
    base = {"steps": 6, "batch_size": 6, "checkpoint_steps": 2, "seed": 3}
    return AdaptSettings(**{**base, **changes})


def state(adapted):
    tensors = dict(adapted.supernet.network.state_dict())
    for index, module in adapted.lite_residuals.items():
        tensors |= {f"lite_residual.{index}.{k}": v for k, v in module.state_dict().items()}
    return {
        key: value
        for key, value in tensors.items()
        if "running_" not in key and not key.endswith("num_batches_tracked")
    }


def assert_same(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


def space_of(spec):
    return SearchSpace(supernet=spec, resolutions=RESOLUTIONS)


def changed(before, after):
    return {key for key in after.keys() & before if not torch.equal(after[key], before[key])}


@pytest.mark.parametrize("supernet_id", [PROXYLESS, MBV3, GROUP_NORM])
@pytest.mark.parametrize("method", list(Method))
def test_trains_what_the_method_trains(supernet_id, method, store, elastic_network):
    spec = SupernetSpec.parse(supernet_id)
    supernet = supernet_from_weights(
        spec, elastic_network(supernet_id).state_dict(), source="test"
    )
    original = {k: v.clone() for k, v in supernet.network.state_dict().items()}
    before = state(AdaptedSupernet.fresh(supernet, 3, method=method, seed=3))
    adapted = adapt(supernet, store, RESOLUTIONS, settings(method=method, steps=8))
    assert_same(dict(supernet.network.state_dict()), original)
    found = changed(before, state(adapted))
    heads = {"classifier.linear.weight", "classifier.linear.bias"}
    expected = set(heads)
    for key in before:
        is_bias = key.endswith(".bias") and key not in heads
        if key.startswith("lite_residual."):
            if method is Method.LITE_RESIDUAL or not key.endswith("final_bn.bias"):
                expected.add(key)
        elif is_bias and ".se." in key:
            if method.trains_squeeze_bias:
                expected.add(key)
        elif is_bias and method.trains_bias:
            expected.add(key)
    # A deep block may have been in none of the few random subnets, an SE unit may have saturated.
    assert found <= expected
    assert heads <= found
    assert len(found) > 0.7 * len(expected)
    assert bool(adapted.lite_residuals) == method.uses_lite_residual


def test_same_seed_same_result_and_other_seed_another(supernet, store):
    first = adapt(supernet, store, RESOLUTIONS, settings())
    assert_same(state(first), state(adapt(supernet, store, RESOLUTIONS, settings())))
    other = adapt(supernet, store, RESOLUTIONS, settings(seed=4))
    assert changed(state(first), state(other))


def test_global_generators_play_no_part(supernet, store):
    torch.manual_seed(1)
    random.seed(1)
    first = adapt(supernet, store, RESOLUTIONS, settings())
    torch.manual_seed(2)
    random.seed(2)
    assert_same(state(first), state(adapt(supernet, store, RESOLUTIONS, settings())))


@pytest.mark.parametrize("stop_after", [1, 2, 3, 5])
def test_resumes_exactly(supernet, store, tmp_path, stop_after):
    whole = adapt(supernet, store, RESOLUTIONS, settings())
    checkpoint = tmp_path / "adapt.safetensors"
    steps = []

    def on_progress(done, total):
        steps.append((done, total))

    with pytest.raises(CancelledError):
        adapt(
            supernet,
            store,
            RESOLUTIONS,
            settings(),
            checkpoint=checkpoint,
            on_progress=on_progress,
            should_stop=lambda: len(steps) == stop_after,
        )
    assert steps == [(done, 6) for done in range(1, stop_after + 1)]
    steps.clear()
    resumed = adapt(
        supernet,
        store,
        RESOLUTIONS,
        settings(),
        checkpoint=checkpoint,
        on_progress=on_progress,
    )
    assert steps[0] == (stop_after // 2 * 2 + 1, 6)
    assert_same(state(resumed), state(whole))
    steps.clear()
    again = adapt(
        supernet,
        store,
        RESOLUTIONS,
        settings(),
        checkpoint=checkpoint,
        on_progress=on_progress,
    )
    assert steps == []
    assert_same(state(again), state(whole))
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_checkpoint_of_another_run(supernet, store, tmp_path):
    checkpoint = tmp_path / "adapt.safetensors"
    adapt(supernet, store, RESOLUTIONS, settings(), checkpoint=checkpoint)
    for change in ({"seed": 4}, {"steps": 7}, {"method": Method.BIAS}):
        with pytest.raises(AdaptationError, match="belongs to another adaptation"):
            adapt(supernet, store, RESOLUTIONS, settings(**change), checkpoint=checkpoint)
    with pytest.raises(AdaptationError, match="belongs to another"):
        adapt(supernet, store, (32,), settings(), checkpoint=checkpoint)
    other = copy.deepcopy(supernet)
    with torch.no_grad():
        other.network.first_conv.conv.weight[0, 0, 0, 0] += 1
    with pytest.raises(AdaptationError, match="belongs to another"):
        adapt(other, store, RESOLUTIONS, settings(), checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-10])
    with pytest.raises(AdaptationError, match="damaged"):
        adapt(supernet, store, RESOLUTIONS, settings(), checkpoint=checkpoint)


@pytest.mark.parametrize("method", [Method.LITE_RESIDUAL_BIAS, Method.BIAS])
def test_save_and_load(supernet, store, tmp_path, method):
    adapted = adapt(supernet, store, RESOLUTIONS, settings(method=method))
    path = tmp_path / "adapted.safetensors"
    adapted.save(path)
    loaded = AdaptedSupernet.load(path)
    assert_same(state(adapted), state(loaded))
    assert (loaded.method, loaded.spec, loaded.num_classes) == (method, supernet.spec, 3)
    candidate = space_of(supernet.spec).smallest()
    scores = [score(each, candidate, store) for each in (loaded, adapted)]
    assert np.array_equal(scores[0].correct, scores[1].correct)
    content = path.read_bytes()
    for damaged in (
        content[:-100],
        b"",
        content.replace(b"adapted supernet", b"adapted SUPERNET"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(AdaptationError, match=r"adapted\.safetensors"):
            AdaptedSupernet.load(path)
    with pytest.raises(AdaptationError):
        AdaptedSupernet.load(tmp_path / "absent")


def test_adaptation_learns_for_every_subnet(store, tmp_path):
    supernet = load_supernet(DEFAULT_SUPERNET, tmp_path)
    space = space_of(supernet.spec)
    fresh = AdaptedSupernet.fresh(supernet, 3, method=Method.LITE_RESIDUAL_BIAS)
    adapted = adapt(supernet, store, RESOLUTIONS, settings(steps=30, batch_size=18))
    for candidate in (space.smallest(32), space.largest(40)):
        before, after = (score(each, candidate, store).accuracy for each in (fresh, adapted))
        assert after > max(0.7, before + 0.2)


@pytest.mark.parametrize("supernet_id", [PROXYLESS, GROUP_NORM])
@pytest.mark.parametrize("size", SIZES)
def test_subnet_weights_match_the_supernet_s_forward(supernet_id, size, store):
    supernet = with_pretrained_modules(supernet_id)
    adapted = adapt(supernet, store, RESOLUTIONS, settings())
    candidate = replace(space_of(supernet.spec).largest(32), lite_residual=size)
    config, weights = adapted.subnet_weights(candidate, store)
    assert config.num_classes == 3
    assert config.has_lite_residual
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    network = build_network(config, adapted.method, weights, weight_bits=32)
    with torch.no_grad():
        expected = adapted.supernet.forward(candidate.subnet, images, adapted.lite_residuals, size)
        torch.testing.assert_close(network(images), expected, rtol=1e-3, atol=1e-3)
    again = adapted.subnet_weights(candidate, store)[1]
    adapted.subnet_weights(space_of(supernet.spec).smallest(40), store)
    assert_same(weights, again)
    assert_same(weights, adapted.subnet_weights(candidate, store)[1])


@pytest.mark.parametrize("size", SIZES)
def test_starts_from_the_supernet_s_own_lite_residuals(size, store, tmp_path):
    supernet = with_pretrained_modules(PROXYLESS)
    before = {i: m.state_dict() for i, m in supernet.lite_residuals.items()}
    fresh = AdaptedSupernet.fresh(
        supernet, 3, method=Method.LITE_RESIDUAL_BIAS, lite_residual_sizes=[size]
    )
    assert fresh.lite_residuals.keys() == supernet.lite_residuals.keys()
    for index, module in fresh.lite_residuals.items():
        assert_same(module.state_dict(), cut(supernet.lite_residuals[index], size).state_dict())
    adapted = adapt(supernet, store, RESOLUTIONS, settings(lite_residual_sizes=(size,), steps=2))
    path = tmp_path / "adapted.safetensors"
    adapted.save(path)
    assert_same(state(adapted), state(AdaptedSupernet.load(path)))
    for index, module in adapted.lite_residuals.items():
        assert torch.equal(module.final_bn.bias, before[index]["final_bn.bias"])
    candidate = replace(space_of(supernet.spec).smallest(), lite_residual=size)
    assert score(adapted, candidate, store).is_complete


def test_each_step_trains_modules_of_a_random_size(store):
    supernet = with_pretrained_modules(PROXYLESS)
    small = [size for size in SIZES if size.max_kernel_size == 3]
    before = AdaptedSupernet.fresh(supernet, 3, method=Method.LITE_RESIDUAL_BIAS, seed=3)
    for sizes, trains_edges in ((SIZES, True), (tuple(small), False)):
        adapted = adapt(supernet, store, RESOLUTIONS, settings(lite_residual_sizes=sizes))
        weight, was = (
            each.lite_residuals[1].conv1.weight for each in (adapted, before)
        )  # of a block that every subnet has
        assert weight.shape[2:] == (5, 5)
        moved = weight != was
        assert moved[:, :, 1:4, 1:4].all()
        assert moved[:, :, 0].any() == trains_edges
        assert adapted.lite_residual_sizes == sizes


def test_one_supernet_serves_candidates_with_and_without_modules(store, tmp_path):
    supernet = with_pretrained_modules(PROXYLESS)
    adapted = adapt(
        supernet, store, RESOLUTIONS, settings(lite_residual_sizes=NONE_OR_ANY, steps=8)
    )
    adapted.save(tmp_path / "adapted.safetensors")
    loaded = AdaptedSupernet.load(tmp_path / "adapted.safetensors")
    assert loaded.lite_residual_sizes == NONE_OR_ANY
    assert_same(state(loaded), state(adapted))
    space = SearchSpace(
        supernet=supernet.spec, resolutions=RESOLUTIONS, lite_residual_sizes=NONE_OR_ANY
    )
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for size in (None, SIZES[0]):
        candidate = space.candidate(space.supernet.largest, 32, size)
        config, weights = loaded.subnet_weights(candidate, store)
        assert config.has_lite_residual is (size is not None)
        assert any(".lite_residual." in name for name in weights) is (size is not None)
        method = Method.BIAS if size is None else Method.LITE_RESIDUAL_BIAS
        assert loaded.method_of(candidate) is method
        network = build_network(config, method, weights, weight_bits=32)
        modules = loaded.lite_residuals if size else None
        with torch.no_grad():
            expected = loaded.supernet.forward(candidate.subnet, images, modules, size)
        torch.testing.assert_close(network(images), expected, rtol=1e-3, atol=1e-3)
        assert score(loaded, candidate, store).is_complete


def test_without_modules_statistics_are_matched_to_the_full_network_without_them(store):
    spec = SupernetSpec.parse("efficientnet_lite0")
    generator = torch.Generator().manual_seed(5)
    supernet = untrained_supernet(spec, 7, lite_residuals=True, generator=generator)
    for module in supernet.lite_residuals.values():
        module.final_bn.weight.uniform_(0.5, 1, generator=generator)
    both, biases = (
        AdaptedSupernet.fresh(supernet, 3, method=method, lite_residual_sizes=sizes)
        for method, sizes in (
            (Method.LITE_RESIDUAL_BIAS, NONE_OR_ANY),
            (Method.BIAS, SIZES),
        )
    )
    space = SearchSpace(supernet=spec, resolutions=(33,), lite_residual_sizes=NONE_OR_ANY)
    without, with_modules = (space.candidate(spec.smallest, 33, size) for size in (None, SIZES[0]))
    expected = biases.subnet_weights(without, store, num_images=4)
    matched = both.subnet_weights(with_modules, store, num_images=4)[1]
    found = both.subnet_weights(without, store, num_images=4)
    assert found[0] == expected[0]
    assert_same(found[1], expected[1])
    assert any("point_linear.bn.running_mean" in name for name in changed(found[1], matched))


def test_steps_without_modules_train_the_biases_alone(store):
    supernet = with_pretrained_modules(PROXYLESS)
    chosen = settings(lite_residual_sizes=NONE_OR_ANY, steps=1)
    kinds = set()
    for seed in range(8):
        chosen = replace(chosen, seed=seed)
        before = state(AdaptedSupernet.fresh(supernet, 3, method=chosen.method, seed=seed))
        moved = changed(before, state(adapt(supernet, store, RESOLUTIONS, chosen)))
        assert any(name.endswith("bn.bias") and name.startswith("blocks.") for name in moved)
        kinds.add(any(name.startswith("lite_residual.") for name in moved))
    assert kinds == {True, False}


def test_a_supernet_without_a_step_without_modules_scores_no_such_candidate(store, supernet):
    adapted = AdaptedSupernet.fresh(supernet, 3, method=Method.LITE_RESIDUAL_BIAS)
    candidate = replace(space_of(supernet.spec).smallest(), lite_residual=None)
    with pytest.raises(AdaptationError, match="but the candidate has None"):
        adapted.subnet_weights(candidate, store)


def test_sizes_change_nothing_else(supernet, store):
    """Subnets, resolutions and images of the steps are the same."""
    first, second = (
        adapt(
            supernet,
            store,
            RESOLUTIONS,
            settings(method=Method.BIAS, lite_residual_sizes=sizes),
        )
        for sizes in (SIZES, (LARGEST,))
    )
    assert_same(state(first), state(second))


def test_where_the_supernet_has_no_modules_fresh_ones_hold_every_size(supernet, store, tmp_path):
    adapted = adapt(supernet, store, RESOLUTIONS, settings())
    adapted.save(tmp_path / "adapted.safetensors")
    loaded = AdaptedSupernet.load(tmp_path / "adapted.safetensors")
    assert loaded.lite_residual_sizes == SIZES
    assert {m.config.groups for m in loaded.lite_residuals.values()} == {2}
    for size in SIZES:
        candidate = replace(space_of(supernet.spec).smallest(), lite_residual=size)
        config, weights = loaded.subnet_weights(candidate, store)
        assert config.blocks[1].lite_residual.groups == size.groups
        build_network(config, loaded.method, weights)


def test_a_file_of_an_older_version_is_refused(supernet, tmp_path):
    path = tmp_path / "adapted.safetensors"
    AdaptedSupernet.fresh(supernet, 3, method=Method.BIAS).save(path)
    content = path.read_bytes()
    assert content.count(b'format_version\\": 2') == 1
    path.write_bytes(content.replace(b'format_version\\": 2', b'format_version\\": 1'))
    with pytest.raises(AdaptationError, match=r"format version 1, not 2: adapt .* again"):
        AdaptedSupernet.load(path)


def test_a_size_that_the_supernet_has_not_starts_anew():
    supernet = with_pretrained_modules(PROXYLESS)
    size = LiteResidualSize(expand=2)
    fresh = AdaptedSupernet.fresh(
        supernet, 3, method=Method.LITE_RESIDUAL, lite_residual_sizes=[size]
    )
    assert fresh.lite_residuals.keys() == supernet.lite_residuals.keys()
    for module in fresh.lite_residuals.values():
        assert module.config.expand == 2
        assert not module.final_bn.weight.any()


def test_a_single_size_of_any_kind_is_adapted_and_scored(supernet, store, tmp_path):
    size = LiteResidualSize(groups=1, max_kernel_size=3, expand=2)
    adapted = adapt(supernet, store, RESOLUTIONS, settings(lite_residual_sizes=(size,)))
    adapted.save(tmp_path / "adapted.safetensors")
    loaded = AdaptedSupernet.load(tmp_path / "adapted.safetensors")
    assert_same(state(adapted), state(loaded))
    candidate = replace(space_of(supernet.spec).smallest(), lite_residual=size)
    assert score(loaded, candidate, store).is_complete


@pytest.mark.parametrize("method", [m for m in Method if not m.uses_lite_residual])
def test_other_methods_leave_the_supernet_s_lite_residuals_out(method, store):
    supernet = with_pretrained_modules(PROXYLESS)
    plain = Supernet(supernet.spec, supernet.network, supernet.num_classes)
    candidate = space_of(supernet.spec).largest(32)
    found, expected = (
        AdaptedSupernet.fresh(start, 3, method=method).subnet_weights(candidate, store)
        for start in (supernet, plain)
    )
    assert not found[0].has_lite_residual
    assert found[0] == expected[0]
    assert_same(found[1], expected[1])


def test_group_norm_reads_no_calibration_images(store, monkeypatch):
    supernet = with_pretrained_modules(GROUP_NORM)
    fresh = AdaptedSupernet.fresh(supernet, 3, method=Method.BIAS)
    monkeypatch.setattr(store, "split", None)
    fresh.subnet_weights(space_of(supernet.spec).smallest(), store)


def test_torch_s_compiler_is_left_out(supernet, store, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # importing it fails
    adapt(supernet, store, RESOLUTIONS, settings(steps=1))


def test_every_calibration_batch_has_its_share_of_each_class(supernet, monkeypatch):
    store = make_store((100, 60, 40))
    split = store.split("train")
    batches = []

    def record(indices, resolution):
        batches.append(torch.bincount(split.labels_of(list(indices)), minlength=3).tolist())
        return torch.zeros(len(indices), 3, resolution, resolution, dtype=torch.uint8)

    monkeypatch.setattr(split, "batch", record)
    fresh = AdaptedSupernet.fresh(supernet, 3, method=Method.BIAS)
    fresh.subnet_weights(space_of(supernet.spec).smallest(), store, num_images=120)
    assert batches == [[30, 18, 12], [30, 18, 12]]
    batches.clear()
    fresh.subnet_weights(space_of(supernet.spec).smallest(), store, num_images=1000)
    assert batches == [[25, 15, 10]] * 4


def test_other_lite_residual_size_is_refused(supernet, store):
    candidate = replace(
        space_of(supernet.spec).smallest(), lite_residual=LiteResidualSize(expand=2)
    )
    for sizes in (SIZES, SIZES[:1], [LARGEST]):
        fresh = AdaptedSupernet.fresh(
            supernet, 3, method=Method.LITE_RESIDUAL_BIAS, lite_residual_sizes=sizes
        )
        with pytest.raises(AdaptationError, match=r"candidate has.*expand=2"):
            fresh.subnet_weights(candidate, store)
    with pytest.raises(AdaptationError, match="candidate has"):
        fresh.subnet_weights(replace(candidate, lite_residual=SIZES[0]), store)


def test_only_training_images_are_read(supernet, monkeypatch):
    store = make_store()
    monkeypatch.setattr(store, "split", {"train": store.split("train")}.__getitem__)
    adapted = adapt(supernet, store, RESOLUTIONS, settings())
    adapted.subnet_weights(space_of(supernet.spec).smallest(), store)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"batch_size": 1},
        {"learning_rate": 0},
        {"learning_rate": float("nan")},
        {"label_smoothing": 1.0},
        {"checkpoint_steps": 0},
        {"lite_residual_sizes": ()},
        {"lite_residual_sizes": (LARGEST, LARGEST)},
        {"lite_residual_sizes": (LARGEST, LiteResidualSize(expand=2))},
    ],
)
def test_settings_refuse(change):
    (name,) = change
    with pytest.raises(AdaptationError, match=name):
        settings(**change)
