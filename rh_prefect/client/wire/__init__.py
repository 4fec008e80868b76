"""The contents of RunningHub's responses as frozen values, and functions that read these values from JSON.

These functions do not raise: a field that is missing, null or of an undocumented type becomes an empty value.
`rh_prefect.client.responses` decides whether a response is an error.
"""
