"""Prefect tasks: one paid job, many, and the cutting of a film."""

from rh_prefect.tasks.assemble import Film, assemble
from rh_prefect.tasks.generate import generate
from rh_prefect.tasks.many import generate_many

__all__ = ["Film", "assemble", "generate", "generate_many"]
