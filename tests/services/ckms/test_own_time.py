"""Time goes on over restarts and reboots, and no clock that is set makes a lifetime longer while the node runs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.ckms.own_time import CHECKPOINT, Checkpoint, OwnTime, Reading


def test_a_new_node_begins_at_nought() -> None:
    time = OwnTime(None, Reading("a", 500.0, 1e9))

    assert time.at(500.0) == 0.0
    assert time.at(512.5) == 12.5


def test_a_restart_within_one_boot_is_exact_whatever_the_wall_clock_does() -> None:
    kept = OwnTime(None, Reading("a", 500.0, 1e9)).checkpoint(Reading("a", 530.0, 1e9 + 30))

    for wall in (0.0, 1e9 + 90, 9e9):
        assert OwnTime(kept, Reading("a", 590.0, wall)).at(600.0) == 100.0


def test_over_a_reboot_the_time_off_counts() -> None:
    kept = Checkpoint(1000.0, Reading("a", 77_000.0, 1e9))

    assert OwnTime(kept, Reading("b", 20.0, 1e9 + 86_400)).at(25.0) == 1000.0 + 86_400 + 5


def test_a_wall_clock_that_was_set_back_takes_nothing_away() -> None:
    kept = Checkpoint(1000.0, Reading("a", 77_000.0, 1e9))

    assert OwnTime(kept, Reading("b", 20.0, 0.0)).at(20.0) == 1000.0 + 20.0 + CHECKPOINT


@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.floats(0, 1e6),
            st.floats(0, 1e6),
            st.floats(0, CHECKPOINT),
            st.floats(-1e9, 1e9),
        ),
        max_size=12,
    )
)
def test_time_in_use_is_never_undercounted(lives: list[tuple[bool, float, float, float, float]]) -> None:
    """Each life runs, leaves a checkpoint at most `CHECKPOINT` before its end, and comes back after a gap or boot."""
    kept: Checkpoint | None = None
    boot, since_boot, used = 0, 10.0, 0.0
    for rebooted, runs, gap, unrecorded, wall in lives:
        if rebooted:
            boot, since_boot = boot + 1, 1.0
        else:
            since_boot += gap
        time = OwnTime(kept, Reading(str(boot), since_boot, wall))
        assert time.at(since_boot) >= used - 1e-6 * max(1.0, used)
        since_boot += runs
        used += runs + unrecorded
        kept = time.checkpoint(Reading(str(boot), since_boot, wall))
        since_boot += unrecorded
