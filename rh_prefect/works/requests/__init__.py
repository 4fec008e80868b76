"""The requests of jobs: checked against the catalogue or the real graph, with their files read, before sending."""
