"""Runs pipelines: schedules and makes steps, saves results, and applies the budget; independent of Prefect."""
