from __future__ import annotations

from typing import Any

from rh_prefect.works.journal.identity import base_hash, file_mark, graph_base, media_mark, text_hash, work_id
from rh_prefect.works.journal.job_records_and_state import result_key

ASKED: dict[str, Any] = {
    "site": "www.runninghub.cn",
    "endpoint": "kling-v2.6-pro/image-to-video",
    "payload": {"prompt": "waves", "duration": "5", "imageUrl": media_mark("a" * 64)},
}


def test_equal_requests_have_equal_hashes_in_any_order_of_parameters() -> None:
    turned = dict(reversed(ASKED["payload"].items()))
    assert base_hash(**ASKED) == base_hash(**{**ASKED, "payload": turned})


def test_each_part_of_the_request_changes_the_hash() -> None:
    changes = {"prompt": "waves "}, {"duration": 5}, {"imageUrl": media_mark("b" * 64)}, {"seed": 1}
    requests = [ASKED, {**ASKED, "site": "www.runninghub.ai"}, {**ASKED, "endpoint": "kling-v2.6-pro/text-to-video"}]
    requests += [{**ASKED, "payload": ASKED["payload"] | one} for one in changes]
    assert len({base_hash(**request) for request in requests}) == len(requests)


def test_values_in_lists_count_and_5_is_5_point_0() -> None:
    def hash_of(value: object) -> str:
        return base_hash(**{**ASKED, "payload": {"sizes": [value]}})

    assert hash_of(5.0) == hash_of(5) != hash_of(5.5)


def test_the_hashes_and_ids_are_stable() -> None:
    """Another hash would make every paid work a new work."""
    assert base_hash(**ASKED) == "8c74710391e9486bc802b57cc10157f66a88461d"
    in_chinese = base_hash(site="www.runninghub.cn", endpoint="e", payload={"prompt": "灯塔 🗼"})
    assert in_chinese == "424291621b251827ba8041f532ab71157fd1358c"
    surrogate = base_hash(site="www.runninghub.cn", endpoint="e", payload={"prompt": "half an emoji \ud83d"})
    assert surrogate == "a1851578a9840b6fb24f52c37136268598d3e8b7"
    assert (media_mark("abc"), file_mark("abc")) == ("sha256:abc", "file-sha256:abc")
    assert text_hash("file:///a.png", 24) == "b3f8ee1c31152d29ed735c78"
    assert graph_base("b" * 40, "") == "b" * 40
    assert graph_base("b" * 40, "g") == "41a8e6dd2e8a64cf606f0e56c1fd9c5c9f36b28b"
    assert result_key("b1", "aa") == "b1-result-961b6dd3ede3cb8e"
    assert work_id("b" * 40, 2) == "0b985fe83bd8d85fa9044c21121de90b5def7b81"
    assert work_id("b" * 40, 2, "order-17") == "14cb3af4b91c0040f412c503c77ea6de5c295e05"


def test_a_work_is_one_request_with_one_take_in_one_scope() -> None:
    works = ("b", 1, ""), ("c", 1, ""), ("b", 2, ""), ("b", 1, "order-17"), ("b", 1, "order-18")
    ids = [work_id(base * 40, take, scope) for base, take, scope in works]
    assert len(set(ids)) == len(ids)
    assert all(len(one) == 40 for one in ids)
