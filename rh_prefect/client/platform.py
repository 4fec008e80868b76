"""The account's keys and the public model library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rh_prefect.client import responses, wire
from rh_prefect.client.core import Core, usable_page
from rh_prefect.client.responses import RequestInfo
from rh_prefect.client.wire import ApiKey, Page, Resource

ResourceKind = Literal["UNET", "CHECKPOINT", "LORA", "GGUF"]


class Platform:
    """Asks about the platform itself."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def api_keys(self) -> tuple[ApiKey, ...]:
        """Lists the account's keys, masked.

        Raises:
            ConnectFailed: No connection.
            ResponseLost: No readable answer.
            ApiError: By the table of codes.
        """
        ask = RequestInfo("list of API keys")
        return wire.read_api_keys(responses.with_rows(await self._core.call("openapi/v2/api-key/list", None, ask), ask))

    async def resources(
        self,
        kind: ResourceKind,
        *,
        name: str = "",
        base_models: Sequence[str] = (),
        tags: Sequence[str] = (),
        page: int = 1,
        size: int = 50,
    ) -> Page[Resource]:
        """Searches the public models that loader nodes can name.

        Args:
            kind: What kind of model.
            name: A part of its name.
            base_models: Only those made for one of these.
            tags: Only those with one of these tags, by their ids.
            page: From 1.
            size: 50 at most.

        Raises:
            InputError: There is no such page.
            ConnectFailed: No connection.
            ResponseLost: No readable answer.
            ApiError: By the table of codes.
        """
        usable_page(page, size, largest=50)
        ask = RequestInfo(f"page {page} of the {kind} resources")
        given: dict[str, object] = {"resourceName": name, "baseModels": list(base_models), "tags": _tag_ids(tags)}
        body = {"resourceType": kind, "current": page, "size": size, **{k: v for k, v in given.items() if v}}
        answer = await self._core.call("openapi/v2/resource/list", body, ask)
        return wire.read_resource_page(responses.with_data(answer, ask), number=page)


def _tag_ids(tags: Sequence[str]) -> list[int | str]:
    return [int(tag) if tag.isascii() and tag.isdigit() else tag for tag in tags]  # clients send numbers
