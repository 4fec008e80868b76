"""Paid jobs in flow runs: their journal, the scope of a call, hooks, reports, suspension and queries."""
