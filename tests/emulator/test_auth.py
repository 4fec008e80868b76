"""Four families, four places for the key, four forms of saying that it is wrong."""

from __future__ import annotations

import httpx
import pytest

from tests.support.servers.caller import IMAGE, WORDS, Caller

GATEWAY = {"code": 412, "msg": "TOKEN_INVALID"}
V2 = [
    ("POST", f"/openapi/v2/{IMAGE}"),
    ("POST", "/openapi/v2/query"),
    ("POST", f"/openapi/v2/price-preview/{IMAGE}"),
    ("GET", "/openapi/v2/queue/status"),
    ("GET", "/openapi/v2/api-key/list"),
    ("POST", "/openapi/v2/resource/list"),
    ("POST", "/openapi/v2/assets/list"),
    ("POST", "/openapi/v2/run/workflow/1"),
    ("POST", "/openapi/v2/no/such/model"),
    ("GET", f"/openapi/v2/{IMAGE}"),
]


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer", "{key}", "Basic {key}"])
@pytest.mark.parametrize(("method", "path"), V2)
def test_v2_without_a_valid_bearer_header_is_stopped_by_the_gateway(
    rh: Caller, method: str, path: str, header: str | None
) -> None:
    headers = {"Authorization": header.format(key=rh.key)} if header else {}
    body = {**WORDS, "apiKey": rh.key} if method == "POST" else None
    answer = rh.http.request(method, path, headers=headers, json=body)
    assert (answer.status_code, answer.json()) == (200, GATEWAY)
    assert not rh.rh.recorder.submissions


@pytest.mark.parametrize("header", [None, "Bearer wrong"])
def test_the_upload_checks_the_key_itself(rh: Caller, header: str | None) -> None:
    headers = {"Authorization": header} if header else {}
    answer = rh.http.post("/openapi/v2/media/upload/binary", files={"file": ("a.png", b"x")}, headers=headers)
    refused = answer.json()
    assert (answer.status_code, refused["code"], refused["data"], "msg" in refused) == (200, 401, None, False)
    assert refused["message"].startswith("ApiKey verification failed")


@pytest.mark.parametrize("body", [{}, {"apiKey": ""}, {"apiKey": "  "}, {"apikey": "{key}"}])
def test_v1_wants_the_key_in_the_body_and_a_header_does_not_help(rh: Caller, body: dict[str, str]) -> None:
    answer = rh.post("/task/openapi/cancel", {"taskId": "1", **body}).json()
    assert (answer["code"], answer["data"]) == (301, None)
    assert answer["msg"].endswith("must not be blank")


def test_v1_with_a_wrong_key_and_a_misspelt_path(rh: Caller) -> None:
    answer = rh.post("/task/openapi/cancel", {"taskId": "1", "apiKey": "wrong"}).json()
    assert answer == {"code": 802, "msg": "APIKEY_UNAUTHORIZED", "errorMessages": None, "data": None}
    assert httpx.post(f"{rh.rh.url}/task/openapi/cancle", json={"apiKey": rh.key}).json() == GATEWAY


@pytest.mark.parametrize("body", [{}, {"apikey": ""}, {"apiKey": ""}, {"api_key": "x"}])
def test_the_account_needs_its_key_in_the_body(rh: Caller, body: dict[str, str]) -> None:
    answer = rh.post("/uc/openapi/accountStatus", body).json()
    assert (answer["code"], answer["msg"]) == (1601, "param apiKey is required")


def test_unknown_paths_and_methods_of_v2(rh: Caller) -> None:
    assert rh.submit("no/such/model")["errorCode"] == "1001"
    answer = rh.http.get(f"/openapi/v2/{IMAGE}", headers=rh.bearer()).json()
    assert (answer["errorCode"], answer["taskId"], answer["results"]) == ("1009", "", None)
    assert rh.submit("queue/status")["errorCode"] == "1009"  # a path that is only read
    assert rh.submit("api-key/list")["errorCode"] == "1009"
