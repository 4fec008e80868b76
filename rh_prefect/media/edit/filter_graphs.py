"""Builds graphs of FFmpeg's filters, and passes frames through them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

import av
from av.filter import Graph
from av.filter.context import FilterContext

Frame = TypeVar("Frame", av.VideoFrame, av.AudioFrame)


def linked(graph: Graph, source: FilterContext, *steps: str) -> FilterContext:
    """Adds filters, each as `name` or `name=arguments`, one after the other behind a source; returns the last one."""
    nodes = [graph.add(*step.split("=", 1)) for step in steps]
    graph.link_nodes(source, *nodes)
    return nodes[-1]


def filtered(graph: Graph, source: FilterContext, frames: Iterable[Frame], kind: type[Frame]) -> Iterator[Frame]:
    """Passes frames through a graph with one input."""
    for frame in frames:
        source.push(frame)
        yield from pulled(graph, kind)
    source.push(None)
    yield from pulled(graph, kind)


def pulled(graph: Graph, kind: type[Frame]) -> Iterator[Frame]:
    """Yields the frames that a graph has ready."""
    while True:
        try:
            frame = graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return
        if isinstance(frame, kind):
            yield frame
