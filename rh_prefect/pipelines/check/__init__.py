"""Checks a file without its inputs: its names, types of references, parameters of models and edits, and steps."""

from rh_prefect.pipelines.check.checked_file import SHIPPED, Checked, read_text
from rh_prefect.pipelines.check.file import check_document, notes_of
from rh_prefect.pipelines.check.literal_conversion import edit_value, no_caption, read_value, wrong_input, wrong_value
from rh_prefect.pipelines.check.paid_steps import wrong_fields

__all__ = [
    "SHIPPED",
    "Checked",
    "check_document",
    "edit_value",
    "no_caption",
    "notes_of",
    "read_text",
    "read_value",
    "wrong_fields",
    "wrong_input",
    "wrong_value",
]
