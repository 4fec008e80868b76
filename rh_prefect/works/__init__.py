"""Pays for works: their records, states, accounts and outputs. No other code pays.

- *Work*: one request with one take in one scope, which is paid for once. A job of a flow is a work of its run.
- *Scope*: where works are recorded: the root flow run, a named folder, or the place that all runs share.
- *Journal*: the records of a scope. Each record is created exclusively, and never changed or deleted.
- *Attempt*: one execution of a run. A later attempt continues the jobs of earlier attempts, which are in the journal.
- *Ticket*: the task id of an accepted submission, which may be charged.
"""
