"""Rules by which a bucket deletes old objects, on a real S3 server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from rh_prefect.cli.doctor import doctor, expiry_rules
from rh_prefect.emulator import Emulator
from tests.support.servers.s3 import BUCKET, S3Server


@pytest.fixture
def place(s3: S3Server) -> Iterator[str]:
    url = s3.url("expiry")
    yield url
    s3.filesystem().call_s3("delete_bucket_lifecycle", Bucket=BUCKET)


def set_rule(s3: S3Server, prefix: str) -> None:
    rule: dict[str, Any] = {"ID": "old", "Status": "Enabled", "Filter": {"Prefix": prefix}, "Expiration": {"Days": 30}}
    s3.filesystem().call_s3(
        "put_bucket_lifecycle_configuration", Bucket=BUCKET, LifecycleConfiguration={"Rules": [rule]}
    )


def test_a_rule_that_covers_the_place_is_found_by_the_doctor(
    rh: Emulator, s3: S3Server, place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = place.removeprefix(f"s3://{BUCKET}/")
    monkeypatch.setenv("RH_STORAGE_URL", place)
    monkeypatch.setenv("RH_STORAGE_OPTIONS", json.dumps(s3.options))
    doctor()
    assert "no rule of the bucket deletes them" in capsys.readouterr().out
    set_rule(s3, f"{root}/works/")
    with pytest.raises(SystemExit):
        doctor()
    told = capsys.readouterr().out
    assert f"✗ records: the bucket has a rule that deletes records and results of pipelines in {place}" in told
    (rule,) = expiry_rules(place, s3.options)
    assert (rule.prefix, rule.when) == (f"{root}/works/", "after 30 days")
    set_rule(s3, "another-prefix/")
    assert expiry_rules(place, s3.options) == []


def test_other_places_have_no_rules() -> None:
    assert expiry_rules("/tmp/out", {}) == []
