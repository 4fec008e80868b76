"""The part of ComfyUI that RunningHub's API shows: graphs, nodes, validation and outputs."""
