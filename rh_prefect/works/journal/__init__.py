"""The records of paid jobs: their fields, where they are stored, and how they are written and read."""
