import base64
import itertools
import json
import queue
import struct
import sys
import threading
import time
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn

import numpy as np
import paho.mqtt.client as paho
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axonal.core.errors import InputError, MissingExtra
from axonal.sense.clip import LARGEST, picture, summary
from axonal.sense.delivery.mqtt import Mqtt
from axonal.sense.delivery.outbox import Outbox, Refused, Retry
from axonal.sense.delivery.sinks import ANSWER, SINKS, Callback, Chat, Command, Webhook
from axonal.sense.settings import build
from axonal.sense.stream import events, sample_type
from axonal.sense.wake import Wake

CLIP = events([0, 10, 20, 30], [1, 2, 2, 5], [0, 3, 3, 1], [1, 0, 1, 1])


def wake(kind: str = "new", source: str = "front door", k: int = 0) -> Wake:
    return Wake(
        type=kind,
        id=f"w{k}",
        n=["new", "update", "end"].index(kind),
        source=source,
        t_start_us=1_000_000,
        t_wake_us=1_500_000,
        t_end_us=2_000_000,
        score=0.9,
        threshold=0.5,
        reason="rate",
        n_events_in=20,
        n_events_out=10,
    )


def event(*args, **options) -> dict:
    return wake(*args, **options).cloudevent()


class Server(ThreadingMixIn, HTTPServer):
    """A server of `answers`, one a POST, in order: (status, headers, body), or raw bytes."""

    daemon_threads = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.requests, self.release = queue.Queue(), queue.Queue(), threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self.thread.start()

    def handle_error(self, request, address):
        pass  # the client went away

    def end(self):
        self.release.set()
        self.shutdown()
        self.thread.join()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.put((self.path, self.headers, json.loads(body)))
        answer = self.server.answers.get()
        if answer == "slow":
            self.server.release.wait(10)
        elif isinstance(answer, bytes):
            self.wfile.write(answer)
        else:
            status, headers, parts = answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            for part in parts:
                self.wfile.write(part)


@pytest.fixture
def server():
    server = Server()
    yield server
    server.end()


def ok(text: str = "") -> tuple:
    return 200, {}, [text.encode()]


def answer(text) -> tuple:
    return ok(json.dumps({"choices": [{"message": {"content": text}}]}))


def test_a_callback_is_called():
    calls = []
    Callback(lambda *arguments: calls.append(arguments)).send(event(), CLIP)
    assert calls[0][0]["id"] == "w0/new/0" and calls[0][1] is CLIP


def test_a_command_reads_the_event(tmp_path):
    path = tmp_path / "got"
    code = f"import sys; open({str(path)!r}, 'w').write(sys.stdin.read())"
    command = Command([sys.executable, "-c", code])
    command.send(event(), None)
    command.close()
    assert json.loads(path.read_text()) == event()
    with pytest.raises(Retry, match="status 3"):
        Command([sys.executable, "-c", "raise SystemExit(3)"]).send(event(), None)
    with pytest.raises(Retry, match="timed out"):
        Command(["sleep", "9"], timeout=0.05).send(event(), None)
    with pytest.raises(Retry, match="No such file"):
        Command([str(tmp_path / "none")]).send(event(), None)
    for argv in ("ls", [], ["ls", 3]):
        with pytest.raises(InputError, match="a list"):
            Command(argv)


def test_a_webhook_gets_a_cloudevent(server):
    hook = Webhook(server.url + "/hook", {"X-Room": "hall"})
    server.answers.put(ok("thanks"))
    hook.send(event(), CLIP)
    hook.close()
    path, headers, body = server.requests.get()
    assert path == "/hook" and body == event() and headers["X-Room"] == "hall"
    assert headers["Content-Type"].startswith("application/cloudevents+json")
    assert headers["Idempotency-Key"] == "w0/new/0"


def test_failures_that_a_webhook_retries(server):
    hook, hasty = Webhook(server.url), Webhook(server.url, timeout=0.1)
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=50), usegmt=True)
    for status, after, least in [
        *((s, None, 0) for s in (408, 425, 500, 503)),
        *((429, a, least) for a, least in [("30", 30), (date, 45), ("soon", 0), ("-5", 0)]),
    ]:
        server.answers.put((status, {} if after is None else {"Retry-After": after}, []))
        with pytest.raises(Retry, match=str(status)) as failure:
            hook.send(event(), None)
        assert least <= failure.value.after <= least + 5
    for broken in (b"", b"HTTP/9 what\r\n\r\n", b"HTTP/1.1 200 OK\r\nBad Header\r\n\r\n", "slow"):
        server.answers.put(broken)
        with pytest.raises(Retry):
            (hasty if broken == "slow" else hook).send(event(), None)
    hasty.close()
    for final in (301, 400, 401, 404, 410):
        server.answers.put((final, {"Location": server.url}, []))
        with pytest.raises(Refused, match=str(final)):
            hook.send(event(), None)
    server.answers.put((200, {}, itertools.repeat(b"x" * 65536, 10_000)))  # is not read
    hook.send(event(), None)
    hook.close()
    gone = Webhook("http://127.0.0.1:9")
    with pytest.raises(Retry):
        gone.send(event(), None)
    gone.close()
    for url in ("hook", "ftp://a/b", "http://", "http://a:b", 5):
        with pytest.raises(InputError, match="is no address"):
            Webhook(url)


def test_a_webhook_behind_an_outbox(server, tmp_path):
    box = Outbox(tmp_path, {"web": Webhook(server.url)}, backoff=1e-3)
    for reply in ((500, {}, []), b"nonsense", ok(), ok(), (404, {}, []), ok()):
        server.answers.put(reply)
    for k in range(4):
        box.put(wake(k=k))
    assert box.close()
    keys = [server.requests.get()[1]["Idempotency-Key"] for _ in range(6)]
    assert keys == [f"w{k}/new/0" for k in (0, 0, 0, 1, 2, 3)]
    assert (box.counters()["retried"], box.counters()["dead"]) == (2, 1)


def test_a_chat_model_sees_the_clip(server, tmp_path, monkeypatch):
    monkeypatch.setenv("THE_KEY", "s3cret")
    path = tmp_path / "answers.jsonl"
    chat = Chat(server.url + "/v1/", "large", str(path), key_env="THE_KEY")
    chat.send(event("update"), CLIP)  # not asked about
    for text in ("A cat.", "Nobody."):
        server.answers.put(answer(text))
    chat.send(event(), CLIP)
    chat.send(event(k=1), None)
    answers = [json.loads(line) for line in path.read_text().splitlines()]
    assert [r["text"] for r in answers] == ["A cat.", "Nobody."] and answers[1]["id"] == "w1/new/0"
    where, headers, body = server.requests.get()
    assert where == "/v1/chat/completions" and headers["Authorization"] == "Bearer s3cret"
    assert body["model"] == "large" and body["messages"][0]["role"] == "system"
    text, image = body["messages"][1]["content"]
    assert text["text"] == summary(event(), CLIP)
    kind, data = image["image_url"]["url"].split(",")
    assert kind == "data:image/png;base64" and base64.b64decode(data) == picture(CLIP)
    for odd in (ok("<html>"), ok("{}"), ok("[" * 5000), ok('{"choices": 3}')):
        server.answers.put(odd)
        with pytest.raises(Retry, match="no answer"):
            chat.send(event(), None)
    server.answers.put((200, {}, itertools.repeat(b"x" * 65536, ANSWER // 65536 + 9)))
    with pytest.raises(Retry, match="no answer"):
        chat.send(event(), None)
    server.answers.put((401, {}, []))
    with pytest.raises(Refused):
        chat.send(event(), None)

    def drip():
        while not server.release.is_set():
            time.sleep(0.05)
            yield b" "

    server.answers.put((200, {}, drip()))
    chat.timeout = 0.2
    with pytest.raises(Retry, match="longer than"):
        chat.send(event(), None)
    chat.close()
    with pytest.raises(InputError, match="NO_KEY"):
        Chat(server.url, "large", str(path), key_env="NO_KEY")


class Listener:
    """A subscriber to everything, which records its messages."""

    def __init__(self, broker, topic: str = "#"):
        self.messages = queue.Queue()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self.client.on_message = lambda c, u, m: self.messages.put((m.topic, m.payload, m.retain))
        ready = threading.Event()
        self.client.on_subscribe = lambda *a: ready.set()
        self.client.on_connect = lambda c, *a: c.subscribe(topic, qos=1)
        self.client.reconnect_delay_set(0.02, 0.1)
        self.client.connect(broker.host, broker.port)
        self.client.loop_start()
        assert ready.wait(5)

    def until(self, topic: str, payload: bytes | None = None) -> bytes:
        """The next message of a topic, or the next one that is `payload`."""
        while True:
            where, content, _ = self.messages.get(timeout=5)
            if where == topic and payload in (None, content):
                return content

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


def test_mqtt_as_frigate_and_home_assistant_know_it(broker):
    listener = Listener(broker)
    publisher = Mqtt(broker.host, broker.port, sources=["front door"])
    listener.until("axonal/available", b"online")
    topic = "homeassistant/binary_sensor/axonal/front_door/config"
    sensor = json.loads(listener.until(topic))
    assert sensor["state_topic"] == "axonal/front_door/motion"
    assert sensor["device_class"] == "motion"
    assert sensor["availability_topic"] == "axonal/available"
    listener.until("axonal/front_door/motion", b"OFF")
    changes = []
    for kind, state in (("new", b"ON"), ("update", b"ON"), ("end", b"OFF")):
        publisher.send(event(kind), None)
        listener.until("axonal/front_door/motion", state)
        changes.append(json.loads(listener.until("axonal/events")))
    assert [c["type"] for c in changes] == ["new", "update", "end"]
    first, last = changes[0]["after"], changes[2]["after"]
    assert first["id"] == "w0" and first["camera"] == "front door" and first["top_score"] == 0.9
    assert first["start_time"] == 1.0 and first["end_time"] is None and last["end_time"] == 2.0
    assert changes[1]["before"] == first and changes[0]["before"] == first
    publisher.send(event(source="cellar", k=1), None)
    listener.until("homeassistant/binary_sensor/axonal/cellar/config")
    publisher.stats({"rate": 5})
    assert json.loads(listener.until("axonal/stats")) == {"rate": 5}
    late = Listener(broker)
    retained = {late.messages.get(timeout=5)[:2] for _ in range(5)}
    assert {("axonal/cellar/motion", b"ON"), ("axonal/front_door/motion", b"OFF")} <= retained
    assert ("axonal/available", b"online") in retained
    publisher.close()
    listener.until("axonal/available", b"offline")
    listener.close()
    late.close()


def test_mqtt_leaves_a_last_will_and_comes_back(broker):
    listener = Listener(broker, "axonal/#")
    publisher = Mqtt(broker.host, broker.port, reconnect=0.02, discovery="")
    listener.until("axonal/available", b"online")
    publisher.client.socket().shutdown(2)
    listener.until("axonal/available", b"offline")
    listener.until("axonal/available", b"online")
    publisher.close()
    listener.close()


def test_mqtt_behind_an_outbox_over_restarts_of_the_broker(broker, tmp_path):
    listener = Listener(broker, "axonal/events")
    publisher = Mqtt(broker.host, broker.port, reconnect=0.02, timeout=0.3)
    box = Outbox(tmp_path, {"mqtt": publisher}, backoff=0.01, tries=1000)
    ids = []
    for k in range(9):
        box.put(wake(k=k))
        if k % 3 == 1:
            broker.restart(kill=True)
    assert box.close(20) and box.counters()["delivered"] == 9
    while not listener.messages.empty():
        ids.append(json.loads(listener.messages.get()[1])["after"]["id"])
    # what the broker acknowledged while the listener was away is the listener's loss
    assert ids == sorted(ids) and set(ids) <= {f"w{k}" for k in range(9)}
    listener.close()


def test_mqtt_without_a_broker_says_so_and_sends_later(broker):
    broker.stop(kill=True)
    publisher = Mqtt(broker.host, broker.port, reconnect=0.02, timeout=0.2)
    with pytest.raises(Retry, match="no connection"):
        publisher.send(event(), None)
    broker.start()
    listener = Listener(broker)
    publisher.timeout = 5.0
    publisher.send(event(), None)
    listener.until("axonal/events")
    publisher.timeout = 0.2
    late = threading.Event()
    publisher.client.on_publish = lambda *a: (late.wait(5), publisher._acknowledge(*a))
    with pytest.raises(Retry, match="acknowledged"):
        publisher.send(event("end"), None)
    late.set()
    publisher.timeout = 5.0
    publisher.send(event("end"), None)  # the same message is waited for, and not sent twice
    publisher.send(event(k=2), None)
    ids = [json.loads(listener.until("axonal/events"))["after"]["id"] for _ in range(2)]
    assert ids == ["w0", "w2"]
    publisher.close()
    listener.close()


def test_mqtt_with_a_wrong_password_says_so(broker, monkeypatch):
    broker.settings.write_text(broker.settings.read_text().replace("true", "false"))
    broker.restart(kill=True)
    monkeypatch.setenv("WORD", "wrong")
    name = {"username": "me", "password_env": "WORD"}
    publisher = Mqtt(broker.host, broker.port, timeout=0.3, **name)
    with pytest.raises(Retry, match=r"(?i)not authorized"):
        publisher.send(event(), None)
    publisher.close()


def sink(table):
    return build("sink", SINKS, table)


def test_sinks_from_tables(monkeypatch):
    assert isinstance(sink({"kind": "command", "argv": ["true"]}), Command)
    hook = sink({"kind": "webhook", "url": "https://localhost/x", "headers": {"A": "b"}})
    assert isinstance(hook, Webhook)
    hook.close()
    with pytest.raises(InputError, match=f"one of {', '.join(SINKS)}, not 'carrier pigeon'"):
        sink({"kind": "carrier pigeon"})
    for table in [
        {"kind": "command"},
        {"kind": "webhook", "url": "x"},
        {"kind": "command", "argv": ["a"], "shell": True},
        {"kind": "mqtt", "host": "a", "port": "b"},
        {"kind": "mqtt", "host": ""},
    ]:
        with pytest.raises(InputError):
            sink(table)
    monkeypatch.setitem(sys.modules, "httpx", None)
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    for table in [{"kind": "webhook", "url": "http://a"}, {"kind": "mqtt", "host": "a"}]:
        with pytest.raises(MissingExtra, match="watch"):
            sink(table)


def pixels(content: bytes) -> np.ndarray:
    """A PNG of one IDAT and filter 0, as `core.png` writes it."""
    width, height, _, kind = struct.unpack(">IIBB", content[16:26])
    body = zlib.decompress(content[content.index(b"IDAT") + 4 : -16])
    depth = 3 if kind == 2 else 1
    return np.frombuffer(body, np.uint8).reshape(height, -1)[:, 1:].reshape(height, width, depth)


def test_a_picture_of_events():
    image = pixels(picture(CLIP))
    assert image.shape == (4, 6, 3)
    assert image[0, 1, 0] == image[3, 2, 0] == image[3, 2, 2] == 255  # ON red, OFF blue
    assert np.count_nonzero(image) == 4 and pixels(picture(CLIP, 10, 8)).shape == (8, 10, 3)
    assert np.count_nonzero(pixels(picture(CLIP, 3, 2))) >= 3
    far = events([0, 1], [65535, 0], [65535, 0], [1, 1])
    assert pixels(picture(far)).shape == (LARGEST, LARGEST, 3)
    line = pixels(picture(events([0, 1, 2, 3], [0, 0, 2, 1], [0] * 4, [1] * 4)))
    assert line.shape == (3, 4, 3) and line[2, 0, 0] == line[0, 2, 0] == 255


def test_a_picture_of_samples():
    packet = np.zeros(500, sample_type(2))
    packet["t"] = np.arange(500) * 1000
    packet["value"][:, 0] = np.linspace(0, 1, 500)
    image = pixels(picture(packet, 100, 40))[..., 0]
    assert image.shape == (40, 100)
    assert image[19, 0] == image[0, 99] == 0 and image[0, 0] == 255  # a ramp from lower left
    assert not image[39].any() and (image[20:39] == 255).all()  # and a line at rest
    few = packet[[0, 100, 499]]
    few["value"][:, 0] = [0, 1, 0]
    drawn = pixels(picture(few, 100, 40))[:20, :, 0] == 0
    assert drawn.any(0).all() and drawn.any(1).all()  # one line, without gaps
    with pytest.raises(InputError):
        picture(packet[:0])
    with pytest.raises(InputError):
        picture(packet, 0, 5)


values = st.floats(width=32)
times = st.integers(-(1 << 62), 1 << 62)
size = st.integers(1, 30)


@settings(max_examples=60)
@given(st.lists(st.tuples(times, values, values), min_size=1, max_size=20), size, size, st.data())
def test_anything_can_be_described_and_drawn(table, width, height, data):
    table.sort(key=lambda row: row[0])
    t = [row[0] for row in table]
    if data.draw(st.booleans()):
        packet = np.zeros(len(t), sample_type(2))
        packet["t"], packet["value"] = t, [row[1:] for row in table]
    else:
        place = st.integers(0, 65535)
        x, y = (data.draw(st.lists(place, min_size=len(t), max_size=len(t))) for _ in "xy")
        packet = events(t, x, y, np.arange(len(t)) % 2)
    assert pixels(picture(packet, width, height)).shape[:2] == (height, width)
    assert "nan" not in summary(event(), packet)


def test_a_summary_in_words():
    text = summary(event(), CLIP)
    for part in ("front door", "rate", "10 of its 20", "4 rows", "75% are ON", "x 1 to 5"):
        assert part in text
    packet = np.zeros(4, sample_type(1))
    packet["value"][:, 0] = [1, 2, 3, np.nan]
    assert "Channel 0: 1 to 3, mean 2," in summary(event(), packet)
    assert "clip" not in summary(event(), None)


def test_an_address_that_has_moved_is_named(server):
    server.answers.put((302, {"Location": "https://elsewhere/hook"}, []))
    sink = Webhook(server.url)
    with pytest.raises(Refused, match="answers 302: it has moved to https://elsewhere/hook"):
        sink.send(event(), None)
    sink.close()
