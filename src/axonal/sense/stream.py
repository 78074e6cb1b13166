"""Packets of events or samples, and the interfaces of what gives, filters and scores them.

A packet is one structured array, ordered by its field "t" (microseconds, int64): events of a
camera (`EVENT`: t, x, y, p) or samples of channels (`sample_type(C)`: t, value [C]). So cutting by
time, pre-roll, replay and counting what was dropped are written once, for both.
"""

from collections.abc import Iterator, Mapping
from copy import copy
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..core.errors import InputError

# Aligned: 16 bytes an event, so that a field is read with one load.
EVENT = np.dtype([("t", np.int64), ("x", np.uint16), ("y", np.uint16), ("p", np.uint8)], align=True)
State = dict[str, Any]  # arrays, packets, numbers and strings: what a checkpoint can hold


def sample_type(channels: int) -> np.dtype:
    """The type of a packet of samples: t, and value [channels] float32."""
    return np.dtype([("t", np.int64), ("value", np.float32, (channels,))], align=True)


def samples(t: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A packet of samples: values [N, C] at the times t [N]."""
    packet = np.empty(len(t), sample_type(values.shape[1]))
    with np.errstate(over="ignore", invalid="ignore"):  # not finite in float32: readers refuse it
        packet["t"], packet["value"] = t, values
    return packet


def events(t, x, y, p) -> np.ndarray:
    """A packet of events from columns of equal length, in their order.

    Raises:
        InputError: lengths differ.
    """
    if len({len(t), len(x), len(y), len(p)}) != 1:
        raise InputError("events: t, x, y and p differ in length")
    packet = np.empty(len(t), EVENT)
    packet["t"], packet["x"], packet["y"], packet["p"] = t, x, y, p
    return packet


def channels_of(packet: np.ndarray) -> int:
    """The number of channels of a packet of samples; 0 for events."""
    return packet["value"].shape[1] if "value" in (packet.dtype.names or ()) else 0


def columns(packet: np.ndarray) -> dict[str, np.ndarray]:
    """A packet as a plain array a field, as files take it."""
    return {name: packet[name].copy() for name in packet.dtype.names or ()}


def rows(fields: Mapping[str, np.ndarray]) -> np.ndarray:
    """The packet that `columns` took apart."""
    kinds = [(name, value.dtype, value.shape[1:]) for name, value in fields.items()]
    packet = np.empty(len(fields["t"]), np.dtype(kinds, align=True))
    for name, value in fields.items():
        packet[name] = value
    return packet


class Source(Protocol):
    """An iterable of packets that can be closed.

    Attributes:
        width, height: of the camera; of samples, the channels and 1.
        dropped: events that are known to be lost: overwritten in a full queue, cut off by a
            damaged file, or missing between two numbered datagrams.
        position: where to go on after a restart; `seek(position)` before iterating does.

    A source may have more, which a watch then uses: `now`, how late it is in the stream (us) while
    nothing comes; `since(t_us)`, after a restart, that its rows come after t_us; `status`, in
    words; and, if `position` is not all of its state, `state` and `restore` of a `Stage`.
    """

    width: int
    height: int
    position: int

    @property
    def dropped(self) -> int: ...

    def __iter__(self) -> Iterator[np.ndarray]: ...

    def seek(self, position: int) -> None: ...

    def close(self) -> None:
        """End the iteration, from any thread, and whatever is open or under way for it."""
        ...


class Stage(Protocol):
    """Anything with a state: filters, detectors, thresholds, the cascade.

    What `state` returns and `restore` takes survives a restart: run on, a restored stage does
    what the first one would have done.
    """

    def state(self) -> State: ...

    def restore(self, state: Mapping[str, Any]) -> None: ...


class Stateful:
    """A `Stage` whose state is the attributes that `STATE` names.

    They are arrays, packets, numbers, lists, and stages. An array keeps its type and its shape, but
    that an axis may be empty as yet; packets have any length.
    """

    STATE: tuple[str, ...] = ()

    def state(self) -> State:
        """All that a restart needs, beside the options."""
        values = {name: getattr(self, name) for name in self.STATE}
        return {k: v.state() if hasattr(v, "state") else copy(v) for k, v in values.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where the object stood that gave `state`; it must have had the same options.

        Raises:
            InputError: the state is of another kind or size. Nothing was changed, but in stages
                that are part of this one.
        """
        name = type(self).__name__
        if set(state) != set(self.STATE):
            raise InputError(
                f"{name}: a state has {', '.join(self.STATE)}, not {', '.join(map(str, state))}; "
                f"begin anew, or use the {name} that wrote it"
            )
        values = {}
        for key, value in state.items():
            current = getattr(self, key)
            if hasattr(current, "state"):
                current.restore(value)
            elif not isinstance(current, np.ndarray):
                values[key] = type(current)(value)
            elif _fits(array := np.array(value), current):
                values[key] = array
            else:
                raise InputError(f"{name}: the state's {key} doesn't fit: it has another size")
        vars(self).update(values)


def _fits(value: np.ndarray, current: np.ndarray) -> bool:
    """Whether an array may replace the current one: of its type, and of its shape or empty."""
    sides = zip(value.shape, current.shape, strict=False)
    same = value.ndim == current.ndim and all(a == b or 0 in (a, b) for a, b in sides)
    return value.dtype == current.dtype and (same or current.dtype.names is not None)


class Filter(Stage, Protocol):
    """A score of each event by how much it looks like signal; events at `threshold` pass.

    `score(packet)` is [E] float32, higher for signal; `filter(packet)` is what passes. Either
    moves the state on.
    """

    threshold: float

    def __call__(self, packet: np.ndarray) -> np.ndarray: ...

    def score(self, packet: np.ndarray) -> np.ndarray: ...


class Detector(Stage, Protocol):
    """A score of how strange a vector of features is, by River's convention.

    `score_one(x)` is in [0, 1] and changes nothing; `learn_one(x)` learns from x. x is [F] float,
    or a mapping of names to numbers, whose order of names stays the same.
    """

    def score_one(self, x: Any) -> float: ...

    def learn_one(self, x: Any) -> None: ...


@runtime_checkable
class Follower(Protocol):
    """A detector that scores and learns many vectors at once.

    `follow(x)` returns the scores [T] of x [T, F], each of which is learned behind it; `channels`
    [T, F] tells how strange each feature was in these.
    """

    channels: np.ndarray

    def follow(self, x: np.ndarray) -> np.ndarray: ...
