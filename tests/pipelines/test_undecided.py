"""What a plan says of steps and items that depend on conditions which are not decided yet."""

from __future__ import annotations

from pathlib import Path

from rh_prefect.pipelines.pipeline import Pipeline

ASK = "model: rhart-text-g-3-flash-preview/text-to-text, with: {prompt: x}, parse: {object: {ok: boolean}}"
PICTURE = "model: z-image/turbo, with: {prompt: %s}"
CLIP = "model: kling-v2.6-pro-image-to-video, from: %s, with: {prompt: slow, duration: 5, sound: false}"


async def test_an_undecided_condition_in_one_used_file_does_not_hold_back_another(tmp_path: Path) -> None:
    (tmp_path / "inner.yaml").write_text(
        "params: {ok: {type: boolean}, t: string}\nsteps:\n"
        f"  a: {{when: $(params.ok), {PICTURE % '$(params.t)'}}}\n"
        f"  b: {{{PICTURE % 'b $(params.t)'}}}\n  c: {{{CLIP % '$(a or b)'}}}\n"
    )
    given = {"one": "$(j.ok)", "two": "true", "three": "true"}
    uses = "".join(f"  {name}: {{use: ./inner.yaml, with: {{ok: {ok}, t: {name}}}}}\n" for name, ok in given.items())
    outer = tmp_path / "outer.yaml"
    outer.write_text(f"steps:\n  j: {{{ASK}}}\n{uses}")
    plan = await Pipeline.from_file(outer).plan()
    assert plan.problems == []
    waiting = {one.address for one in plan.instances if one.waits_for}
    assert waiting == {"one.a", "one.c"}
