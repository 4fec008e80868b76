"""Pipelines: one YAML file is read, checked, planned and priced, and its works and edits are made; without Prefect.

- *Work*: one request with one take. No run owns it: it is paid for once, and all runs share its result.
- *Take*: the number of one of several results of the same request.
- *Item*: one element of a fan-out; the steps of the fan-out are made for each item.
- *Result*: the record of what a work has made. Where it exists and its files are whole, nothing else is read.
"""
