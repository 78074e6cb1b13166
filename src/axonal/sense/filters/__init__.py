"""Filters of events: each scores how much an event looks like signal, and keeps by a threshold."""

from .filters import STCF, BackgroundActivity, HotPixel, LIFTrace, Refractory, TimeSurface
from .inhibited import InhibitedTrace

FILTERS = {  # by the name that a configuration calls them
    "hot_pixel": HotPixel,
    "refractory": Refractory,
    "background_activity": BackgroundActivity,
    "stcf": STCF,
    "time_surface": TimeSurface,
    "lif_trace": LIFTrace,
    "inhibited_trace": InhibitedTrace,
}

__all__ = [
    "FILTERS",
    "STCF",
    "BackgroundActivity",
    "HotPixel",
    "InhibitedTrace",
    "LIFTrace",
    "Refractory",
    "TimeSurface",
]
