"""A node that is ahead of the database is believed, but not often and not whatever it says."""

from __future__ import annotations

from typing import Any

import pytest

from controller.installing import ReadBack
from controller.outdated import AGAIN, EPOCHS, SERIALS, Number, Outdated
from controller.steering.effects import InForce

GIVEN = Number(5, 100)


class Ground:
    """What surrounds it."""

    def __init__(self) -> None:
        self.now = 50.0
        self.alarms: list[str] = []
        self.outdated = Outdated(self.alarm, lambda: self.now)

    def alarm(self, name: str, **facts: Any) -> None:
        """Note an alarm."""
        self.alarms.append(name)

    def ahead(self, epoch: int, serial: int, *in_force: int, node: str = "ckms-1") -> Number | None:
        """Compare a node's word."""
        there = ReadBack("ab" * 16, epoch, serial, tuple(InForce(one, 1.0) for one in in_force))
        return self.outdated.ahead(node, there, GIVEN)


@pytest.mark.parametrize(("epoch", "serial", "in_force"), [(5, 100, (99, 3)), (4, 90, ()), (5, 7, (100,)), (0, 0, ())])
def test_a_node_that_knows_no_more_than_the_database_is_not_ahead(
    epoch: int, serial: int, in_force: tuple[int, ...]
) -> None:
    ground = Ground()
    assert ground.ahead(epoch, serial, *in_force) is None
    assert not ground.alarms


@pytest.mark.parametrize(
    ("epoch", "serial", "in_force", "expected"),
    [
        (6, 3, (), Number(6, 100)),
        (5, 101, (), Number(5, 101)),
        (4, 3, (2**33,), Number(5, 2**33)),
        (5 + EPOCHS, 100 + SERIALS, (), Number(5 + EPOCHS, 100 + SERIALS)),
    ],
)
def test_what_a_node_is_ahead_with_is_to_be_surpassed(
    epoch: int, serial: int, in_force: tuple[int, ...], expected: Number
) -> None:
    ground = Ground()
    ahead = ground.ahead(epoch, serial, *in_force)
    assert ahead == expected
    ground.outdated.surpassed("ckms-1", expected)
    assert ground.alarms == ["database-behind-nodes"]


@pytest.mark.parametrize(("epoch", "serial"), [(6 + EPOCHS, 1), (2**63, 1), (5, 101 + SERIALS), (5, 2**64 - 1)])
def test_what_no_backup_can_have_missed_is_not_believed(epoch: int, serial: int) -> None:
    ground = Ground()
    assert ground.ahead(epoch, serial) is None
    assert ground.alarms == ["node-not-believed"]


def test_each_node_is_believed_once_in_a_while() -> None:
    ground = Ground()
    first = ground.ahead(9, 1)
    assert first
    assert ground.ahead(9, 1), "until it was surpassed"
    ground.outdated.surpassed("ckms-1", first)
    assert ground.ahead(10, 1) is None
    assert ground.ahead(10, 1, node="ckms-2")
    ground.now += AGAIN
    assert ground.ahead(10, 1)
