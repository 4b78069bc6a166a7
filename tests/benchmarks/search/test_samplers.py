"""Hypervolume against brute force, every searcher on a tiny landscape, and what a record is of."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.search import runs as search_runs
from benchmarks.search.best import best_of_table
from benchmarks.search.figures import panels_of, rows, summary, tables
from benchmarks.search.front import front, hypervolume, survivors
from benchmarks.search.landscapes import Landscape, table_landscape
from benchmarks.search.plots import draw
from benchmarks.search.problem import Problem
from benchmarks.search.runs import OURS, PEERS, Run, trace_of
from benchmarks.search.tables import Table
from benchmarks.search.traces import StaleRecordError, Trace, load, save
from benchmarks.shared.machine import describe_machine
from search.space.bulk_pricing import BulkPricing
from search.supernets.registry import DEFAULT_SUPERNET
from tinytl.description.method import Method


def test_hypervolume_is_the_area_that_brute_force_counts():
    rng = np.random.default_rng(0)
    for _ in range(20):
        accuracy = rng.integers(0, 20, size=12) / 20
        peak_bytes = rng.integers(1, 40, size=12).astype(float)
        found = hypervolume(accuracy, peak_bytes, limit_bytes=30, chance=0.1)
        cells = 0.0
        for byte in range(30):  # what byte + 1 bytes can be had for is between it and the next
            affordable = accuracy[peak_bytes <= byte]
            cells += max(0.0, max(affordable, default=0.0) - 0.1)
        assert found == pytest.approx(cells)


def test_survivors_are_the_front_first_and_its_ends_before_its_middle():
    accuracy = np.array([0.5, 0.6, 0.61, 0.9, 0.4, 0.89])
    peak_bytes = np.array([1.0, 2.0, 2.1, 9.0, 9.6, 9.5])
    assert front(accuracy, peak_bytes).tolist() == [0, 1, 2, 3]
    assert set(survivors(accuracy, peak_bytes, 2)) == {0, 3}
    assert set(survivors(accuracy, peak_bytes, 5)) == {0, 1, 2, 3, 5}
    assert len(survivors(accuracy, peak_bytes, 9)) == 6


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Larger is better, but for the kernel size."""
    choices = {
        **{f"depth_{i}": [2, 3] if i < 2 else [2] for i in range(5)},
        "kernel_size": [3, 5, 7],
        "expand_ratio": [3, 4, 6],
        "resolution": [32, 48],
    }
    shape = [len(values) for values in choices.values()]
    indices = np.indices(shape).reshape(len(shape), -1)
    correct = 40 + 2 * indices[0] + 3 * indices[6] + 7 * indices[7] - indices[5]
    path = tmp_path / "tiny.json"
    Table(
        dataset="tiny",
        dataset_digest="",
        num_classes=4,
        num_images=100,
        supernet=DEFAULT_SUPERNET,
        supernet_digest="",
        adaptation={},
        choices=choices,
        score_seconds=0.1,
        machine={},
        correct=correct.tolist(),
    ).write(path)
    return path


@pytest.fixture
def landscape(table: Path) -> Landscape:
    return table_landscape(table)


def test_a_table_prices_its_candidates_as_the_search_does(landscape: Landscape):
    space = landscape.space
    subnet = space.supernet.uniform(5, 4, 2)
    candidate = space.candidate(subnet, 48)
    row = np.array([0, 0, 0, 0, 0, 1, 1, 1])
    (peak_bytes,) = landscape.peak_bytes(row[None], 10**9)
    pricing = BulkPricing(space, Method.LITE_RESIDUAL_BIAS, 4)
    assert pricing.lean(candidate, 10**9)[1] == peak_bytes
    assert landscape.accuracy(row[None])[0] == pytest.approx(0.40 + 0.03 + 0.07 - 0.01)


def test_candidates_are_made_to_fit_by_as_little_as_the_walk_allows(landscape: Landscape):
    problem = Problem(landscape=landscape, limit_share=0.1)
    rng = np.random.default_rng(0)
    drawn = problem.random(50, rng)
    found = problem.feasible(drawn, rng)
    fitted = problem.peak_bytes(drawn) <= problem.limit_bytes
    assert 0 < fitted.sum() < 50
    assert (problem.peak_bytes(found) <= problem.limit_bytes).all()
    np.testing.assert_array_equal(found[fitted], drawn[fitted])
    assert (found <= drawn).all()
    assert found[~fitted].sum() > 0  # the walk ends before the smallest candidate


def tiny_trace(
    monkeypatch: pytest.MonkeyPatch, landscape: Landscape, searcher: str, seed: int = 0
) -> Trace:
    monkeypatch.setattr(search_runs, "landscape_named", lambda name, predictor: landscape)
    monkeypatch.setattr(search_runs, "BUDGETS", (5, 14))
    monkeypatch.setattr(search_runs, "CHECKPOINTS", (5, 14))
    run = Run(landscape="tiny", limit_share=0.5, searcher=searcher, seed=seed, predictor=None)
    return trace_of(run)


@pytest.mark.parametrize("searcher", [*PEERS, *OURS])
def test_every_searcher_finds_more_with_more_evaluations_and_the_same_again(
    monkeypatch: pytest.MonkeyPatch, landscape: Landscape, searcher: str
):
    trace = tiny_trace(monkeypatch, landscape, searcher)
    assert trace.evaluations == [5, 14]
    best_accuracy, best_area = best_of_table(landscape, 0.5)
    assert 0 < trace.accuracy[0] <= trace.accuracy[1] <= best_accuracy
    assert trace.hypervolume[1] <= best_area * (1 + 1e-9)
    assert trace.hypervolume[1] > 0.7 * best_area
    if searcher != "OFA":  # each of its budgets is another run
        assert trace.hypervolume[0] <= trace.hypervolume[1]
    again = tiny_trace(monkeypatch, landscape, searcher)
    assert (again.accuracy, again.hypervolume) == (trace.accuracy, trace.hypervolume)


def a_trace(searcher: str, factor: float, seed: int) -> Trace:
    return Trace(
        landscape="tiny",
        limit_share=0.5,
        searcher=searcher,
        seed=seed,
        evaluations=[10, 25, 50, 100, 250],
        accuracy=[factor * each for each in (0.3, 0.35, 0.4, 0.45, 0.5)],
        hypervolume=[factor * each for each in (50.0, 60.0, 70.0, 80.0, 100.0)],
        seconds=[1.0, 2.0, 3.0, 4.0, 5.0],
    )


def test_figures_compare_ours_early_with_the_best_peer_late(tmp_path: Path):
    traces = [
        a_trace(name, factor + seed / 100, seed)
        for name, factor in (("random", 0.5), ("TPE", 0.9), ("ours", 1.5), ("ours, by 4", 1.2))
        for seed in (-1, 1)
    ]
    facts = {
        "limit_bytes": 1000,
        "best_accuracy": 0.7,
        "best_hypervolume": 200.0,
        "is_noise_free": True,
        "score_seconds": 0.1,
    }
    panels = panels_of(traces, {("tiny", 0.5): facts})
    found = summary(panels)
    assert found["hypervolume_ratio"] == pytest.approx(1.2 * 80 / (0.9 * 100))
    assert found["regret_points"] == pytest.approx(100 * (0.7 - 1.2 * 0.45))
    by_key = {
        (row["searcher"], row.get("evaluations"), row.get("seconds")): row for row in rows(panels)
    }
    assert by_key["TPE", 100, None]["hypervolume"] == pytest.approx(0.9 * 80 / 200)
    # 10 evaluations take 1 s, and 1 s of proposing; 25 take 4.5 s, 50 take 8 s, 100 take 14 s
    assert by_key["TPE", None, 10]["accuracy"] == pytest.approx(0.9 * 0.4)
    text = "\n".join(tables(panels))
    assert "| ours, by 4 |" in text
    draw(panels, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "search_accuracy.svg",
        "search_hypervolume.svg",
    }


def test_a_record_is_replayed_and_refused_on_another_landscape(tmp_path: Path):
    path = tmp_path / "peers.json.gz"
    with pytest.raises(StaleRecordError, match="--peers"):
        load(path, {"tiny": "digest"}.get)
    trace = a_trace("TPE", 0.5, 0)
    save([trace], {"tiny": "digest"}, describe_machine(), path)
    assert load(path, {"tiny": "digest"}.get) == [trace]
    assert load(path, {"another": "digest"}.get) == []
    with pytest.raises(StaleRecordError, match="another landscape tiny"):
        load(path, {"tiny": "changed"}.get)


def test_the_digest_changes_with_the_accuracies(table: Path, landscape: Landscape):
    assert table_landscape(table).digest == landscape.digest
    content = json.loads(table.read_text())
    content["correct"][0] += 1
    table.write_text(json.dumps(content))
    assert table_landscape(table).digest != landscape.digest
