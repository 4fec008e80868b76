"""Runs of pipelines: steps that are ready, one step, names, budget; `surroundings` is all they need of Prefect."""
