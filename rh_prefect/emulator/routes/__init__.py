"""The routes of the API, by family; each module lists its own in `ENDPOINTS`."""
