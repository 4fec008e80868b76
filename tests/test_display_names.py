from __future__ import annotations

from typing import Any

import pytest

from rh_prefect.display_names import beginning_of_prompt, with_prompt


@pytest.mark.parametrize(
    ("params", "shown"),
    [
        ({"prompt": "a red  mug\non a table"}, "a red mug on a table"),
        ({"prompt": " ", "text": "good morning"}, "good morning"),
        ({"prompt": {"3": {"class_type": "KSampler"}}}, ""),
        ({"imageUrl": "https://x/a.png"}, ""),
    ],
)
def test_the_prompt_of_a_request_is_a_text(params: dict[str, Any], shown: str) -> None:
    """A graph of ComfyUI, which is sent under the same name, was shown as Python's dict."""
    assert beginning_of_prompt(params) == shown
    assert with_prompt("model", shown) == (f"model ({shown})" if shown else "model")
