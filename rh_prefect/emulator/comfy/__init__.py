"""The part of ComfyUI that RunningHub's API exposes: graphs, nodes, validation and outputs."""
