"""What a job asks for: checked against the catalogue or the real graph, its files read, before anything is sent."""
