"""Pipelines: one YAML file is read, checked, planned and priced; nothing here knows Prefect or submits anything."""
