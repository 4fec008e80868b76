"""What RunningHub's answers hold, as frozen values, and the readers that make them from JSON.

The readers are total: a field that is missing, null or of another type than documented becomes an empty value, never an
exception. Whether an answer stands for an error is decided in `rh_prefect.client.responses`.
"""
