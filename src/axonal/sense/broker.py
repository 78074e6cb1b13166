"""What sources and sinks of MQTT share: a client with its user and its certificates."""

import os
import ssl
from pathlib import Path
from typing import Any

from ..core import files
from ..core.errors import FileError, InputError
from ..core.extras import require


def mqtt_client(
    username: str = "",
    password_env: str = "",
    password_file: str = "",
    tls: bool = False,
    ca: str = "",
    **options: Any,
) -> Any:
    """A client of paho-mqtt that is not connected yet.

    Args:
        username: of the broker.
        password_env, password_file: the password is read from that environment variable, or is
            the first line of that file; settings and addresses hold none.
        tls: encrypt, and check the certificate; so it is with a `ca`.
        ca: a file of certificates to trust, in the place of the system's.
        options: of the client.

    Raises:
        InputError: no such variable, both, or a password without a user. FileError: a file can't
            be read. MissingExtra: paho-mqtt is not installed.
    """
    paho = require("paho.mqtt.client", "watch")
    if (password_env and password_file) or ((password_env or password_file) and not username):
        raise InputError("mqtt: give a username, and its password_env or its password_file")
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, **options)
    if username:
        password = secret(password_env) if password_env else None
        if password_file:
            lines = files.readable(password_file).read_text().splitlines()
            password = lines[0].strip() if lines else ""
        client.username_pw_set(username, password)
    if tls or ca:
        try:
            client.tls_set(str(files.readable(Path(ca))) if ca else None)
        except (ssl.SSLError, OSError) as error:
            raise FileError(f"mqtt: {ca} holds no certificates: {error}") from error
    return client


def secret(variable: str) -> str:
    """The value of an environment variable that a configuration names.

    Raises:
        InputError: it is not set.
    """
    if not (value := os.environ.get(variable, "")):
        raise InputError(f"the environment variable {variable} is not set; export it first")
    return value
