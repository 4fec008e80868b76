"""The contents of RunningHub's answers as frozen values, and the functions that read them from JSON.

These functions do not raise: a field that is missing, null or of an undocumented type becomes an empty value.
`rh_prefect.client.responses` decides whether an answer is an error.
"""
