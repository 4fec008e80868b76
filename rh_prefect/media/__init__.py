"""Media files: types, storages, inputs and editing."""
