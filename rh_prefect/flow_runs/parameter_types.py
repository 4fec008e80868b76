"""Types of the parameters of flows; the command line builds its options from them, without importing Prefect."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

Aspect = Literal["16:9", "9:16", "1:1"]
ClipSeconds = Literal[5, 10]
Resolution = Literal["720p", "1080p", "2k", "4k"]
Reuse = Literal["never", "always"]

Budget = Annotated[float, Field(gt=0)]
"""The maximum cost of all jobs of a run, in the account's currency."""

Attempts = Annotated[int, Field(ge=1)]
"""Tasks that one job may pay for until the run is resumed by hand."""

LONGEST_MUSIC = 400
"""Characters that the music's model takes."""

Music = Annotated[str, Field(max_length=LONGEST_MUSIC)]
"""A description of music."""
