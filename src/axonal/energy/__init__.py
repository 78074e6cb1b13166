"""From counts to joules, with a range, a source and what is left out; and the report."""
