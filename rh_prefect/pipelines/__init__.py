"""Pipelines: one YAML file is read, checked, planned and priced; without Prefect, and without submitting."""
