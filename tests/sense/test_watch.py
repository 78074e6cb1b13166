import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonal.core.errors import FileError, InputError
from axonal.sense import checkpoint
from axonal.sense.delivery.outbox import Outbox
from axonal.sense.delivery.sinks import Callback
from axonal.sense.detectors import Budget, Predictor
from axonal.sense.features import Window, Windows
from axonal.sense.filters import InhibitedTrace, LIFTrace
from axonal.sense.stream import events
from axonal.sense.wake import Policy
from axonal.sense.watch import POINTS, STATE_FILE, Timeline, Trigger, Watch

SIDE = 16


class Listed:
    """A source of packets in a list; its position is a number of packets."""

    width = height = SIDE
    position = 0

    def __init__(self, packets, dropped=0):
        self.packets, self.dropped = packets, dropped

    def __iter__(self):
        for packet in self.packets[self.position :]:
            self.position += 1
            yield packet

    def seek(self, position):
        self.position = position

    def close(self):
        pass


class Level:
    """A detector by the largest feature, which counts the windows it learned."""

    def __init__(self):
        self.learned = 0

    def score_one(self, x):
        return min(float(x.max()) / 40, 1.0)

    def learn_one(self, x):
        self.learned += 1

    def state(self):
        return {"learned": self.learned}

    def restore(self, state):
        self.learned = int(state["learned"])


class Broken(Level):
    def score_one(self, x):
        raise ZeroDivisionError("no more sense")


def stream(seed: int = 0, seconds: int = 20) -> np.ndarray:
    """Noise, and in every fifth second a burst in one corner."""
    draw = np.random.default_rng(seed)
    t = np.sort(draw.integers(0, seconds * 1_000_000, 40 * seconds))
    x, y = draw.integers(0, SIDE, len(t)), draw.integers(0, SIDE, len(t))
    bursts = np.concatenate(
        [np.sort(draw.integers(k * 1_000_000, k * 1_000_000 + 400_000, 900)) for k in (5, 10, 15)]
    )
    at = np.argsort(both := np.concatenate([t, bursts]), kind="stable")
    corner = draw.integers(0, 4, (2, len(bursts)))
    place = [np.concatenate(pair)[at] for pair in zip((x, y), corner, strict=True)]
    return events(both[at], *place, both[at] % 2)


def assemble(folder, packets, detector=None, sink=None, **options) -> Watch:
    box = None if sink is None else Outbox(folder / "outbox", {"list": Callback(sink)})
    return Watch(
        packets if isinstance(packets, Listed) else Listed(packets),
        [LIFTrace(SIDE, SIDE, threshold=2.0)],
        Windows(0.1, SIDE, SIDE, 2),
        [Trigger("level", detector or Level(), 0.5)],
        Policy(postroll=0.3, preroll=0.5, **options.pop("policy", {})),
        "yard",
        folder,
        box,
        **options,
    )


def messages(watch: Watch) -> list[tuple]:
    return [(w.type, w.id, w.t_start_us, w.t_end_us, w.n_events_in, w.score) for w in watch.wakes]


def test_bursts_wake_and_noise_does_not(tmp_path):
    watch = assemble(tmp_path, [stream()])
    tally = watch.run()
    starts = [w.t_start_us for w in watch.wakes if w.type == "new"]
    assert [round(t / 1e6) for t in starts] == [5, 10, 15]
    assert [w.type for w in watch.wakes] == ["new", "end"] * 3
    assert (tally.events_in, tally.wakes) == (len(stream()), 3)
    assert 0 < tally.events_out < tally.events_in and 0 < tally.duty < 0.15
    assert watch.triggers[0].detector.learned == tally.windows == watch.cascade.calls[0]


@given(st.lists(st.integers(0, 3500), max_size=6))
def test_chunks_don_t_matter(tmp_path_factory, cuts):
    folder = tmp_path_factory.mktemp("watch")
    straight, parts = (
        assemble(folder / "a", [stream()]),
        assemble(folder / "b", np.split(stream(), sorted(cuts))),
    )
    assert vars(straight.run()) == vars(parts.run())
    assert messages(straight) == messages(parts)


@given(st.integers(0, 19), st.integers(0, 19))
def test_a_killed_watch_goes_on_from_its_last_state(tmp_path_factory, saved, killed):
    folder, packets = tmp_path_factory.mktemp("watch"), np.array_split(stream(), 20)
    sent, calm = [], []
    straight = assemble(folder / "a", packets, sink=lambda e, c: calm.append(e["id"]))
    straight.run()
    straight.outbox.close()
    first = assemble(folder / "b", packets, sink=lambda e, c: sent.append(e["id"]), every=1e9)
    for i, packet in enumerate(first.source):
        first.push(packet)
        if i == saved:
            first.save()
        if i == max(saved, killed):
            break
    first.outbox.close()
    again = assemble(folder / "b", packets, sink=lambda e, c: sent.append(e["id"]), every=1e9)
    again.run()
    again.outbox.close()
    assert vars(again.tally) == vars(straight.tally)
    assert sent == calm and len(set(calm)) == len(calm)


def test_a_source_that_cuts_packets_up_goes_on_within_them(tmp_path):
    packet = stream()

    class Cut(Listed):
        def __iter__(self):
            pieces = np.array_split(packet, 10)
            for i, piece in enumerate(pieces):
                self.position = int(i == 9)
                yield piece

    straight = assemble(tmp_path / "a", Cut([]))
    first = assemble(tmp_path / "b", Cut([]), every=1e9)
    straight.run()
    for i, piece in enumerate(first.source):
        first.push(piece)
        if i == 4:
            first.save()
            break
    again = assemble(tmp_path / "b", Cut([]))
    again.run()
    assert vars(again.tally) == vars(straight.tally)


def test_drops_add_up_over_runs(tmp_path):
    assemble(tmp_path, Listed([stream()], dropped=3)).run()
    second = assemble(tmp_path, Listed([stream()], dropped=4))
    second.resume()
    second.source.position = 0
    second.push(stream()[:0])
    assert second.tally.dropped == 7


@pytest.mark.parametrize(("fail", "wakes"), [("open", 1), ("closed", 0)])
def test_a_broken_detector_wakes_or_not_as_chosen(tmp_path, fail, wakes):
    watch = assemble(tmp_path, [stream()], Broken(), policy={"fail": fail, "longest": 3600.0})
    tally = watch.run()
    assert tally.wakes == wakes and tally.failures == tally.windows
    assert watch.triggers[0].detector.learned == 0


def test_calm_detectors_don_t_learn_while_awake(tmp_path):
    watch = assemble(tmp_path, [stream()], learn="calm")
    tally = watch.run()
    assert watch.triggers[0].detector.learned == tally.windows - tally.awake


def test_a_state_of_another_watch_is_refused(tmp_path):
    assemble(tmp_path, [stream()], fingerprint="a").run()
    with pytest.raises(InputError, match=r"can't go on from .*begin anew with --fresh"):
        assemble(tmp_path, [stream()], fingerprint="b").run()
    (tmp_path / STATE_FILE).write_bytes(b"damaged")
    with pytest.raises(FileError, match="remove it to begin anew"):
        assemble(tmp_path, [stream()]).run()


def test_a_state_of_version_1_goes_on(tmp_path):
    """The fixture was written by that version after 11 of 20 packets, while a wake was open."""

    def watch(folder):
        budget = Budget(1800.0, memory=0.01)
        return Watch(
            Listed(np.array_split(stream(), 20)),
            [InhibitedTrace(SIDE, SIDE)],
            Windows(0.1, SIDE, SIDE, 2),
            [Trigger("predictor", Predictor(neurons=8, rest=1.0), budget)],
            Policy(postroll=0.3, preroll=0.1),
            "yard",
            folder,
        )

    content = gzip.decompress(Path(__file__).with_name("version-1.safetensors.gz").read_bytes())
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / STATE_FILE).write_bytes(content)
    straight, again = watch(tmp_path / "straight"), watch(tmp_path / "again")
    again.resume()
    assert again.cascade.awake and again.position == 11 and again.tally.events_out == 1525
    assert vars(again.run()) == vars(straight.run())
    expected = messages(straight)[1:]  # but the first, which was sent before
    assert [m[:-1] for m in messages(again)] == [m[:-1] for m in expected] != []
    scores = [m[-1] for m in expected]
    np.testing.assert_allclose([m[-1] for m in messages(again)], scores, rtol=1e-9)


def test_a_calibration_begins_another_stream(tmp_path):
    first = assemble(tmp_path, [stream()])
    first.run()
    second = assemble(tmp_path / "b", [stream(1)])
    second.restore(first.calibration())
    assert second.triggers[0].detector.learned == first.tally.windows
    assert second.tally.windows == 0 and second.source.position == 0


@given(st.integers(2, 3 * POINTS))
def test_a_timeline_has_the_greatest_scores_and_all_counts(count):
    line = Timeline()
    draw = np.random.default_rng(count)
    scores, counts = draw.random(count), draw.integers(0, 9, count)
    for k in range(count):
        window = Window(k * 100, (k + 1) * 100, np.zeros(1), int(counts[k]), 1)
        line.add(window, float(scores[k]), np.inf, bool(scores[k] > 0.9))
    spans = line.spans[: line.count]
    assert line.count <= POINTS and spans[:, 1].sum() == counts.sum() and spans[:, 2].sum() == count
    assert spans[:, 3].max() == scores.max() and not spans[:, 4].any()
    assert (np.diff(spans[:, 0]) == 100 * line.width).all()
    again = Timeline()
    again.restore(line.state())
    np.testing.assert_array_equal(again.spans, line.spans)


def test_a_full_disk_is_logged_and_does_not_end_a_watch(tmp_path, monkeypatch, caplog):
    straight, write = assemble(tmp_path / "a", np.array_split(stream(), 20)), checkpoint.write
    straight.run()
    failed = []

    def full(path, state):
        if len(failed) < 5:
            failed.append(path)
            raise FileError(f"can't write {path}: No space left on device")
        write(path, state)

    monkeypatch.setattr(checkpoint, "write", full)
    watch = assemble(tmp_path / "b", np.array_split(stream(), 20), every=1.0)
    assert vars(watch.run()) == vars(straight.tally) and messages(watch) == messages(straight)
    assert caplog.text.count("No space left") == 5 and (tmp_path / "b" / STATE_FILE).exists()


def test_sinks_that_publish_counts_get_them(tmp_path):
    class Publisher(Callback):
        def stats(self, values):
            counts.append(dict(values))

    counts = []
    watch = assemble(tmp_path, np.array_split(stream(), 20), every=1.0)
    watch.outbox = Outbox(tmp_path / "outbox", {"publisher": Publisher(lambda event, clip: None)})
    tally = watch.run()
    watch.outbox.close()
    assert len(counts) > 3 and counts[-1] == vars(tally)
