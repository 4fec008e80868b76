"""The parts of `works/` that depend on RunningHub: graphs, machines of its native proxy, v1 requests and node progress.

Other modules use only the class `provider.RunningHub`.
"""
