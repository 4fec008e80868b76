"""Batches: one model, or a chain of models, on many rows, with a report of each row."""

from rh_prefect.flows.batch.flow import batch
from rh_prefect.flows.batch.report import BatchReport, RowResult

__all__ = ["BatchReport", "RowResult", "batch"]
