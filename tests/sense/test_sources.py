"""Sources by their addresses."""

import math

import numpy as np
import pytest

from axonal.core.errors import AxonalError, InputError
from axonal.sense.sources import (
    Buffered,
    Encoded,
    Mqtt,
    Radar,
    Replay,
    SendOnDelta,
    Stdin,
    Tcp,
    Udp,
    Video,
    open_source,
    send,
)
from axonal.sense.stream import events
from benchmarks.harness.recordings import save

SIZE = {"width": 20, "height": 10}
PACKET = events([1, 2, 3], [1, 2, 3], [4, 5, 6], [0, 1, 0])


@pytest.mark.parametrize(
    ("url", "options", "kind"),
    [
        ("udp://127.0.0.1:0", SIZE, Udp),
        ("tcp://127.0.0.1:0", {"channels": 3}, Tcp),
        ("mqtt://127.0.0.1/room/+/#", {"channels": 1}, Mqtt),
    ],
)
def test_live_sources_stand_behind_a_queue(url, options, kind):
    source = open_source(url, **options)
    assert isinstance(source, Buffered) and isinstance(source.source, kind)
    assert (source.width, source.height) == (options.get("width", source.width), source.height)
    assert source.status == "waiting" and source.refused == source.dropped == 0
    source.close()


def test_topics_are_those_of_the_address(monkeypatch):
    source = open_source("mqtt://broker:99/room/#", channels=1)
    assert source._topic == "room/#"
    client = source._client
    assert (client.host, client.port) == ("broker", 99)
    source.close()


def test_what_is_sent_to_an_address_comes_out():
    source = open_source("udp://127.0.0.1:0", **SIZE)
    send([PACKET], source.address)
    iterator = iter(source)
    np.testing.assert_array_equal(next(iterator), PACKET)
    assert len(next(iterator)) == 0 and source.now is not None  # silence tells the time
    source.close()
    assert list(iterator) == []


def test_files_and_their_pace(tmp_path):
    path = tmp_path / "clip.npz"
    save(path, [PACKET], 20, 10)
    np.testing.assert_array_equal(np.concatenate(list(open_source(str(path)))), PACKET)
    replay = open_source(str(path), speed=math.inf)
    assert isinstance(replay, Replay) and sum(map(len, replay)) == 3


def test_videos_and_radar(tmp_path):
    np.save(tmp_path / "clip.npy", np.zeros((2, 4, 5), np.uint8))
    assert isinstance(open_source(f"video:{tmp_path / 'clip.npy'}", pixels="noisy"), Video)
    radar = open_source("radar:4", duration_s=1.0)
    assert isinstance(radar, Radar) and sum(map(len, radar)) == 20


def test_samples_may_be_encoded():
    table = {"kind": "send_on_delta", "thresholds": [3.0] * 64}
    source = open_source("radar:4", duration_s=1.0, encoder=table)
    assert isinstance(source, Encoded) and isinstance(source.encoder, SendOnDelta)
    assert all(packet.dtype == PACKET.dtype for packet in source)


def test_standard_input(monkeypatch, tmp_path):
    (tmp_path / "in.csv").write_text("1,2\n3,4\n")
    with open(tmp_path / "in.csv") as file:
        monkeypatch.setattr("sys.stdin", file)
        source = open_source("-", channels=1)
        assert isinstance(source.source, Stdin)
        assert np.concatenate(list(source))["value"].ravel().tolist() == [2, 4]


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        (
            "coap://sensor",
            {},
            "- and udp, tcp, mqtt, mqtts, video, camera, radar",
        ),
        ("udp://", SIZE, "names no host"),
        ("udp://127.0.0.1:99999", SIZE, "[Pp]ort"),
        ("camera:front", {}, "invalid literal"),
        ("radar:1", {"colour": 3}, "no option 'colour'; it takes seed"),
        ("udp://127.0.0.1:0", {}, "give width and height"),
        ("udp://127.0.0.1:0", {"widht": 3}, "unexpected keyword argument 'widht'"),
        ("radar:1", {"encoder": {"kind": "morse"}}, "one of cochlea, send_on_delta"),
        ("radar:1", {"encoder": {"kind": "cochlea"}}, "missing a required argument: 'rate'"),
    ],
)
def test_wrong_addresses_are_refused(url, options, message):
    with pytest.raises(InputError, match=message):
        open_source(url, **options)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(AxonalError, match="missing"):
        open_source(str(tmp_path / "missing.es"))
