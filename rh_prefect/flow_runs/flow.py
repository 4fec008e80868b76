"""`flow`: Prefect's own `@flow`, with the hooks that paid jobs need."""

from __future__ import annotations

from rh_prefect.flow_runs.flow_decorator import flow_with
from rh_prefect.flow_runs.hooks import cancel_remote_jobs, finish

flow = flow_with({"cancellation": cancel_remote_jobs, "completion": finish, "failure": finish})
"""Used and typed like `prefect.flow`.

A flow that it makes cancels its jobs at RunningHub when it is cancelled, leaves a table of its steps in the dashboard,
and brings home what an earlier attempt paid for and this one did not ask for.
"""
