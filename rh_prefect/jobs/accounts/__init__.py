"""Who pays: this process's accounts at RunningHub, how much room each has, and how its tasks' ends are noticed."""
