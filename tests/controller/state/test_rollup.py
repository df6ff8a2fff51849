"""An hour is what its minutes say, in whatever order and portions they were put together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.state.rollup import DAY, HOUR, MINUTE, Key, Recorder, Sample, Summary, roll, starts

SAMPLES = st.builds(
    Sample,
    link=st.sampled_from(["8-9", "9-10"]),
    sender=st.sampled_from(["a", "b"]),
    up=st.booleans(),
    rate=st.integers(0, 10_000).map(float),
    pool=st.integers(0, 10**9).map(float),
    latency_s=st.sampled_from([0.0, 0.25, 0.5]),
    qber=st.one_of(st.none(), st.sampled_from([0.0, 0.25, 0.5])),
)
TIMED = st.lists(st.tuples(st.integers(0, 3 * DAY), SAMPLES), max_size=60)


def plain(timed: list[tuple[int, Sample]], level: int) -> dict[Key, list[Sample]]:
    found: dict[Key, list[Sample]] = {}
    for at, sample in timed:
        found.setdefault(Key(sample.link, sample.sender, at - at % level), []).append(sample)
    return found


def same(rolled: dict[Key, Summary], expected: dict[Key, list[Sample]]) -> None:
    assert rolled.keys() == expected.keys()
    for key, group in expected.items():
        one = rolled[key]
        rates, pools = [sample.rate for sample in group], [sample.pool for sample in group]
        ratios = [sample.qber for sample in group if sample.qber is not None]
        assert one.samples == len(group)
        assert one.availability == sum(sample.up for sample in group) / len(group)
        assert (one.rate, one.rate_least, one.rate_most) == (sum(rates) / len(rates), min(rates), max(rates))
        assert (one.pool, one.pool_least, one.pool_most) == (sum(pools) / len(pools), min(pools), max(pools))
        assert one.latency_most == max(sample.latency_s for sample in group)
        assert one.qber == (sum(ratios) / len(ratios) if ratios else None)
        assert one.qber_most == max(ratios, default=0.0)


@given(TIMED, st.randoms())
def test_days_of_hours_of_minutes_are_days_of_samples(timed: list[tuple[int, Sample]], random: object) -> None:
    single = [(Key(sample.link, sample.sender, at), Summary.of(sample)) for at, sample in timed]
    random.shuffle(single)  # type: ignore[attr-defined]
    minutes = roll(single, MINUTE)
    hours = roll(minutes.items(), HOUR)
    days = roll(hours.items(), DAY)
    for level, rolled in ((MINUTE, minutes), (HOUR, hours), (DAY, days)):
        same(rolled, plain(timed, level))


@given(
    TIMED.map(lambda timed: sorted(timed, key=lambda one: one[0])),
    st.lists(st.integers(0, 4), min_size=60, max_size=60),
)
def test_what_was_written_in_portions_is_all_that_was_taken(
    timed: list[tuple[int, Sample]], portions: list[int]
) -> None:
    """Written at any moment and again: rows are replaced, and in the end each minute is whole."""
    table: dict[Key, Summary] = {}
    recorder = Recorder(0.0)
    for (at, sample), most in zip(timed, portions, strict=False):
        recorder.add([sample], at)
        portion = recorder.portion(most)
        table |= portion
        if most % 2:  # else the outcome was unknown
            recorder.written(portion)
        assert recorder.settled <= starts(at, MINUTE)
        before = [one for one in timed if one[0] < recorder.settled]
        same({key: row for key, row in table.items() if key.start < recorder.settled}, plain(before, MINUTE))
    table |= recorder.portion(1_000)
    same(table, plain(timed, MINUTE))


def test_a_sample_taken_while_its_minute_was_being_written_is_written_later() -> None:
    recorder = Recorder(0.0)
    sample = Sample("8-9", "a", True, 1.0, 2.0, 0.0, None)
    recorder.add([sample], 1)
    portion = recorder.portion(10)
    recorder.add([sample], 2)
    recorder.written(portion)
    assert recorder.settled == 0
    (again,) = recorder.portion(10).values()
    assert again.samples == 2


def test_a_clock_that_steps_back_changes_no_minute_that_is_settled() -> None:
    recorder = Recorder(7_200.0)
    sample = Sample("8-9", "a", True, 1.0, 2.0, 0.0, None)
    recorder.add([sample], 100)
    assert [key.start for key in recorder.portion(10)] == [7_200]
    recorder.add([sample], 7_300)
    recorder.add([sample], 7_200)
    assert [key.start for key in recorder.portion(10)] == [7_200, 7_260]
