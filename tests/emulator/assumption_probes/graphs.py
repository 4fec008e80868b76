"""AssumptionProbes of workflows, apps and progress."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from rh_prefect.emulator.comfy.workflows import TEXT_TO_IMAGE
from tests.emulator.assumption_probes.probe import AssumptionProbes
from tests.support.servers.caller import Caller, Json, node

PROBES = AssumptionProbes()

GRAPH = json.dumps(TEXT_TO_IMAGE)
CREATE = "/task/openapi/create"


def locked(rh: Caller) -> str:
    return rh.rh.workflows.add(TEXT_TO_IMAGE, name="locked", password="open sesame")


def picture(rh: Caller, **body: Any) -> bytes:
    return httpx.get(rh.outputs(rh.started(addMetadata=False, **body))["data"][0]["fileUrl"]).content


def params(rh: Caller, **body: object) -> Json:
    asked = {"type": 2, "webappId": rh.rh.apps.id_of("Quick picture"), **body}
    answer: Json = rh.http.post("/api/fast/creation/model/params", json=asked).json()
    return answer


@PROBES(("803", ""), "1101", "803")
def node_info_v2(rh: Caller) -> object:
    workflow = rh.rh.workflows.id_of("text-to-image")
    return rh.submit(f"run/workflow/{workflow}", {"nodeInfoList": [node("66", "text", "x")]})["errorCode"]


@PROBES(("803", ""), 301, 803)
def wrong_password(rh: Caller) -> object:
    return rh.v1(CREATE, workflowId=locked(rh))["code"]


@PROBES(False, "", "301")
def v2_reads_password(rh: Caller) -> object:
    return rh.submit(f"run/workflow/{locked(rh)}", {"accessPassword": "open sesame"})["errorCode"]


@PROBES(False, "", "380")
def v2_reads_workflow(rh: Caller) -> object:
    return rh.submit("run/workflow/1", {"workflow": GRAPH})["errorCode"]


@PROBES((), 0, 380)
def placeholder_ids(rh: Caller) -> object:
    return rh.v1(CREATE, workflowId="1", workflow=GRAPH)["code"]


@PROBES(False, 803, 0)
def node_list_beside_graph(rh: Caller) -> object:
    return rh.create(workflow=GRAPH, nodeInfoList=[node("66", "text", "x")])["code"]


@PROBES(False, True, False)
def override_keeps_seeds(rh: Caller) -> object:
    return picture(rh, workflow=GRAPH) == picture(rh, workflow=GRAPH)


@PROBES(True, False, True)
def reads_random_seed(rh: Caller) -> object:
    return picture(rh, randomSeed=False) == picture(rh, randomSeed=False)


@PROBES(False, 803, 0)
def app_fields_only(rh: Caller) -> object:
    app_id = rh.rh.apps.id_of("Portrait restyle")
    return rh.v1("/task/openapi/ai-app/run", webappId=app_id, nodeInfoList=[node("3", "steps", 5)])["code"]


@PROBES(("901", ""), 301, 901)
def wrong_quick_code(rh: Caller) -> object:
    body = {"webappId": rh.rh.apps.id_of("Quick picture"), "quickCreateCode": "no", "nodeInfoList": []}
    return rh.v1("/task/openapi/quick-ai-app/run", **body)["code"]


@PROBES(True, (0, 0), (301, 0))
def quick_params_key(rh: Caller) -> object:
    return params(rh)["code"], params(rh, apiKey=rh.key)["code"]


@PROBES(60, 3600, 60)
def ticket_seconds(rh: Caller) -> object:
    (ticket,) = parse_qs(urlsplit(rh.create()["data"]["netWssUrl"]).query)["Rh-Comfy-Auth"]
    _, end, _ = base64.b64decode(ticket).decode().split(";")
    return round((int(end) - rh.rh.clock.now()) / 60) * 60
