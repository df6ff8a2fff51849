"""The first path that works is taken; a failed one is avoided for a while and comes back without flapping."""

from __future__ import annotations

from services.ckms.choice import TRIAL, PathChoice
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


def test_a_trial_that_nobody_hears_of_again_is_repeated() -> None:
    choice = PathChoice(probation=5.0)
    choice.failed(FIRST, 0.0, 0.0)

    assert choice.choose(PATHS, 1, always, 5.0) is FIRST
    assert choice.choose(PATHS, 1, always, 5.0 + TRIAL - 1) is DETOUR
    assert choice.choose(PATHS, 1, always, 5.0 + TRIAL) is FIRST


def test_a_better_path_is_taken_at_once_and_what_failed_before_stays_on_probation() -> None:
    choice = PathChoice()
    choice.failed(FIRST, 0.0, 1.0)
    better = Path("ckms-14", 0, Hop("ckms-2", PathLabel("c" * 16)), serial=7)
    choice.forget([better, FIRST])

    assert choice.choose((better, FIRST), 1, always, 1.0) is better
    assert choice.on_probation(FIRST)


def share(number: int, neighbour: str, *, rank: int, group: str = "g", serial: int = 1, shares: int = 2) -> Path:
    first = Hop(neighbour, PathLabel(f"{rank:016x}"))
    return Path("ckms-14", rank, first, "split", group=group, share=number, shares=shares, serial=serial)


SHARES = (
    share(0, "ckms-2", rank=0, serial=1),
    share(1, "ckms-16", rank=1, serial=2),
    share(0, "ckms-3", rank=2, serial=3),
)


def test_every_share_goes_its_own_way() -> None:
    assert PathChoice().choose_shares(SHARES, 64, always, 0.0) == SHARES[:2]


def test_a_share_takes_its_backup_and_never_another_ones_way() -> None:
    choice = PathChoice()
    choice.failed(SHARES[0], 0.0, 1.0)

    assert choice.choose_shares(SHARES, 64, always, 1.0) == (SHARES[2], SHARES[1])
    assert choice.choose_shares(SHARES, 64, lambda neighbour, _: neighbour != "ckms-16", 1.0) is None


def test_fewer_shares_than_there_are_or_over_one_neighbour_are_refused() -> None:
    choice = PathChoice()
    three = [share(number, f"ckms-{number + 2}", rank=number, shares=3) for number in range(3)]
    merged = [SHARES[0], share(1, "ckms-2", rank=1)]
    mixed = [SHARES[0], share(1, "ckms-16", rank=1, group="h")]
    unlike = [SHARES[0], share(1, "ckms-16", rank=1, shares=3)]

    assert choice.choose_shares(three, 64, always, 0.0) == tuple(three)
    for paths in ([], three[:2], merged, mixed, unlike, [FIRST, DETOUR], SHARES[:1]):
        assert choice.choose_shares(paths, 64, always, 0.0) is None


def test_the_group_said_last_is_taken_and_the_one_before_while_that_is_not_ready() -> None:
    later = (share(0, "ckms-4", rank=3, group="h", serial=5), share(1, "ckms-5", rank=4, group="h", serial=6))
    paths = SHARES + later

    assert PathChoice().choose_shares(paths, 64, always, 0.0) == later
    assert PathChoice().choose_shares(paths, 64, lambda neighbour, _: neighbour != "ckms-5", 0.0) == SHARES[:2]


def test_a_refused_split_leaves_no_path_on_trial() -> None:
    choice = PathChoice(probation=5.0)
    choice.failed(SHARES[0], 0.0, 0.0)
    pair = SHARES[:2]

    assert choice.choose_shares(pair, 64, lambda neighbour, _: neighbour == "ckms-2", 5.0) is None
    assert choice.choose_shares(SHARES, 64, always, 5.0) == pair
    assert choice.choose_shares(SHARES, 64, always, 5.0) == (SHARES[2], SHARES[1])
