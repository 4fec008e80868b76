"""The outputs of a paid job: its files, each published in one step, and the manifest that lists them."""
