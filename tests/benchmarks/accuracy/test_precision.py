"""The rows of the comparison of precisions."""

from benchmarks.accuracy.precision import rows_of
from benchmarks.shared.runs import Outcome


def test_variants_are_compared_with_32_bits_of_the_same_seed():
    def outcomes(*accuracies: float) -> list[Outcome]:
        return [
            Outcome(
                num_classes=2,
                test_accuracy=a,
                validation_accuracy=0,
                train_loss=1 - a,
                seconds=1,
            )
            for a in accuracies
        ]

    first, second, third = rows_of(
        "photos", [outcomes(0.5, 0.75), outcomes(0.75, 0.5), outcomes(0.5, 0.5)]
    )
    assert [row["variant"] for row in (first, second, third)] == ["32/32", "8/32", "8/16"]
    assert (first["test_accuracy"], first["seed_spread"], first["train_loss"]) == (
        0.625,
        0.25,
        0.375,
    )
    assert first["difference_by_seed"] == [0, 0]
    assert second["difference_by_seed"] == [0.25, -0.25]
    assert third["difference_by_seed"] == [0, -0.25]
