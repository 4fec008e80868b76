"""The records of paid jobs: their content, place, writer and run. They are the authority on payments."""
