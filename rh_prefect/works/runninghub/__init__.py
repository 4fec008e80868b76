"""What is special to RunningHub: its graphs, the machines of its native proxy, v1 starts and node progress.

The rest of `works/` knows it by the class `provider.RunningHub`.
"""
