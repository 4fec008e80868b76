"""One paid job: its records, its states, and the code that runs it.

- *Scope*: where jobs are recorded: the root flow run, or a named folder.
- *Journal*: the records of a scope. Each is created exclusively, and never changed or deleted.
- *Attempt*: one execution of a run. A later attempt finds the jobs of earlier ones in the journal and continues them.
- *Ticket*: the task id of an accepted submission, which may be charged.
"""
