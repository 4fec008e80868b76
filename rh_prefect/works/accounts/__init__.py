"""This process's accounts at RunningHub, the free capacity of each, and the detection of ended tasks."""
