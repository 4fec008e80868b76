"""The routes of the API, by family; each module lists its routes in `ENDPOINTS` or `ROUTES`."""
