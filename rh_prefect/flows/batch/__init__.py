"""Batches: the same work on many rows, with a reported result for each row."""

from rh_prefect.flows.batch.flow import batch
from rh_prefect.flows.batch.report import BatchReport, RowResult

__all__ = ["BatchReport", "RowResult", "batch"]
