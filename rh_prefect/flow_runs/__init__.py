"""Paid jobs in a flow run: where their records are kept, what makes a call the same call again, and hooks on flows."""
