"""The first path that works is taken; a failed one is avoided for a while and comes back without flapping."""

from __future__ import annotations

from services.ckms.choice import PathChoice
from services.ckms.forwarding import Hop, Path, PathLabel

FIRST = Path("ckms-14", 0, Hop("ckms-2", PathLabel("a" * 16)))
DETOUR = Path("ckms-14", 1, Hop("ckms-16", PathLabel("b" * 16)))
PATHS = (FIRST, DETOUR)


def always(_neighbour: str, _length: int) -> bool:
    return True


def never(_neighbour: str, _length: int) -> bool:
    return False


def test_rank_0_is_taken_while_it_works() -> None:
    choice = PathChoice()

    assert [choice.choose(PATHS, 512, always, now) for now in (0.0, 1.0)] == [FIRST, FIRST]


def test_the_detour_is_taken_while_the_first_link_is_not_ready() -> None:
    choice = PathChoice()

    assert choice.choose(PATHS, 512, lambda neighbour, _: neighbour != "ckms-2", 0.0) is DETOUR
    assert choice.choose(PATHS, 512, always, 0.0) is FIRST
    assert choice.choose(PATHS, 512, never, 0.0) is None


def test_readiness_is_asked_for_the_length() -> None:
    asked: list[tuple[str, int]] = []

    def ready(neighbour: str, length: int) -> bool:
        asked.append((neighbour, length))
        return length <= 100

    assert PathChoice().choose(PATHS, 512, ready, 0.0) is None
    assert asked == [("ckms-2", 512), ("ckms-16", 512)]


def test_a_failed_path_is_avoided_until_its_probation_has_passed() -> None:
    choice = PathChoice(probation=5.0)
    choice.failed(FIRST, 0.0, 1.0)

    assert choice.on_probation(FIRST)
    assert choice.choose(PATHS, 1, always, 5.9) is DETOUR
    assert choice.choose(PATHS, 1, always, 6.0) is FIRST


def test_one_submission_tries_the_path_and_its_success_brings_the_others_back() -> None:
    choice = PathChoice(probation=5.0)
    choice.failed(FIRST, 0.0, 1.0)

    assert choice.choose(PATHS, 1, always, 7.0) is FIRST
    assert [choice.choose(PATHS, 1, always, 7.0) for _ in range(3)] == [DETOUR] * 3
    choice.worked(FIRST, 7.0)
    assert choice.choose(PATHS, 1, always, 7.1) is FIRST
    assert choice.choose(PATHS, 1, always, 7.1) is FIRST


def test_each_failed_trial_doubles_the_probation_up_to_the_longest() -> None:
    choice = PathChoice(probation=5.0, longest=15.0)
    choice.failed(FIRST, 0.0, 0.0)
    now = 0.0
    waits = []
    for _ in range(4):
        began = now
        while choice.choose(PATHS, 1, always, now) is not FIRST:
            now += 0.5
        waits.append(now - began)
        choice.failed(FIRST, now, now)

    assert waits == [5.0, 10.0, 15.0, 15.0]


def test_what_was_under_way_before_the_failure_changes_nothing() -> None:
    choice = PathChoice(probation=5.0)
    choice.failed(FIRST, 9.0, 10.0)
    choice.failed(FIRST, 9.5, 14.0)
    choice.worked(FIRST, 9.9)

    assert choice.choose(PATHS, 1, always, 14.9) is DETOUR
    assert choice.choose(PATHS, 1, always, 15.0) is FIRST


def test_when_all_failed_the_one_that_failed_longest_ago_is_taken() -> None:
    choice = PathChoice()
    choice.failed(FIRST, 0.0, 1.0)
    choice.failed(DETOUR, 0.0, 2.0)

    assert choice.choose(PATHS, 1, always, 2.5) is FIRST


def test_paths_that_are_gone_are_forgotten() -> None:
    choice = PathChoice()
    choice.failed(FIRST, 0.0, 1.0)
    choice.forget([DETOUR])

    assert not choice.on_probation(FIRST)
