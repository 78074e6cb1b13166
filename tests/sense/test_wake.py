import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonal.core.errors import InputError
from axonal.sense import checkpoint, clip
from axonal.sense.clip import Preroll
from axonal.sense.stream import events, sample_type
from axonal.sense.wake import FAILED, Cascade, Policy, Step, Wake

WINDOW = 100_000  # us

scores = st.lists(
    st.one_of(st.floats(-1, 1), st.just(math.nan), st.just(None)), min_size=1, max_size=60
)
seconds = st.sampled_from([0.0, 0.1, 0.25, 0.7, 1.5])
policies = st.builds(
    Policy,
    off_ratio=st.sampled_from([0.3, 0.8, 1.0]),
    windows=st.integers(1, 3),
    refractory=seconds,
    cooldown=seconds,
    update=st.sampled_from([0.0, 0.3, math.inf]),
    longest=st.sampled_from([0.0, 0.6, math.inf]),
    postroll=seconds,
    fail=st.sampled_from(["open", "closed"]),
)
gaps = st.lists(st.sampled_from([1, 1, 1, 2, 30]), min_size=60, max_size=60)


def cascade(policy: Policy, threshold: float = 0.5) -> Cascade:
    """Two steps that score the same number; None breaks the first."""
    first = Step("cheap", lambda x: x + 0.1, threshold)
    return Cascade([first, Step("dear", lambda x: x, lambda: threshold)], policy, "s")


def times(spacing: list[int]) -> np.ndarray:
    return np.cumsum(spacing) * WINDOW


def run(stage: Cascade, values: list, t: np.ndarray) -> list[Wake]:
    return [wake for x, at in zip(values, t, strict=False) for wake in stage.step(int(at), x, 5, 3)]


@given(scores, policies, gaps)
def test_events_begin_once_and_end_once_in_order(values, policy, spacing):
    stage, t = cascade(policy), times(spacing)
    wakes = run(stage, values, t)
    wakes += stage.finish(int(t[len(values) - 1]))
    assert not stage.awake and stage.finish(int(t[-1])) == []
    ends_at, woke_at = -math.inf, -math.inf
    for wake in wakes:
        assert wake.t_start_us <= wake.t_wake_us <= wake.t_end_us
        if wake.type == "new":
            opened, n, reached = wake, 0, wake.t_end_us
            assert wake.t_start_us >= ends_at + policy.refractory * 1e6
            assert wake.t_start_us >= woke_at + policy.cooldown * 1e6
            assert wake.reason == FAILED or wake.score >= wake.threshold == 0.5
            assert wake.reason != FAILED or policy.fail == "open"
            assert (wake.n_events_in, wake.n_events_out) == (5 * policy.windows, 3 * policy.windows)
        n += 1
        assert (wake.id, wake.n, wake.t_start_us) == (opened.id, n - 1, opened.t_start_us)
        assert wake.t_end_us >= reached
        reached = wake.t_end_us
        if wake.type == "end":
            ends_at, woke_at = wake.t_end_us, wake.t_wake_us
            assert ends_at - woke_at <= policy.longest * 1e6
    kinds = "".join(w.type[0] for w in wakes)
    assert kinds.replace("u", "") == "ne" * kinds.count("n")
    assert len({w.id for w in wakes}) == kinds.count("n")
    messages = [json.dumps(w.cloudevent(), allow_nan=False) for w in wakes]
    assert len({json.loads(m)["id"] for m in messages}) == len(wakes)


@given(scores, policies, gaps, st.integers(0, 59))
def test_restored_goes_on_as_the_first_would(tmp_path_factory, values, policy, spacing, cut):
    t, cut = times(spacing), min(cut, len(values))
    straight, first, second = cascade(policy), cascade(policy), cascade(policy)
    expected = run(straight, values, t)
    before = run(first, values[:cut], t)
    path = tmp_path_factory.getbasetemp() / "cascade"
    checkpoint.write(path, first.state())
    second.restore(checkpoint.read(path))
    # repr: a score of NaN equals itself
    assert repr(before + run(second, values[cut:], t[cut:])) == repr(expected)
    assert repr(second.state()) == repr(straight.state())


@given(st.lists(st.floats(0.41, 1), min_size=1, max_size=40))
def test_flapping_scores_do_not_flap_wakes(values):
    stage = cascade(Policy(off_ratio=0.8, postroll=0.0, update=math.inf, longest=math.inf))
    wakes = run(stage, values, times([1] * 60))
    assert [w.type for w in wakes] == ["new"] * any(x >= 0.5 for x in values)


def test_a_later_step_is_called_only_when_the_earlier_has_reached():
    stage = cascade(Policy(cooldown=1.0))
    wakes = run(stage, [0.1, 0.45, 0.6, 0.1, -1.0, 0.9], times([1, 1, 1, 1, 20, 1]))
    assert [w.type for w in wakes] == ["new", "end", "new"]
    assert stage.calls.tolist() == [6, 3]
    assert wakes[1].reason == "quiet" and wakes[1].t_end_us == wakes[0].t_end_us + 1_000_000


def test_while_no_wake_may_come_only_the_first_step_is_called():
    stage = cascade(Policy(refractory=10.0, longest=0.1))
    run(stage, [0.9] * 8, times([1] * 8))
    assert stage.calls.tolist() == [8, 2]


@pytest.mark.parametrize("fail", ["open", "closed"])
def test_a_broken_detector_wakes_or_is_counted(fail, caplog):
    stage = cascade(Policy(fail=fail, windows=2))
    wakes = run(stage, [None, math.nan, 0.9, None], times([1] * 4))
    assert [w.type for w in wakes] == (["new"] if fail == "open" else [])
    assert stage.failures == 3 and "cheap failed (1 failures" in caplog.text
    if wakes:
        assert wakes[0].reason == FAILED and wakes[0].cloudevent()["data"]["score"] is None
    never = cascade(Policy(), math.inf)  # a threshold that is not calibrated yet
    assert run(never, [1.0] * 5, times([1] * 5)) == [] and never.failures == 0


def test_ids_follow_from_content():
    def ids(name="s", fingerprint="", **options):
        step = Step("one", lambda x: x, 0.5)
        stage = Cascade([step], Policy(**options), name, fingerprint)
        return [w.id for w in run(stage, [0.9, 0.0, 0.9], times([1, 30, 30])) if w.type == "new"]

    assert ids() == ids() and len(set(ids())) == 2
    everything = {*ids(), *ids("t"), *ids(fingerprint="f"), *ids(windows=1, update=9.0)}
    assert len(everything) == 8


def test_a_message_is_a_cloudevent():
    wake = run(cascade(Policy()), [0.75], np.array([1_500_000]))[0]
    event = wake.cloudevent()
    assert event["specversion"] == "1.0" and event["type"] == "dev.axonal.wake.new"
    assert event["id"] == f"{wake.id}/new/0" and event["source"] == "s"
    assert event["time"] == "1970-01-01T00:00:01.500000Z"
    assert event["datacontenttype"] == "application/json"
    assert event["data"]["score"] == 0.75 and event["data"]["n_events_in"] == 5
    late = run(cascade(Policy()), [0.75], np.array([1 << 61]))[0]
    assert "time" not in late.cloudevent()


def test_nonsense_is_refused():
    stage = cascade(Policy())
    stage.step(5, 0.0)
    with pytest.raises(InputError, match="at 5 us after one at 5"):
        stage.step(5, 0.0)
    with pytest.raises(InputError, match="Cascade: the state's calls"):
        Cascade([Step("a", float, 0.5)], Policy()).restore(stage.state())
    with pytest.raises(InputError, match="needs a step"):
        Cascade([], Policy())
    bad = [{"off_ratio": 0.0}, {"windows": 0}, {"fail": "maybe"}, {"update": math.nan}]
    for options in [*bad, {"cooldown": math.inf}, {"postroll": -1.0}]:
        with pytest.raises(InputError):
            Policy(**options)
    for wrong in [(-1.0, 5), (math.nan, 5), (1.0, 0)]:
        with pytest.raises(InputError):
            Preroll(*wrong)


@given(
    st.lists(st.lists(st.integers(0, 400), max_size=30), max_size=30),
    st.integers(1, 60),
    st.integers(0, 300),
    st.integers(0, 29),
    st.booleans(),
)
def test_preroll_is_the_last_rows_of_a_list(steps, limit, span, cut, many):
    chunk = clip.CHUNK if many else 8
    ring = Preroll(span / 1e6, limit)
    everything, last = [], 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clip, "CHUNK", chunk)
        for k, step in enumerate(steps):
            t = last + np.cumsum(np.array(step, np.int64))
            ring.add(events(t, t % 7, t % 5, t % 2))
            if k == cut:
                state, ring = ring.state(), Preroll(span / 1e6, limit)
                ring.restore(state)
            everything += t.tolist()
            for at in (last, *t.tolist()):  # windows that this packet closes
                expected = [x for x in everything[-limit:] if at - span <= x <= at]
                rows = ring.clip(at)
                assert ([] if rows is None else rows["t"].tolist()) == expected
            assert sum(map(len, ring.chunks)) == ring.size < limit + max(limit, chunk)
            last = int(t[-1]) if len(t) else last


def test_preroll_begins_anew_where_time_runs_back_or_the_type_changes():
    ring = Preroll(10.0)
    assert ring.clip(5) is None
    ring.add(events([5, 6], [1, 2], [3, 4], [0, 1]))
    ring.add(events([2, 3], [1, 2], [3, 4], [0, 1]))
    assert ring.clip(9)["t"].tolist() == [2, 3]
    packet = np.zeros(3, sample_type(2))
    packet["t"] = [4, 5, 6]
    ring.add(packet)
    assert ring.clip(9).dtype == sample_type(2) and len(ring.clip(9)) == 3
    packet["t"] = 0
    assert ring.clip(9)["t"].tolist() == [4, 5, 6]


def test_another_shape_ends_the_run():
    def score(x):
        raise InputError("a vector of 3 numbers each time")

    cascade = Cascade([Step("rate", score, 0.5)], Policy(), "yard")
    with pytest.raises(InputError, match="3 numbers"):
        cascade.step(10, np.zeros(2))
