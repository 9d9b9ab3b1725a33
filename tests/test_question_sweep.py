"""The sweep of 19.6.2: bounds, thresholds, the choice between them."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from question_sweep import Swept, pick, sweep, upper_bound


@pytest.mark.parametrize(("wrong", "hits", "bound"), [(0, 0, 1.0), (3, 3, 1.0), (0, 3, 0.6316), (1, 10, 0.3942)])
def test_edge_what_counts_leave_possible(wrong: int, hits: int, bound: float) -> None:
    assert upper_bound(wrong, hits) == pytest.approx(bound, abs=1e-4)


def test_edge_a_pair_at_the_threshold_is_served() -> None:
    (row,) = sweep([("a", "b", True)], lambda text: [1.0, 0.0], guard=lambda a, b: "", thresholds=(1.0,))
    assert (row.hits, row.recall, row.wrong) == (1, 1.0, 0)
    with pytest.raises(FrozenInstanceError):
        row.hits = 2  # type: ignore[misc]


def test_bounds_that_differ_by_less_than_a_tenth_of_a_percent_are_equals() -> None:
    def row(threshold: float, hits: int, bound: float) -> Swept:
        return Swept(threshold, 0.5, hits, 0, bound, hits, 0)

    assert pick([row(0.9, 10, 0.0123), row(0.8, 20, 0.0124)]).threshold == 0.8
    assert pick([row(0.9, 10, 0.0123), row(0.8, 20, 0.0140)]).threshold == 0.9
    assert pick([row(0.7, 10, 0.0123), row(0.8, 10, 0.0123)]).threshold == 0.8
