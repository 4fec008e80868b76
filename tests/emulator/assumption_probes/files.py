"""AssumptionProbes of uploads, links and LoRAs."""

from __future__ import annotations

import hashlib
from urllib.parse import parse_qs, urlsplit

import httpx

from tests.emulator.assumption_probes.probe import AssumptionProbes
from tests.emulator.assumption_probes.refusals import uploaded
from tests.support.samples import media as samples
from tests.support.servers.caller import Caller, Json

PROBES = AssumptionProbes()

PNG = samples.picture("PNG")
WAV = samples.sound("wav", "pcm_s16le")
MD5 = hashlib.md5(b"weights").hexdigest()


def sent(rh: Caller, name: str = "a.png", data: bytes = PNG) -> str:
    """Uploads a file and returns its link."""
    return str(uploaded(rh, name, data)["data"]["download_url"])


def legacy(rh: Caller, name: str = "a.png", data: bytes = PNG, *, part: str = "file") -> Json:
    form = {"apiKey": rh.key, "fileType": "input"}
    answer: Json = rh.http.post("/task/openapi/upload", data=form, files={part: (name, data)}).json()
    return answer


def lora(rh: Caller, md5: str = MD5) -> Json:
    return rh.v1("/api/openapi/getLoraUploadUrl", loraName="style", md5Hex=md5)


@PROBES(200, 0, 200)
def upload_success_code(rh: Caller) -> object:
    return uploaded(rh, data=PNG)["code"]


@PROBES(10, 0, 1008)
def upload_max_bytes(rh: Caller) -> object:
    return uploaded(rh, data=PNG)["code"]


@PROBES({"txt": "text"}, 0, 1007)
def upload_extensions(rh: Caller) -> object:
    return uploaded(rh, data=PNG)["code"]


@PROBES(("1013", ""), 1007, 1013)
def upload_unsupported(rh: Caller) -> object:
    return uploaded(rh, "a.exe")["code"]


@PROBES(("1013", ""), 1007, 1013)
def upload_empty(rh: Caller) -> object:
    return uploaded(rh, data=b"")["code"]


@PROBES(("1013", ""), (1007, 1007), (1013, 1013))
def upload_no_file(rh: Caller) -> object:
    no_form = rh.post("/openapi/v2/media/upload/binary").json()
    return uploaded(rh, part="other")["code"], no_form["code"]


@PROBES(("808", ""), 301, 808)
def legacy_unsupported(rh: Caller) -> object:
    return legacy(rh, "a.exe")["code"]


@PROBES(("808", ""), (301, 301), (808, 808))
def legacy_no_file(rh: Caller) -> object:
    return legacy(rh, part="other")["code"], legacy(rh, data=b"")["code"]


@PROBES(10, (200, 200), (200, 403))
def link_seconds(rh: Caller) -> object:
    return after_a_minute(rh)


@PROBES(10, (200, 200), (404, 200))
def result_seconds(rh: Caller) -> object:
    return after_a_minute(rh)


def after_a_minute(rh: Caller) -> object:
    links = rh.result(), sent(rh)
    rh.rh.clock.advance(60)
    return tuple(httpx.get(link).status_code for link in links)


@PROBES(True, False, True)
def signed_results(rh: Caller) -> object:
    link = rh.result()
    assert httpx.get(link).status_code == 200
    return "q-signature" in link


@PROBES(410, 403, 410)
def expired_upload_status(rh: Caller) -> object:
    link = sent(rh)
    rh.rh.clock.advance(90_000)
    return httpx.get(link).status_code


@PROBES(410, 404, 410)
def expired_result_status(rh: Caller) -> object:
    link = rh.result()
    rh.rh.clock.advance(90_000)
    return httpx.get(link).status_code


@PROBES(60, 3600, 60)
def lora_link_seconds(rh: Caller) -> object:
    (window,) = parse_qs(urlsplit(lora(rh)["data"]["url"]).query, separator="&")["q-sign-time"]
    start, end = map(int, window.split(";"))
    return end - start


@PROBES("api-lora", "api-lora-cn", "api-lora")
def lora_folder(rh: Caller) -> object:
    answer = lora(rh)["data"]
    assert httpx.put(answer["url"], content=b"weights").status_code == 200
    return answer["fileName"].partition("/")[0]


@PROBES(False, 400, 200)
def lora_checked(rh: Caller) -> object:
    return httpx.put(lora(rh)["data"]["url"], content=b"other").status_code


@PROBES(("1007", ""), 301, 1007)
def bad_md5(rh: Caller) -> object:
    return lora(rh, "no sum")["code"]
