"""What an assessment finds: by layer, by way of executing by events, and the verdict."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..energy import Energy, Range

NOTHING = Range(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Way:
    """Execution by events of `levels` in `steps`; with 0 levels, of what changed in a sample."""

    name: str
    steps: int
    levels: int

    @property
    def words(self) -> str:
        """What is sent."""
        steps = f"{self.steps} step{'s' if self.steps > 1 else ''}"
        return f"{self.name} spikes in {steps}" if self.levels else "changes alone"


@dataclass(frozen=True, kw_only=True)
class AssessedLayer:
    """A convolution or linear map.

    Attributes:
        name: of its node.
        sites: values that it reads of a sample.
        zeros: share of zeros among them.
        change: share that moves from sample to sample.
        dense: multiply-adds of a sample.
        ann: as an int8 ANN; its `reuse` is the uses of a weight in a sample.
        skipping: joules as one that spends nothing on zeros.
        sent: events of a site by way; None where the layer reads the input, and stays dense.
        break_even: of `sent`, in each memory scenario.
        joules: by way.
    """

    name: str
    sites: float
    zeros: float
    change: float
    dense: float
    ann: Energy
    skipping: Range
    sent: Mapping[str, float | None]
    break_even: Mapping[str, Range]
    joules: Mapping[str, Range]

    def pays(self, way: Way) -> list[bool]:
        """Whether it costs less than the ANN, in each memory scenario."""
        both = zip(self.joules[way.name], self.ann.total, strict=True)
        return [events < ann for events, ann in both]


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """What spiking would save, and what to do.

    Attributes:
        samples: that were looked at.
        layers: in the order of execution.
        ways: open to the network.
        ann: energy of the int8 ANN.
        apart: operations that are in no figure.
        method: of `convert`; None if there is nothing to convert.
        why: that one.
    """

    samples: int
    layers: tuple[AssessedLayer, ...]
    ways: tuple[Way, ...]
    ann: Energy
    apart: tuple[str, ...]
    method: str | None = None
    why: str = ""

    def mean(self, share: str) -> float:
        """ "zeros" or "change" over all that layers read."""
        total = sum(getattr(layer, share) * layer.sites for layer in self.layers)
        return total / sum(layer.sites for layer in self.layers)

    def rate(self, way: Way) -> float:
        """Events of a site and step, over the layers that would read events."""
        sent = [(x.sent[way.name], x.sites) for x in self.layers]
        driven = [(events, sites) for events, sites in sent if events is not None]
        total = sum(sites for _, sites in driven) * way.steps
        return sum(events * sites for events, sites in driven) / total if total else 0.0

    def times(self, way: Way | None = None, reuse: bool = True) -> Range:
        """Joules by events, or, for None, of an ANN that skips zeros, beside the int8 ANN's.

        Without `reuse`, that one fetches a weight for every use.
        """
        each = (layer.joules[way.name] if way else layer.skipping for layer in self.layers)
        fetched = (x.ann.parts["weight_reads"] * (x.ann.reuse - 1) for x in self.layers)
        ann = self.ann.total + (NOTHING if reuse else sum(fetched, NOTHING))
        return Range(*(e / a for e, a in zip(sum(each, NOTHING), ann, strict=True)))

    @property
    def best(self) -> Way:
        """The way that costs least."""
        return min(self.ways, key=lambda way: self.times(way).nominal)

    def paying(self) -> list[list[str]]:
        """The layers that would pay in some way, in each memory scenario."""
        table = {x.name: [x.pays(way) for way in self.ways] for x in self.layers}
        return [[n for n, ways in table.items() if any(w[i] for w in ways)] for i in range(3)]

    @property
    def verdict(self) -> str:
        """A sentence or two; it may be that converting is not worth it."""
        if self.method is None:
            return f"Not worth it: {self.why}."
        times = self.times(self.best)
        alone = dict.fromkeys(name for names in self.paying() for name in names)
        span = " to ".join(dict.fromkeys(map(short, (min(times), max(times)))))
        cost = f"{self.best.words} would cost {span} times the int8 ANN"
        if min(times) < 1:
            return f"{'Worth it' if max(times) < 1 else 'It depends on the memory'}: {cost}."
        if alone:
            return f"Not worth it as a whole: even {cost}. Alone would pay: {', '.join(alone)}."
        return f"Not worth it: no layer pays by events in any memory; even {cost}."


def short(x: float) -> str:
    """To two digits, without exponents above 1."""
    return f"{x:.2g}" if x < 99.5 else f"{x:,.0f}"
