"""Reads, checks, plans, prices and runs pipelines, which are YAML files; independent of Prefect.

- *Work*: one request with one take. It is paid for once, and all runs share its result.
- *Take*: a number that distinguishes several results of the same request.
- *Item*: one element of a fan-out; the steps of the fan-out are made for each item.
- *Result*: the record of a work's files and text outputs. If the record exists and its files are complete, the other
  records of the work are not read.
"""
