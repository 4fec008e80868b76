"""Batches: the same work on many rows, each accounted for."""

from rh_prefect.flows.batch.account import BatchAccount, Item
from rh_prefect.flows.batch.flow import batch

__all__ = ["BatchAccount", "Item", "batch"]
