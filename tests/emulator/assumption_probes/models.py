"""AssumptionProbes of a model's request and of its answer."""

from __future__ import annotations

from rh_prefect.catalog import Param
from rh_prefect.emulator.accounts import Tier
from tests.emulator.assumption_probes.files import WAV, sent
from tests.emulator.assumption_probes.probe import AssumptionProbes
from tests.support.servers.caller import CLIP, IMAGE, WORDS, Caller

PROBES = AssumptionProbes()

PROMPT = Param("prompt", "prompt", "string")
CLIP_BODY = {"prompt": "waves", "sound": "false", "duration": "5"}


def key_of(rh: Caller, tier: Tier) -> Caller:
    return Caller(rh.rh, rh.rh.keys.add(tier.lower(), tier=tier).secret)


def first_result(rh: Caller, endpoint: str, **body: object) -> dict[str, object]:
    found: dict[str, object] = rh.query(rh.submit(endpoint, body)["taskId"])["results"][0]
    return found


@PROBES(("params", "tier", "webhook", "content", "people", "files"), "1014", "1007")
def model_checks(rh: Caller) -> object:
    return key_of(rh, "NORMAL").submit(body={})["errorCode"]


@PROBES(("SHARED", "EXCLUSIVE"), "1014", "")
def model_tiers(rh: Caller) -> object:
    return key_of(rh, "EXCLUSIVE").submit()["errorCode"]


@PROBES(("rhart-*",), "", "40310")
def not_offered(rh: Caller) -> object:
    return rh.submit(IMAGE)["errorCode"]


@PROBES("{field} must not be blank", "field 'prompt' is required, can not be empty", "prompt must not be blank")
def param_required(rh: Caller) -> object:
    return rh.submit(body={"aspectRatio": "1:1"})["errorMessage"]


@PROBES("no {value}", "field 'aspectRatio' value 7:7 is not in the allowed options", "no 7:7")
def param_option(rh: Caller) -> object:
    return rh.submit(body={**WORDS, "aspectRatio": "7:7"})["errorMessage"]


@PROBES((IMAGE,), "", "1000")
def withdrawn(rh: Caller) -> object:
    return rh.submit()["errorCode"]


@PROBES(False, "1007", "")
def missing_default_refused(rh: Caller) -> object:
    rh.rh.add_model("test/model", params=[Param("size", "size", "string", required=True, default="1K")])
    return rh.submit("test/model", {})["errorCode"]


@PROBES(False, ["1007"] * 4, [""] * 4)
def strict_types(rh: Caller) -> object:
    options = Param("seconds", "seconds", "enum", options=("5",))
    numbers = (Param("count", "count", "int", max=9), Param("scale", "scale", "float"))
    rh.rh.add_model("test/model", params=[options, *numbers, Param("sound", "sound", "bool")])
    wrong: tuple[dict[str, object], ...] = ({"seconds": 5}, {"count": "9"}, {"scale": "0.5"}, {"sound": "true"})
    return [rh.submit("test/model", body)["errorCode"] for body in wrong]


@PROBES(False, "", "1007")
def unknown_params_pass(rh: Caller) -> object:
    return rh.submit(body={**WORDS, "appCode": "x", "webhookUrl": "http://127.0.0.1:9/"})["errorCode"]


@PROBES("1007", "1013", "1007")
def bad_file(rh: Caller) -> object:
    return rh.submit(CLIP, {**CLIP_BODY, "imageUrl": sent(rh, "a.wav", WAV)})["errorCode"]


@PROBES((), "1505", "")
def real_people_families(rh: Caller) -> object:
    rh.rh.options.update(real_people=True)
    rh.rh.add_model("seedance-2.0/test", params=[Param("imageUrl", "image_url", "image")])
    return rh.submit("seedance-2.0/test", {"imageUrl": sent(rh)})["errorCode"]


@PROBES("lines", "{", "e")
def id_answers(rh: Caller) -> object:
    rh.rh.add_model("kling-elements/test", output="text", params=[PROMPT])
    return str(first_result(rh, "kling-elements/test", prompt="a cat")["text"])[0]


@PROBES(False, None, "mp3")
def lyrics_as_text(rh: Caller) -> object:
    rh.rh.add_model("test/lyrics", output="audio", params=[PROMPT])
    result = first_result(rh, "test/lyrics", prompt="a cat")
    return result["outputType"] if result["url"] else None


@PROBES("text", "txt", "text")
def text_output_type(rh: Caller) -> object:
    rh.rh.add_model("test/words", output="text", params=[PROMPT])
    return first_result(rh, "test/words", prompt="a cat")["outputType"]
