"""Paid jobs in a flow run: where their records are stored, how calls are identified, and hooks on flows."""
