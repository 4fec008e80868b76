"""Composed flows: chains of paid steps, with parameters that Prefect's dashboard shows as a form."""

from rh_prefect.flows.batch import batch
from rh_prefect.flows.film import FilmResult, film
from rh_prefect.flows.image_to_video import image_to_video
from rh_prefect.flows.models import any_model, for_model
from rh_prefect.flows.reconcile import reconcile
from rh_prefect.flows.soundtrack import add_soundtrack
from rh_prefect.flows.spend import spend
from rh_prefect.flows.upscale import upscale

__all__ = [
    "FilmResult",
    "add_soundtrack",
    "any_model",
    "batch",
    "film",
    "for_model",
    "image_to_video",
    "reconcile",
    "spend",
    "upscale",
]
