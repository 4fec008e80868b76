"""Renders real media that show their request: pictures, videos, sound, text and 3D models."""

from __future__ import annotations

from rh_prefect.emulator.render.renderer import Rendered, Renderer

__all__ = ["Rendered", "Renderer"]
