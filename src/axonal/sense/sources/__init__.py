"""Sources of packets, by address or by class.

`open_source` opens what an address names. `Buffered` puts a bounded queue behind a source, `Replay`
sets its pace, `Encoded` turns its samples into events.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ...core.errors import InputError
from ..formats import open_file
from ..settings import build
from ..stream import Source
from .buffer import Buffered, Replay
from .encoders import Cochlea, Encoded, SendOnDelta
from .network import Live, Mqtt, Stdin, Tcp, Udp
from .radar import Radar
from .video import Pixels, Simulator, Video
from .wire import encode, send

__all__ = ["ENCODERS", "SCHEMES", "Pixels", "Simulator", "encode", "open_source", "send"]

ENCODERS = {"cochlea": Cochlea, "send_on_delta": SendOnDelta}


def open_source(
    url: str,
    *,
    speed: float | None = None,
    buffer: int = 1 << 20,
    encoder: Mapping[str, Any] | None = None,
    **options: Any,
) -> Source:
    """Open the source at an address.

    A path of a recording, "-" for standard input, udp://HOST:PORT, tcp://HOST:PORT (both listen),
    mqtt://[USER@]HOST[:PORT]/TOPIC (mqtts:// is encrypted), video:PATH (a file, a folder of
    pictures or a .npy), camera:NUMBER or radar:SEED (synthetic).

    Args:
        speed: replayed so many times as fast as it happened; None for as fast as can be.
        buffer: events that wait at most behind a live source; then the oldest are dropped, or
            standard input waits.
        encoder: samples become events: `kind`, one of ENCODERS, and its options.
        options: of the class that opens it. A network source needs `width` and `height` of its
            camera, or `channels`.

    Raises:
        InputError: no such scheme or encoder, a malformed address, an unknown option, or what the
            class raises. FileError, MissingExtra: as the class.
    """
    scheme, _, rest = url.partition(":")
    if url == "-":
        opener, arguments = Stdin, {}
    elif Path(url).exists() or not re.fullmatch("[a-z][a-z0-9]+:.*", url):
        scheme, opener, arguments = "path", open_file, {"path": url}
    elif scheme in SCHEMES:
        opener, parse = SCHEMES[scheme]
        try:
            arguments = parse(rest)
        except ValueError as error:
            shown = re.sub("//([^:/@]*):[^@]*@", r"//\1:***@", url)
            raise InputError(f"{shown}: {error}; write it as `open_source` says") from error
    else:
        raise InputError(f"{url}: no such source; there are a path, - and {', '.join(SCHEMES)}")
    source = build("source", {scheme: opener}, {"kind": scheme, **arguments, **options})
    if isinstance(source, Live) or scheme == "camera":
        source = Buffered(source, buffer, "wait" if url == "-" else "drop")
    if speed is not None:
        source = Replay(source, speed)
    return source if encoder is None else Encoded(source, _coder(source, encoder))


def _coder(source: Source, encoder: Mapping[str, Any]) -> Any:
    """An encoder of the source's samples, at its rate where it has one.

    Raises:
        InputError: as `build`, or the encoder's rate is another.
    """
    options, rate = dict(encoder), getattr(source, "rate", None)
    kind = ENCODERS.get(options.get("kind", ""))
    takes = rate and kind and "rate" in inspect.signature(kind).parameters
    if takes and options.setdefault("rate", rate) != rate:
        raise InputError(
            f"encoder: rate {options['rate']:g}, but the source has {rate:g} samples a second; "
            "leave it out"
        )
    return build("encoder", ENCODERS, options)


def _address(rest: str, port: int = 0) -> dict[str, Any]:
    """Host and port of //HOST:PORT."""
    parts = urlsplit(rest)
    if not parts.hostname:
        raise ValueError("it names no host")
    return {"host": parts.hostname, "port": parts.port or port}


def _topic(rest: str, port: int, **options: Any) -> dict[str, Any]:
    """What //[USER@]HOST[:PORT][/TOPIC] names; "#" is MQTT's wildcard."""
    parts = urlsplit(rest)
    if parts.password is not None:
        raise ValueError(
            "a password in an address ends up in logs; give password_env= or password_file="
        )
    user = {"username": unquote(parts.username)} if parts.username else {}
    topic = rest.lstrip("/").partition("/")[2] or "#"
    return {**_address(rest, port), "topic": topic, **user, **options}


# The class of a scheme, and its arguments from what follows the colon.
SCHEMES: dict[str, tuple[Callable[..., Any], Callable[[str], dict[str, Any]]]] = {
    "udp": (Udp, _address),
    "tcp": (Tcp, _address),
    "mqtt": (Mqtt, partial(_topic, port=1883)),
    "mqtts": (Mqtt, partial(_topic, port=8883, tls=True)),
    "video": (Video, lambda rest: {"frames": rest}),
    "camera": (Video, lambda rest: {"frames": int(rest)}),
    "radar": (Radar, lambda rest: {"seed": int(rest or 0)}),
}
