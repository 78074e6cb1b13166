"""The wire's form, and live sources on real sockets of this machine."""

import base64
import hashlib
import json
import os
import socket
import threading
import time

import numpy as np
import paho.mqtt.client as mqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axonal.core.errors import FileError, InputError
from axonal.sense.sources import Mqtt, Stdin, Tcp, Udp, encode, open_source, send
from axonal.sense.sources.network import LAG_US, Live
from axonal.sense.sources.wire import HEADER, decode
from axonal.sense.stream import events, sample_type
from benchmarks.harness.processes import Broker


def drawn(count, seed=0, first=0, side=100):
    rng = np.random.default_rng(seed)
    t = first + np.cumsum(rng.integers(0, 100, count))
    x, y, p = rng.integers(0, side, count), rng.integers(0, side, count), rng.integers(0, 2, count)
    return events(t, x, y, p)


def sample_packet(values, t=None):
    packet = np.empty(len(values), sample_type(np.shape(values)[1]))
    packet["value"], packet["t"] = values, np.arange(len(values)) if t is None else t
    return packet


class Unconnected(Live):
    """A source without a peer."""

    def _poll(self):
        return None

    def _release(self):
        pass


def camera(**options):
    return Unconnected(width=100, height=100, **options)


def rows_of(live, frames):
    """The rows of frames, as datagrams."""
    return np.concatenate([np.empty(0, live._dtype), *map(live.message, frames)])


def until(source, count, packets=None):
    """Rows of a live source, until there are so many."""
    packets = [] if packets is None else packets
    deadline = time.monotonic() + 5
    for packet in source:
        packets.append(packet)
        if sum(map(len, packets)) >= count:
            break
        assert time.monotonic() < deadline, f"{sum(map(len, packets))} of {count} rows came"
    return np.concatenate(packets)


@given(st.integers(0, 300), st.integers(24, 2000), st.integers(-(2**40), 2**40))
def test_frames_carry_packets_exactly(count, size, first):
    packet = drawn(count, count, first)
    frames = encode(packet, 7, 3, size)
    decoded = [decode(frame) for frame in frames]
    assert all(session == 3 for session, *_ in decoded) and max(map(len, frames), default=0) <= max(
        size, 33
    )
    np.testing.assert_array_equal(np.concatenate([packet[:0], *(p for *_, p in decoded)]), packet)
    assert [total for _, total, _ in decoded] == [
        7 + sum(len(p) for *_, p in decoded[:i]) for i in range(len(decoded))
    ]


def test_the_wire_is_as_documented():
    frame = encode(events([1000, 1007], [1, 2], [3, 4], [0, 1]), 5, 9)[0]
    assert frame == bytes.fromhex(
        "415801 00 0200 0900 0500000000000000 e803000000000000"
        "00000000 0100 0300 00  07000000 0200 0400 01"
    )
    frame = encode(sample_packet([[1.0, -2.0]]), 0, 0)[0]
    assert frame[3] == 2 and frame[24:] == bytes.fromhex("00000000 0000803f 000000c0")


def test_a_gap_longer_than_a_row_can_tell_makes_a_new_frame():
    packet = events([0, 2**32 - 1, 2**32, 2**40], [0] * 4, [0] * 4, [0] * 4)
    assert [len(decode(f)[2]) for f in encode(packet)] == [2, 1, 1]


@given(st.lists(st.integers(0, 9), max_size=30))
def test_what_is_missing_is_named(order):
    """Of frames lost, repeated and reordered, rows delivered and dropped are all there were."""
    frames = encode(drawn(100), size=24 + 90)  # ten rows each
    live = camera()
    live.seek(0)
    rows = rows_of(live, [frames[i] for i in order])
    assert (np.diff(rows["t"]) >= 0).all() and live.refused == 0
    total = 10 * (max(order) + 1) if order else 0
    assert len(rows) + live.dropped == total == live.position


def test_a_restarted_receiver_counts_what_it_missed():
    frames = encode(drawn(100), size=24 + 90)
    first = camera()
    rows_of(first, frames[2:4])  # joined late: nothing is known to be missed
    assert (first.dropped, first.position) == (0, 40)
    second = camera()
    second.seek(first.position)
    assert len(rows_of(second, frames[6:])) == 40 and second.dropped == 20


def test_a_restarted_sender_goes_on_in_time():
    live = camera()
    old = encode(drawn(20, first=10**9), session=1, size=24 + 90)
    new = encode(drawn(30), session=2, size=24 + 90)  # its clock begins at zero
    rows = rows_of(live, [*old, new[1], old[1], *new])
    assert (np.diff(rows["t"]) >= 0).all()
    assert len(rows) == 20 + 20 and live.dropped == 10 and live.position == 30
    away = camera()
    away.seek(1000)  # its sender began anew while nobody listened
    assert len(rows_of(away, new[2:])) == 10 and away.dropped == 20


def test_frames_that_don_t_fit_are_refused():
    live = camera()
    good = drawn(5, first=1000)
    backwards, outside, odd = drawn(5, first=10), good.copy(), good.copy()
    outside["x"][2], odd["p"][1] = 100, 2
    frames = [encode(p, 5 * i)[0] for i, p in enumerate([good, backwards, outside, odd])]
    frames += encode(sample_packet([[1.0]], [2000]), 20)
    assert len(rows_of(live, frames)) == 5 and live.refused == 4
    assert len(rows_of(live, encode(drawn(5, first=9000), 25))) == 5
    assert live.dropped == 20


JUNK = st.one_of(
    st.binary(max_size=120),
    st.builds(
        lambda c, n, s, total, t, rest: HEADER.pack(b"AX\x01", c, n, s, total, t) + rest,
        st.integers(0, 255),
        st.integers(0, 65535),
        st.integers(0, 65535),
        st.integers(0, 2**64 - 1),
        st.integers(-(2**63), 2**63 - 1),
        st.binary(max_size=60),
    ),
    st.builds(
        lambda t, s: encode(drawn(3, first=t), 2**60, s)[0],
        st.integers(-(2**61), 2**61),
        st.integers(0, 65535),
    ),
    st.text("0123456789,.-+einfax []\n", max_size=40).map(str.encode),
)


@given(st.lists(JUNK, max_size=20), st.sampled_from([0, 1, 2]))
def test_garbage_never_raises(junk, channels):
    live = Unconnected(channels=channels, clock=lambda: 0) if channels else camera()
    rows = rows_of(live, junk)
    assert rows.dtype == live._dtype and (np.diff(rows["t"]) >= 0).all()
    assert live.dropped >= 0
    if channels:
        assert np.isfinite(rows["value"]).all()
    stream = Unconnected(channels=channels, clock=lambda: 0) if channels else camera()
    for part in junk:
        stream.feed(part)
    stream.feed(b"", ended=True)
    assert stream._buffer == b""


@given(st.lists(st.integers(1, 60), max_size=20))
def test_a_stream_may_be_cut_anywhere(cuts):
    packet = drawn(40)
    data = b"".join(encode(packet, size=24 + 45))
    live, at, packets = camera(), 0, [packet[:0]]
    for size in cuts:
        packets += live.feed(data[at : at + size])
        at += size
    packets += live.feed(data[at:], ended=True)
    np.testing.assert_array_equal(np.concatenate(packets), packet)
    assert live.refused == live.dropped == 0


def test_a_stream_is_picked_up_after_garbage():
    frames = encode(drawn(30), size=24 + 90)
    live = camera()
    packets = live.feed(b"GET / HTTP/1.1\r\n" + frames[0] + b"A" * 50 + frames[1][:40] + frames[2])
    assert sum(map(len, packets)) == 20 and live.dropped == 10 and live.refused == 3


def test_text_is_read_by_line():
    live = Unconnected(channels=2, clock=lambda: 5_000_000)
    text = (
        b"t,a,b\nAccel\n10,1,2\n20,1.5,-2e3\r\n\n15,1,2\n30,nan,1\n30,1e39,1\n[40, 1, 2]\n7,8\n1\n"
    )
    rows = np.concatenate(live.feed(text))
    assert rows["t"].tolist() == [10, 20, 40, 5000]
    assert rows["value"].tolist() == [[1, 2], [1.5, -2000], [1, 2], [7, 8]]
    assert live.refused == 6 and live.position == 4


def test_text_and_frames_may_mix():
    live = Unconnected(channels=1)
    rows = np.concatenate(live.feed(b"1,5\n" + encode(sample_packet([[6.0]], [2]))[0] + b"3,7"))
    assert rows["value"].ravel().tolist() == [5, 6]
    assert live.feed(b"", ended=True)[0]["value"].ravel().tolist() == [7]


def test_a_line_without_end_is_bounded():
    live = Unconnected(channels=1)
    for _ in range(40):
        live.feed(b"1" * (1 << 16))
    assert len(live._buffer) <= (1 << 20) + (1 << 16) and live.refused >= 1


@pytest.mark.parametrize("wrong", [{}, {"width": 70000, "height": 1}, {"channels": 256}])
def test_a_live_source_needs_a_size(wrong):
    with pytest.raises(InputError, match="channels"):
        Unconnected(**wrong)


def test_udp():
    source = Udp(width=100, height=100)
    packet = drawn(2000)
    send([packet[:700], packet[700:]], source.address, session=4)
    np.testing.assert_array_equal(until(source, 2000), packet)
    assert source.dropped == source.refused == 0 and source.status == "receiving"
    source.close()


def test_udp_tells_how_late_it_is_in_silence():
    now = [0]
    source = Udp(width=100, height=100, clock=lambda: now[0])
    send([drawn(10, first=5000)], source.address)
    iterator = iter(source)
    assert source.now is None
    last = next(iterator)["t"][-1]
    now[0] = 3_000_000_000
    assert len(next(iterator)) == 0
    now[0] += 2_000_000_000
    assert source.now == last + 2_000_000 - LAG_US
    source.close()


def test_udp_survives_garbage_and_reads_text():
    source = Udp(channels=1, clock=lambda: 9000)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        for payload in (b"", b"\xff" * 1000, b"AX\x01", b"[1.5]", b"20,2\n30,3\n"):
            out.sendto(payload, source.address)
    assert until(source, 3)["value"].ravel().tolist() == [1.5, 2, 3]
    assert source.refused == 2
    source.close()


def test_an_address_in_use_is_told():
    source = Udp(width=1, height=1)
    with pytest.raises(InputError, match="can't listen"):
        Udp(*source.address, width=1, height=1)
    source.close()
    with pytest.raises(InputError, match="can't listen"):
        Tcp("127.0.0.1", 70000, width=1, height=1)


def test_close_ends_a_source_that_waits():
    source = Udp(width=1, height=1)
    threading.Timer(0.05, source.close).start()
    assert sum(map(len, source)) == 0


def test_tcp_listens_on_after_a_peer_has_gone():
    source = Tcp(width=100, height=100)
    packet = drawn(60)
    frames = encode(packet, size=24 + 90)
    packets, iterator = [], iter(source)
    for part in (frames[:2], frames[2:4]):
        with socket.create_connection(source.address) as peer:
            peer.sendall(b"".join(part)[:-1])
            peer.sendall(b"".join(part)[-1:])
            until(iterator, 20 + sum(map(len, packets)), packets)
            assert source.status.startswith("connected to 127.0.0.1:")
    with socket.create_connection(source.address), socket.create_connection(source.address) as new:
        new.sendall(b"".join(frames[4:]))  # the silent one before it gives way
        np.testing.assert_array_equal(until(iterator, 60, packets), packet)
    source.close()
    assert list(iterator) == []


def test_standard_input_to_its_end():
    read, write = os.pipe()
    with os.fdopen(read) as file, os.fdopen(write, "wb") as out:
        source = Stdin(file, channels=1)
        out.write(b"1,2\n3,4\n5,6")
        out.close()
        rows = np.concatenate(list(source))
    assert rows["t"].tolist() == [1, 3, 5] and rows["value"].ravel().tolist() == [2, 4, 6]
    assert source.status == "ended"


@pytest.fixture
def publish(broker):
    """Publish payloads, and wait until the broker has them."""

    def do(topic, payloads):
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        client.connect(broker.host, broker.port)
        client.loop_start()
        for payload in payloads:
            client.publish(topic, payload, qos=1).wait_for_publish(5)
        client.disconnect()
        client.loop_stop()

    return do


def connected(iterator, source):
    deadline = time.monotonic() + 5
    while source.status != "connected":
        next(iterator)
        assert time.monotonic() < deadline, source.status


def test_mqtt_over_a_restart_of_the_broker(broker, publish):
    source = Mqtt(broker.host, broker.port, "room/+", channels=2, clock=lambda: 77_000)
    iterator = iter(source)
    connected(iterator, source)
    publish("room/a", [json.dumps([1, 2]), b'{"no": 1}', encode(sample_packet([[3, 4]], [80]))[0]])
    assert until(iterator, 2)["value"].tolist() == [[1, 2], [3, 4]] and source.refused == 1
    broker.stop(kill=True)
    while "connecting again" not in source.status:
        next(iterator)
    broker.start()
    connected(iterator, source)
    publish("room/b", ["90,5,6"])
    assert until(iterator, 1)["t"].tolist() == [90]
    source.close()
    assert list(iterator) == []


def test_too_many_channels_for_a_frame_are_refused():
    with pytest.raises(InputError, match="256 channels"):
        encode(sample_packet(np.zeros((1, 256))))


@pytest.fixture
def guarded(tmp_path):
    """A broker that only "guard" may use, with the password "open sesame"."""
    salt = b"twelve bytes"
    digest = hashlib.pbkdf2_hmac("sha512", b"open sesame", salt, 101)
    parts = (base64.b64encode(part).decode() for part in (salt, digest))
    (tmp_path / "users").write_text(f"guard:$7$101${'$'.join(parts)}\n")
    (tmp_path / "users").chmod(0o600)
    broker = Broker(tmp_path, persistent=False, passwords=tmp_path / "users")
    broker.start()
    yield broker
    broker.stop(kill=True)


def test_a_broker_that_wants_a_password(guarded, tmp_path, monkeypatch):
    url = f"mqtt://guard@{guarded.host}:{guarded.port}/room/+"
    (tmp_path / "password").write_text("open sesame\n")
    monkeypatch.setenv("ROOM_PASSWORD", "open sesame")
    for options in (
        {"password_file": str(tmp_path / "password")},
        {"password_env": "ROOM_PASSWORD"},
    ):
        source = open_source(url, channels=1, **options).source
        connected(iter(source), source)
        source.close()
    source = open_source(url, channels=1).source
    iterator, deadline = iter(source), time.monotonic() + 5
    while "the broker refuses: Not authorized" not in source.status:
        next(iterator)
        assert time.monotonic() < deadline, source.status
    source.close()


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("mqtt://guard:secret@host/a", {}, "a password in an address ends up in logs"),
        ("mqtt://host/a", {"password_env": "X"}, "give a username"),
        ("mqtt://guard@host/a", {"password_env": "NO_SUCH"}, "NO_SUCH is not set"),
        ("mqtt://guard@host/a", {"password_file": "no such"}, "there is no file no such"),
        ("mqtts://host/a", {"ca": "no such"}, "there is no file no such"),
    ],
)
def test_users_of_a_broker_that_are_not_complete(url, options, message):
    with pytest.raises((InputError, FileError), match=message) as caught:
        open_source(url, channels=1, **options)
    assert "secret" not in str(caught.value)


def test_an_address_names_the_topic_the_user_and_encryption():
    source = open_source("mqtts://me%40home@127.0.0.1/room/+/t", channels=1)
    client = source.source._client
    assert (client.username, client.host, client.port) == ("me@home", "127.0.0.1", 8883)
    assert source.source._topic == "room/+/t" and client._ssl
    source.close()
