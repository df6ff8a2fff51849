"""Which moments of a network's services belong to which stage of a key's way."""

from __future__ import annotations

import re

from bench.timeline import STAGES, Moment, Share, covered, cut, medians, picture

WAY: tuple[tuple[int, str, str], ...] = (
    (10, "akms-a", "access.request"),
    (20, "akms-b", "peer.request"),
    (30, "ckms-b", "carrier.submit"),
    (60, "akms-a", "carrier.deliver"),
    (70, "akms-b", "peer.confirm"),
    (75, "ukms-b", "delivery.push"),
    (80, "akms-a", "peer.transfer"),
    (90, "ukms-a", "delivery.push"),
)


def moments(start: int, *more: Moment) -> list[Moment]:
    heard = [(start + at, service, "in", operation) for at, service, operation in WAY]
    return sorted([*heard, *more])


def test_each_stage_ends_where_its_message_is_heard() -> None:
    stages = cut(Share(0, 100, 120), moments(0))
    assert stages is not None
    assert [whole for whole, _ in stages] == [10, 10, 10, 30, 10, 10, 10, 10, 20]
    assert sum(whole for whole, _ in stages) == 120


def test_commits_count_only_where_they_lie_on_the_way() -> None:
    on_the_way = (81, "akms-a", "commit", "5")
    beside = (82, "ukms-b", "commit", "5")
    stages = cut(Share(0, 100, 120), moments(0, on_the_way, beside))
    assert stages is not None
    assert [commit for _, commit in stages] == [0, 0, 0, 0, 0, 0, 5, 0, 0]


def test_a_key_whose_messages_were_not_all_heard_is_left_out() -> None:
    lacking = [moment for moment in moments(1000) if moment[3] != "peer.confirm"]
    assert cut(Share(1000, 1100, 1120), lacking) is None
    found, samples = medians([Share(0, 100, 120), Share(1000, 1100, 1120)], moments(0) + lacking)
    assert samples == 1
    assert len(found) == len(STAGES)


def test_overlapping_commits_are_not_counted_twice() -> None:
    assert covered([(0, 10), (5, 12), (30, 50)], 2, 40) == 20
    assert covered([(50, 60)], 0, 40) == 0


def test_the_picture_shows_every_stage_and_the_sum() -> None:
    drawn = picture([(1.0, 0.5)] * len(STAGES), 7)
    assert "medians of 7 keys, 9.0 ms in all" in drawn
    assert len(re.findall(r'fill="#7fb2e5"', drawn)) == len(STAGES)
