"""The outputs of a paid job: its files, each published in one step, and the JSON file that describes them."""
