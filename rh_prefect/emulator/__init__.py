"""A local RunningHub emulator: the API, the file host, real media, a clock, scripted faults and recorded requests."""

from rh_prefect.emulator.assumptions import DEFAULT, Assumptions
from rh_prefect.emulator.comfy.apps import AppField
from rh_prefect.emulator.emulator import Emulator, serve
from rh_prefect.emulator.faults import Fault

__all__ = ["DEFAULT", "AppField", "Assumptions", "Emulator", "Fault", "serve"]
