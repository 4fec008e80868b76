"""Renders real media for a request: pictures, videos, sound, texts and solids that show what was asked for."""

from __future__ import annotations

from rh_prefect.emulator.render.renderer import Rendered, Renderer

__all__ = ["Rendered", "Renderer"]
