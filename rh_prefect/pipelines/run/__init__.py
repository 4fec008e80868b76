"""Runs pipelines: schedules and makes steps, saves results, applies the budget; independent of Prefect."""
