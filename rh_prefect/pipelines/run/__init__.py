"""Runs of pipelines: the steps that are ready, one step, names and budget; `ports` is all they need of Prefect."""
