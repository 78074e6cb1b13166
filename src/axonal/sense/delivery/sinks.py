"""Sinks of wakes: a function, a command, a webhook, a chat model, and MQTT (`mqtt.py`)."""

import base64
import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import InputError
from ...core.extras import require
from ..broker import secret
from ..clip import picture, summary
from .mqtt import Mqtt
from .outbox import Event, Refused, Retry, Sink

ANSWER = 1 << 20  # bytes of a chat model's answer
PROMPT = (
    "You look after an always-on sensor that has just woken you. Say in two sentences what "
    "probably happened, and whether someone should look at it now."
)


class Callback(Sink):
    """A call of `function(event, clip)`; whatever it raises is tried again, but for `Refused`."""

    def __init__(self, function: Callable[[Event, np.ndarray | None], Any]):
        self.function = function

    def send(self, event: Event, clip: np.ndarray | None) -> None:
        self.function(event, clip)


class Command(Sink):
    """A program, run without a shell, with the event as JSON on its standard input.

    Args:
        argv: the program and its arguments.
        timeout: seconds until it is killed.

    Raises:
        InputError: no program.
    """

    def __init__(self, argv: Sequence[str], timeout: float = 30.0):
        if isinstance(argv, str) or not argv or not all(isinstance(a, str) for a in argv):
            raise InputError('command: argv is a list, such as ["notify-send", "wake"]')
        self.argv, self.timeout = list(argv), timeout

    def send(self, event: Event, clip: np.ndarray | None) -> None:
        """Run the program; Retry if it can't be run, takes too long, or ends with no status 0."""
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        text = json.dumps(event).encode()
        try:
            done = subprocess.run(self.argv, input=text, timeout=self.timeout, **quiet)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Retry(f"{self.argv[0]}: {error}") from error
        if done.returncode:
            raise Retry(f"{self.argv[0]} ended with status {done.returncode}")


class _Web(Sink):
    """An address for JSON, whose answers are bounded in bytes and in time."""

    def __init__(self, url: str, headers: Mapping[str, str], timeout: float):
        self.httpx = require("httpx", "watch")
        try:
            self.url = self.httpx.URL(url)
        except (self.httpx.InvalidURL, TypeError) as error:
            raise InputError(f"{url!r} is no address: {error}") from error
        if self.url.scheme not in ("http", "https") or not self.url.host:
            raise InputError(f"{url!r} is no address; it begins with https:// or http://")
        self.timeout = timeout
        plain = {"Accept-Encoding": "identity"}  # what is not unpacked can't swell
        self.client = self.httpx.Client(timeout=timeout, headers={**plain, **headers})

    def post(self, content: Any, headers: Mapping[str, str], most: int) -> bytes:
        """Post JSON, and return the first `most` bytes of the answer.

        Raises:
            Retry, Refused: there is none, or its status says so.
        """
        body, begin = b"", time.monotonic()
        try:
            data = json.dumps(content).encode()
            stream = self.client.stream("POST", self.url, content=data, headers=dict(headers))
            with stream as answer:
                status = answer.status_code
                if status in (408, 425, 429) or status >= 500:
                    after = _seconds(answer.headers.get("Retry-After", ""))
                    raise Retry(f"{self.url} answers {status}", after)
                if 300 <= status < 400 and (other := answer.headers.get("Location")):
                    raise Refused(f"{self.url} answers {status}: it has moved to {other}; set that")
                if not 200 <= status < 300:
                    raise Refused(f"{self.url} answers {status}")
                parts = answer.iter_raw()
                while len(body) < most and (part := next(parts, b"")):
                    body += part
                    if time.monotonic() - begin > self.timeout:
                        raise Retry(f"{self.url}: the answer takes longer than {self.timeout} s")
        except self.httpx.HTTPError as error:
            raise Retry(f"{self.url}: {error!r}") from error
        return body[:most]

    def close(self) -> None:
        self.client.close()


class Webhook(_Web):
    """A server that gets CloudEvents in structured mode (CloudEvents' HTTP binding 1.0).

    The id is also sent as `Idempotency-Key`. A status of 408, 425, 429 or 5xx is tried again, after
    what `Retry-After` says; others above 299 are final: redirections are not followed.

    Args:
        url: the address; certificates are checked.
        headers: to be sent along.
        timeout: seconds to wait for the server, at each step.

    Raises:
        InputError: no such address. MissingExtra: httpx is not installed.
    """

    def __init__(self, url: str, headers: Mapping[str, str] | None = None, timeout: float = 10.0):
        fixed = {"Content-Type": "application/cloudevents+json; charset=utf-8"}
        super().__init__(url, {**fixed, **(headers or {})}, timeout)

    def send(self, event: Event, clip: np.ndarray | None) -> None:
        """Post the event; Retry and Refused as the class says."""
        self.post(event, {"Idempotency-Key": event["id"]}, 0)


class Chat(_Web):
    """A model behind an OpenAI-compatible chat endpoint, shown new events; a file of its answers.

    The model gets `clip.summary` and `clip.picture`.

    Args:
        base_url: up to and with the version, such as http://localhost:8000/v1.
        model: its name.
        answers: a file; each answer is added as a line of JSON with id, model and text.
        key_env: the environment variable that holds the key; none is sent without.
        prompt: the task of the model.
        max_tokens: of an answer.
        timeout: seconds to wait for the server, at each step.

    Raises:
        InputError: no such address or variable. MissingExtra: httpx is not installed.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        answers: str,
        key_env: str = "",
        prompt: str = PROMPT,
        max_tokens: int = 300,
        timeout: float = 120.0,
    ):
        key = {"Authorization": f"Bearer {secret(key_env)}"} if key_env else {}
        headers = {"Content-Type": "application/json", **key}
        super().__init__(base_url.rstrip("/") + "/chat/completions", headers, timeout)
        self.options = {"model": model, "max_tokens": max_tokens}
        self.prompt, self.answers = prompt, Path(answers)

    def send(self, event: Event, clip: np.ndarray | None) -> None:
        """Ask the model; Retry and Refused if no answer comes that can be read and stored."""
        if event["data"]["type"] != "new":
            return
        parts: list[dict[str, Any]] = [{"type": "text", "text": summary(event, clip)}]
        if clip is not None and len(clip):
            url = "data:image/png;base64," + base64.b64encode(picture(clip)).decode()
            parts.append({"type": "image_url", "image_url": {"url": url}})
        roles = {"system": self.prompt, "user": parts}
        messages = [{"role": role, "content": content} for role, content in roles.items()]
        body = self.post({**self.options, "messages": messages}, {}, ANSWER)
        try:
            text = json.loads(body)["choices"][0]["message"]["content"]
            line = {"id": event["id"], "model": self.options["model"], "text": str(text)}
            with open(self.answers, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise Retry(f"{self.url}: no answer that can be read and stored: {error!r}") from error


SINKS = {"command": Command, "webhook": Webhook, "mqtt": Mqtt, "chat": Chat}


def _seconds(after: str) -> float:
    """The seconds of `Retry-After`: a number, or a date (RFC 9110, 10.2.3); 0 for neither."""
    if after.isascii() and after.isdigit():
        return float(after[:9])
    try:
        return max(0.0, parsedate_to_datetime(after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
