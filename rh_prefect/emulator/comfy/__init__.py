"""ComfyUI as far as RunningHub's API shows it: graphs, their nodes, their validation, and what they make."""
