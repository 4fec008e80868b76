"""Batches: one model, or a chain of models, on many rows, with a report of each row."""

from rh_prefect.flows.batch.report import BatchReport, RowResult
from rh_prefect.flows.batch.run import batch_flow as batch

__all__ = ["BatchReport", "RowResult", "batch"]
