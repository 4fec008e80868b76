"""AssumptionProbes of the life of a task and of its price."""

from __future__ import annotations

from decimal import Decimal

from rh_prefect.emulator import DEFAULT, Fault
from rh_prefect.emulator.accounts import Tier
from tests.emulator.assumption_probes.probe import AssumptionProbes
from tests.support.servers.caller import IMAGE, WORDS, Caller, Json

PROBES = AssumptionProbes()

FAILS = [Fault("submit", kind="fail")]


def ten_seconds(model: object, payload: object) -> tuple[float, float]:
    return 0.0, 10.0


def key_of(rh: Caller, tier: Tier) -> Caller:
    return Caller(rh.rh, rh.rh.keys.add(tier.lower(), tier=tier).secret)


def account(rh: Caller) -> Json:
    answer: Json = rh.http.post("/uc/openapi/accountStatus", json={"apikey": rh.key}).json()["data"]
    return answer


def usage(rh: Caller, task_id: str) -> Json:
    answer: Json = rh.query(task_id)["usage"]
    return answer


def cancelled(rh: Caller) -> str:
    task_id = str(rh.submit()["taskId"])
    assert rh.cancel(task_id)["code"] == 0
    return task_id


@PROBES("CANCELLED", ("CANCEL", "CANCEL"), ("CANCELLED", "CANCELLED"), clock="polls", polls=9)
def cancelled_status(rh: Caller) -> object:
    answer = rh.query(cancelled(rh))
    return answer["status"], answer["taskUsageList"][0]["taskStatus"]


@PROBES("CANCEL", "FAILED", "CANCEL", clock="polls", polls=9)
def v1_cancelled_status(rh: Caller) -> object:
    return rh.v1("/task/openapi/status", taskId=cancelled(rh))["data"]


@PROBES("807", 805, 807, clock="polls", polls=9)
def v1_cancelled_outputs(rh: Caller) -> object:
    return rh.outputs(cancelled(rh))["code"]


@PROBES(("805", ""), 0, 805)
def cancel_finished(rh: Caller) -> object:
    task_id = rh.submit()["taskId"]
    rh.query(task_id)
    code = rh.cancel(task_id)["code"]
    assert (rh.query(task_id)["status"], rh.rh.recorder.cancelled) == ("SUCCESS", [])
    return code


@PROBES(False, (0, 0), (807, 0), clock="polls", polls=9)
def cancel_models(rh: Caller) -> object:
    return rh.cancel(rh.submit()["taskId"])["code"], rh.cancel(rh.started())["code"]


@PROBES("1005", "1015", "1005", faults=FAILS)
def failed_model(rh: Caller) -> object:
    return rh.query(rh.submit()["taskId"])["errorCode"]


@PROBES(("1015", "no"), ("1000", "unknown error"), ("1015", "no"), faults=FAILS)
def failed_run(rh: Caller) -> object:
    answer = rh.query(rh.started())
    return answer["errorCode"], answer["errorMessage"]


@PROBES(("1505", ""), "1501", "1505", moderated=["lighthouse"])
def moderated(rh: Caller) -> object:
    return rh.query(rh.submit()["taskId"])["errorCode"]


@PROBES(("1501", ""), "", "1501", moderated=["lighthouse"])
def moderated_at_submit(rh: Caller) -> object:
    return rh.submit()["errorCode"]


@PROBES(("1520", ""), "421", "1520", limit=1, clock="polls", polls=9)
def queue_full_v2(rh: Caller) -> object:
    rh.submit()
    return rh.submit()["errorCode"]


@PROBES(("435", ""), 415, 435, clock="polls", polls=9)
def machines_full(rh: Caller) -> object:
    exclusive = key_of(rh, "EXCLUSIVE")
    exclusive.started()
    return exclusive.create()["code"]


@PROBES(1, 0, 814, clock="polls", polls=9)
def personal_queue(rh: Caller) -> object:
    exclusive = key_of(rh, "EXCLUSIVE")
    return [exclusive.create(usePersonalQueue=True)["code"] for _ in range(3)][-1]


@PROBES(("RUNNING",), "421", "", limit=1, clock="polls", polls=9)
def counted(rh: Caller) -> object:
    rh.submit()
    return rh.submit()["errorCode"]


@PROBES({**DEFAULT.default_limits, "NORMAL": 3, "SHARED": 100}, (50, 1), (100, 3))
def default_limits(rh: Caller) -> object:
    return tuple(caller.queue()["data"]["concurrentLimit"] for caller in (rh, key_of(rh, "NORMAL")))


@PROBES({**DEFAULT.api_types, "SHARED": "ENTERPRISE"}, ("SHARED", "SHARED"), ("ENTERPRISE", "ENTERPRISE"))
def api_types(rh: Caller) -> object:
    return rh.queue()["data"]["apiKeyType"], account(rh)["apiType"]


@PROBES("3", "0", "3")
def model_seconds(rh: Caller) -> object:
    return usage(rh, rh.submit()["taskId"])["taskCostTime"]


@PROBES("clientJobId", 2, 1)
def idempotency_field(rh: Caller) -> object:
    named = {**WORDS, "clientJobId": "7"}
    return len({rh.submit(body=named)["taskId"] for _ in range(2)})


@PROBES("USD", ("CNY", "CNY"), ("USD", "USD"))
def currency(rh: Caller) -> object:
    other = key_of(rh, "SHARED")
    return account(other)["currency"], preview(rh, IMAGE, WORDS)["currency"]


def preview(rh: Caller, endpoint: str, body: Json) -> Json:
    answer: Json = rh.post(f"/openapi/v2/price-preview/{endpoint}", body).json()
    return answer


def unpriced_preview(rh: Caller, endpoint: str = "test/unpriced") -> tuple[str, float | None]:
    rh.rh.add_model(endpoint)
    answer = preview(rh, endpoint, {"duration": 5})
    return answer["errorCode"], answer["estimatedPrice"]


@PROBES(Decimal(2), ("", 1.0), ("", 2.0), base={"preview_unpriced": None})
def unpriced(rh: Caller) -> object:
    return unpriced_preview(rh)


@PROBES(None, ("1501", None), ("", 1.0))
def preview_unpriced(rh: Caller) -> object:
    return unpriced_preview(rh)


@PROBES((IMAGE,), "", "1501")
def preview_lacking(rh: Caller) -> object:
    return preview(rh, IMAGE, WORDS)["errorCode"]


@PROBES({"test/*": Decimal("0.2")}, ("1501", None), ("", 0.2))
def preview_per_second(rh: Caller) -> object:
    return unpriced_preview(rh)


@PROBES(("test/*",), ("1501", None), ("", 0.0))
def preview_zero(rh: Caller) -> object:
    return unpriced_preview(rh)


@PROBES(("301", ""), {"errorCode": "1007"}, {"code": 301, "msg": "PARAMS_INVALID"})
def preview_bare_refusal(rh: Caller) -> object:
    answer = preview(rh, IMAGE, {})
    return {"errorCode": answer["errorCode"]} if "errorCode" in answer else answer


@PROBES(False, ("0", "0"), (0, 0))
def preview_counts_as_text(rh: Caller) -> object:
    answer = preview(rh, IMAGE, WORDS)
    return answer["freeLimitCount"], answer["remainingFreeLimitCount"]


@PROBES(("416", ""), ("812", 812), ("416", 416), money=0)
def empty_wallet(rh: Caller) -> object:
    return rh.submit()["errorCode"], rh.create()["code"]


@PROBES((), 812, 380, money=0)
def billing_gate_first(rh: Caller) -> object:
    return rh.v1("/task/openapi/create", workflowId="1")["code"]


@PROBES(("NORMAL",), (812, 414), (380, 414), money=0)
def billing_gate_tiers(rh: Caller) -> object:
    poor = Caller(rh.rh, rh.rh.keys.add("poor", tier="NORMAL", coins=0).secret)
    return tuple(caller.v1("/task/openapi/create", workflowId="1")["code"] for caller in (rh, poor))


@PROBES(Decimal(1), "2", "10", durations=ten_seconds)
def coins_per_second(rh: Caller) -> object:
    consumer = key_of(rh, "NORMAL")
    return usage(consumer, consumer.started())["consumeCoins"]


@PROBES(Decimal("0.002"), "0.01", "0.02", durations=ten_seconds)
def money_per_second(rh: Caller) -> object:
    return usage(rh, rh.started())["consumeMoney"]


@PROBES(Decimal("0.1"), "0.01", "0.1", durations=ten_seconds)
def money_step(rh: Caller) -> object:
    return usage(rh, rh.started())["consumeMoney"]


@PROBES({**DEFAULT.machine_factors, "plus": 3}, "0.02", "0.03", durations=ten_seconds)
def machine_factors(rh: Caller) -> object:
    return usage(rh, rh.started(instanceType="plus"))["consumeMoney"]


@PROBES("", 0, 301)
def unknown_machine(rh: Caller) -> object:
    return rh.create(instanceType="standard")["code"]


@PROBES((1, 180), 301, 0)
def retain_seconds(rh: Caller) -> object:
    return rh.create(retainSeconds=5)["code"]


@PROBES(Decimal(5), ("10000", "10000"), ("5", "5"))
def start_money(rh: Caller) -> object:
    return tuple(account(caller)["remainMoney"] for caller in (rh, key_of(rh, "SHARED")))


@PROBES({"NORMAL": 7}, "10000", "7")
def start_coins(rh: Caller) -> object:
    return account(key_of(rh, "NORMAL"))["remainCoins"]


@PROBES(False, None, "0.07", faults=FAILS)
def refund_failed_models(rh: Caller) -> object:
    return usage(rh, rh.submit()["taskId"])["thirdPartyConsumeMoney"]


@PROBES(True, "0.01", None, faults=FAILS, durations=ten_seconds)
def refund_failed_runs(rh: Caller) -> object:
    return usage(rh, rh.started())["consumeMoney"]


@PROBES({"QUEUED": False, "RUNNING": False}, None, "0.07", clock="polls", polls=9)
def refund_cancelled(rh: Caller) -> object:
    return usage(rh, cancelled(rh))["thirdPartyConsumeMoney"]


@PROBES(False, "0.005", "0.01", clock="real", factor=0, durations=ten_seconds)
def cancel_stops_charging(rh: Caller) -> object:
    task_id = rh.started()
    rh.rh.clock.advance(5)
    rh.cancel(task_id)
    return usage(rh, task_id)["consumeMoney"]


@PROBES("{amount} {currency}", "¥0.07/次", "0.07 CNY")
def price_text(rh: Caller) -> object:
    return preview(rh, IMAGE, WORDS)["priceText"]


@PROBES("{amount}", "CNY 0.07 per call", "0.07")
def price_text_en(rh: Caller) -> object:
    return preview(rh, IMAGE, WORDS)["priceTextEn"]
