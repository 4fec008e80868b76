"""AssumptionProbes of the shape of refusals, of keys, and of lists."""

from __future__ import annotations

from rh_prefect.emulator import DEFAULT, Fault
from tests.emulator.assumption_probes.probe import AssumptionProbes
from tests.support.servers.caller import IMAGE, WORDS, Caller, Json

UNKNOWN = "2031112223334445057"

PROBES = AssumptionProbes()


def free(rh: Caller) -> Caller:
    return Caller(rh.rh, rh.rh.keys.add("free", tier="FREE").secret)


@PROBES(400, 200, 400)
def refusal_status(rh: Caller) -> object:
    return rh.post(f"/openapi/v2/{IMAGE}", {}).status_code


@PROBES(401, 200, 401)
def key_refusal_status(rh: Caller) -> object:
    return rh.http.post("/openapi/v2/query", json={}).status_code


@PROBES(429, 200, 429, faults=[Fault("submit", kind="code", code="1003")])
def rate_limit_status(rh: Caller) -> object:
    return rh.post(f"/openapi/v2/{IMAGE}", WORDS).status_code


@PROBES(403, 200, 403, base={"not_offered": ("*",)})
def not_offered_status(rh: Caller) -> object:
    return rh.post(f"/openapi/v2/{IMAGE}", WORDS).status_code


@PROBES(403, 401, 403)
def proxy_key_status(rh: Caller) -> object:
    return rh.http.get("/proxy/wrong/queue").status_code


@PROBES({**DEFAULT.refused_task, "taskId": None}, "", None)
def refused_task(rh: Caller) -> object:
    return rh.submit(body={})["taskId"]


@PROBES({"1520": "full"}, DEFAULT.unpublished_words["1520"], "full", faults=[Fault("submit", kind="code", code="1520")])
def unpublished_words(rh: Caller) -> object:
    return rh.submit()["errorMessage"]


TOO_FAST = Fault("submit", kind="code", code="TASK_CREATE_TOO_FAST")


@PROBES(("999", "TASK_CREATE_TOO_FAST"), 422, 999, faults=[TOO_FAST])
def too_fast(rh: Caller) -> object:
    return rh.create()["code"]


@PROBES(2, ["", "", ""], ["", "", "1003"])
def requests_per_minute(rh: Caller) -> object:
    return [rh.submit()["errorCode"] for _ in range(3)]


@PROBES(("806", ""), 801, 806)
def free_key(rh: Caller) -> object:
    return free(rh).v1("/task/openapi/status", taskId="1")["code"]


@PROBES(("1014", ""), "801", "1014")
def free_key_v2(rh: Caller) -> object:
    return free(rh).submit()["errorCode"]


def uploaded(rh: Caller, name: str = "a.png", data: bytes = b"x", *, part: str = "file") -> Json:
    answer: Json = rh.http.post(
        "/openapi/v2/media/upload/binary", files={part: (name, data)}, headers=rh.bearer()
    ).json()
    return answer


@PROBES(("1002", "no"), (401, "ApiKey verification failed: invalid api key"), (1002, "no"))
def upload_bad_key(rh: Caller) -> object:
    answer = uploaded(Caller(rh.rh, "wrong"))
    return answer["code"], answer["message"]


@PROBES(("apikey",), 0, 1601)
def account_key_fields(rh: Caller) -> object:
    return rh.http.post("/uc/openapi/accountStatus", json={"apiKey": rh.key}).json()["code"]


@PROBES(("412", ""), "", "412")
def wrong_host(rh: Caller) -> object:
    headers = {**rh.bearer(), "Host": "www.runninghub.cn"}
    return rh.http.post(f"/openapi/v2/{IMAGE}", json=WORDS, headers=headers).json()["errorCode"]


@PROBES("no {field}", "taskId must not be blank", "no taskId")
def v1_blank(rh: Caller) -> object:
    return rh.v1("/task/openapi/status")["msg"]


@PROBES(("404", "no"), 412, 404)
def v1_no_route(rh: Caller) -> object:
    return rh.http.get("/task/openapi/status").json()["code"]


@PROBES(("1004", ""), "1007", "1004")
def malformed_task_id(rh: Caller) -> object:
    return rh.query("abc")["errorCode"]


@PROBES(("1004", ""), "1007", "1004")
def missing_task_id(rh: Caller) -> object:
    return rh.query("")["errorCode"]


@PROBES(("807", ""), "1004", "807")
def unknown_task(rh: Caller) -> object:
    return rh.query(UNKNOWN)["errorCode"]


@PROBES("FAILED", "", "FAILED")
def unknown_task_status(rh: Caller) -> object:
    return rh.query(UNKNOWN)["status"]


@PROBES(("423", ""), 807, 423)
def v1_unknown_task(rh: Caller) -> object:
    return rh.cancel(UNKNOWN)["code"]


@PROBES("1007", (301, 301), (1007, 1007))
def list_refusal(rh: Caller) -> object:
    asked = (("aiapp/list", {"sort": "x"}), ("resource/list", {"resourceType": "LORA", "current": -1}))
    return tuple(rh.post(f"/openapi/v2/{path}", body).json()["code"] for path, body in asked)


@PROBES(2, "50", "2")
def list_page(rh: Caller) -> object:
    return rh.post("/openapi/v2/resource/list", {"resourceType": "LORA", "size": 60}).json()["data"]["size"]
