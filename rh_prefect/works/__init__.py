"""Pays for works, and handles their records, states, accounts and outputs. No other code pays.

- *Work*: one request with one take in one scope, which is paid for once. A job of a flow is a work of the flow's run.
- *Scope*: where works are recorded: the root flow run, a named folder, or the place that all runs share.
- *Journal*: the records of a scope. Each record is created exclusively, and never changed or deleted.
- *Attempt*: one execution of a run. A later attempt reads the jobs of earlier attempts from the journal, and continues
  them.
- *Ticket*: the task id of an accepted submission, whose task may be charged.
"""
