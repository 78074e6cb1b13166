"""Wakes over MQTT, as Frigate and Home Assistant know them."""

import json
import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from ..broker import mqtt_client
from .outbox import Event, Retry


class Mqtt:
    """A broker that gets wakes as Frigate sends them, for Home Assistant and automations.

    Under `prefix`: `events` (type, before, after), SOURCE/motion (ON or OFF, retained), `available`
    (online or offline, retained, also the last will) and `stats`; and Home Assistant's discovery
    message for each source, retained. QoS 1: delivered is what the broker has acknowledged; a lost
    connection is made again, and what was not acknowledged is sent again: subscribers may get it
    twice, with the same id and type.

    Args:
        host, port: of the broker.
        prefix: of all topics but the discovery's.
        sources: announced from the beginning; others are when they first wake.
        discovery: Home Assistant's prefix; "" for no announcements.
        username, password_env, password_file, tls, ca: as of `broker.mqtt_client`.
        timeout: seconds to wait for the broker.
        reconnect: seconds before a connection is first made again; doubles, up to 30 times that.

    Raises:
        InputError, FileError, MissingExtra: as `broker.mqtt_client`.
    """

    def __init__(
        self,
        host: str,
        port: int = 1883,
        prefix: str = "axonal",
        sources: Sequence[str] = (),
        discovery: str = "homeassistant",
        username: str = "",
        password_env: str = "",
        password_file: str = "",
        tls: bool = False,
        ca: str = "",
        timeout: float = 10.0,
        reconnect: float = 1.0,
    ):
        self.prefix, self.discovery, self.timeout = prefix, discovery, timeout
        self.motion = {_topic(source): "OFF" for source in sources}
        self.published: dict[str, dict[str, Any]] = {}  # the last state of each open event
        self.flight: tuple[str, set[int]] = ("", set())  # an event and its messages, under way
        self.acknowledged: set[int] = set()
        self.changed, self.online, self.why = threading.Condition(), False, "no answer yet"
        self.client = mqtt_client(username, password_env, password_file, tls, ca)
        self.client.will_set(f"{prefix}/available", "offline", qos=1, retain=True)
        self.client.on_connect, self.client.on_disconnect = self._connect, self._disconnect
        self.client.on_publish = self._acknowledge
        self.client.reconnect_delay_set(reconnect, 30 * reconnect)
        self.client.connect_async(host, port)
        self.client.loop_start()

    def send(self, event: Event, clip: np.ndarray | None) -> None:
        """Publish an event; Retry if there is no connection, or the broker does not acknowledge."""
        with self.changed:
            if not self.changed.wait_for(lambda: self.online, self.timeout):
                raise Retry(f"MQTT: no connection ({self.why})")
        data = event["data"]
        if self.flight[0] != event["id"]:  # else paho still has it under way
            state, source = _frigate(data), _topic(data["source"])
            before = self.published.get(data["id"], state)
            change = {"type": data["type"], "before": before, "after": state}
            new = source not in self.motion
            self.motion[source] = "OFF" if data["type"] == "end" else "ON"
            with self.changed:
                self.acknowledged.clear()  # the numbers of messages begin anew after 65,535
            mids = self._announce(source) if new else set()
            mids.add(self._publish_motion(source))
            mids.add(self._publish(f"{self.prefix}/events", json.dumps(change)))
            self.flight, self.published[data["id"]] = (event["id"], mids), state
        self._wait(self.flight[1])
        self.flight = ("", set())
        if data["type"] == "end":
            self.published.pop(data["id"], None)

    def stats(self, values: Mapping[str, Any]) -> None:
        """Publish `PREFIX/stats`; lost if there is no connection."""
        self.client.publish(f"{self.prefix}/stats", json.dumps(dict(values)))

    def close(self) -> None:
        if self.online:
            with suppress(Retry):  # the last will says the same
                self._wait({self._publish(f"{self.prefix}/available", "offline", retain=True)})
        self.client.disconnect()
        self.client.loop_stop()

    def _publish(self, topic: str, text: str, retain: bool = False) -> int:
        return self.client.publish(topic, text, qos=1, retain=retain).mid

    def _wait(self, mids: set[int]) -> None:
        with self.changed:
            if not self.changed.wait_for(lambda: mids <= self.acknowledged, self.timeout):
                raise Retry("MQTT: the broker has not acknowledged")

    def _publish_motion(self, source: str) -> int:
        return self._publish(f"{self.prefix}/{source}/motion", self.motion[source], retain=True)

    def _announce(self, source: str) -> set[int]:
        """Publish Home Assistant's discovery of a binary sensor."""
        if not self.discovery:
            return set()
        topic = f"{self.discovery}/binary_sensor/{_topic(self.prefix)}/{source}/config"
        name = f"{_topic(self.prefix)}_{source}"
        sensor = {
            "name": "Motion",
            "unique_id": f"{name}_motion",
            "device_class": "motion",
            "state_topic": f"{self.prefix}/{source}/motion",
            "payload_on": "ON",
            "payload_off": "OFF",
            "availability_topic": f"{self.prefix}/available",
            "payload_available": "online",
            "payload_not_available": "offline",
            "device": {"identifiers": [name], "name": source, "manufacturer": "Axonal"},
        }
        return {self._publish(topic, json.dumps(sensor), retain=True)}

    def _connect(self, client: Any, user: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self.why = str(reason)
            return
        self._publish(f"{self.prefix}/available", "online", retain=True)
        for source in list(self.motion):  # a broker may have lost what it retained
            self._announce(source)
            self._publish_motion(source)
        with self.changed:
            self.online = True
            self.changed.notify_all()

    def _disconnect(self, client: Any, user: Any, flags: Any, reason: Any, properties: Any) -> None:
        if self.online:  # else the broker has said why when it refused the connection
            self.online, self.why = False, str(reason)

    def _acknowledge(self, client: Any, user: Any, mid: int, *_: Any) -> None:
        with self.changed:
            self.acknowledged.add(mid)
            self.changed.notify_all()


def _topic(name: str) -> str:
    """A name as one level of a topic."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


def _frigate(data: Mapping[str, Any]) -> dict[str, Any]:
    """The state of an event in Frigate's form (docs.frigate.video/integrations/mqtt)."""
    at = data["t_end_us"] / 1e6
    ended = data["type"] == "end"
    return {
        "id": data["id"],
        "camera": data["source"],
        "label": "motion",
        "sub_label": data["reason"],
        "frame_time": at,
        "start_time": data["t_start_us"] / 1e6,
        "end_time": at if ended else None,
        "score": data["score"],
        "top_score": data["score"],
        "false_positive": False,
        "active": not ended,
        "stationary": False,
        "current_zones": [],
        "entered_zones": [],
        "has_clip": bool(data["preroll_ref"]),
        "has_snapshot": False,
    }
