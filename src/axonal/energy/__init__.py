"""Costs and prices: cost tables, and counts to joules with a range and what is left out."""

from .pricing import EVENT_STATE_BITS, PARTS, BreakEven, Energy, break_even, price, scale_events
from .tables import Cost, CostTable, Range, datapath, load, table_names

__all__ = [
    "EVENT_STATE_BITS",
    "PARTS",
    "BreakEven",
    "Cost",
    "CostTable",
    "Energy",
    "Range",
    "break_even",
    "datapath",
    "load",
    "price",
    "scale_events",
    "table_names",
]
