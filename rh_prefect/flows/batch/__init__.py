"""Batches: the same work on many rows, each accounted for."""

from rh_prefect.flows.batch.flow import batch
from rh_prefect.flows.batch.report import BatchReport, RowResult

__all__ = ["BatchReport", "RowResult", "batch"]
