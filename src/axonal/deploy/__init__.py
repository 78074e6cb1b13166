"""Networks as graphs: traced, exchanged, and run so that work follows events."""
