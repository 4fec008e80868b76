"""`rh-prefect plan` and `run` of pipelines, as a person types them: what a run pays for, and what changed."""

from __future__ import annotations

import json
import re
import shutil
from decimal import Decimal

import pytest

from rh_prefect.blocks import MediaStorage
from rh_prefect.emulator import Fault
from tests.cli.conftest import Here
from tests.support.processes.typed_commands import printed
from tests.support.samples.pipeline_assets import photo
from tests.support.samples.steps import ANSWER, CLIP, PICTURE, RESIZE, group, of_rows, steps
from tests.support.servers.link_server import LinkHost, picture

TURN = (CLIP % "$(picture)").replace("slow, duration: 5", "a turn, duration: $(params.seconds)")
PRODUCTS = "name: products\nparams:\n  products: {type: table, columns: {sku: string, title: string}}\n"
PRODUCTS += "  seconds: {enum: [5, 10], default: 5}\n" + steps(
    each=group("foreach: $(params.products), id: $(item.sku)", picture=PICTURE % "Photo of $(item.title)", clip=TURN)
)
PRODUCTS += "outputs: {clips: $(each.clip)}\n"

PLAN = "plan products.yaml --set products=products.csv"
RUN = "run products.yaml --set products=products.csv"


def titles(here: Here, **rows: str) -> None:
    here.write("products.csv", "sku,title\n" + "".join(f"{sku},{title}\n" for sku, title in rows.items()))


@pytest.fixture(autouse=True)
def products(here: Here) -> None:
    here.write("products.yaml", PRODUCTS)
    titles(here, a="cup", b="mug")


def test_what_changed_since_the_review_is_said_before_anything_is_paid(here: Here) -> None:
    here.call(f"{PLAN} --out p.json")
    here.write("other.yaml", PRODUCTS.replace("a turn", "a slow turn"))
    said = here.call("run other.yaml --plan p.json --set seconds=10", fails=True)
    assert "param seconds: 5 -> " in said
    assert "file: " in said
    titles(here, a="cup", b="jug", c="bowl")
    said = here.call("run products.yaml --plan p.json --set seconds=5", fails=True)
    assert "param" not in said
    assert "input products.csv: " in said
    assert 'each[b].picture: prompt: "Photo of mug" -> "Photo of jug"' in said
    assert "each[c].picture: this step is not in the plan" in said
    assert not here.paid()


def test_a_run_of_a_reviewed_plan_makes_the_part_that_the_plan_selects(here: Here) -> None:
    here.call(f"{PLAN} --only each.picture --items a --out p.json")
    plan = json.loads((here.folder / "p.json").read_text())
    assert plan["selection"] == {"only": ["each.picture"], "items": ["a"], "sample": 0}
    assert plan["price"]["most"] == 0.04
    said = here.call("run products.yaml --plan p.json --only each.clip", fails=True)
    assert "p.json selects --only each.picture --items a" in said
    assert not here.paid()
    here.call("run products.yaml --plan p.json")
    assert [one.payload["prompt"] for one in here.rh.recorder.paid] == ["Photo of cup"]
    here.call("run products.yaml --plan p.json --only each.picture --items a")
    assert here.paid() == 1


def test_a_plan_says_what_changed_since_the_last_run_and_why(here: Here) -> None:
    titles(here, a="cup", b="mug", c="pot")
    here.call(RUN)
    same, longer = here.call(PLAN), here.call(f"{PLAN} --set seconds=10")
    assert not [line for line in same.splitlines() if line.startswith(("~", "+", "-", "changed"))]
    assert "changed: param seconds: 5 -> " in longer
    assert "~ each[a].clip  duration: " in longer

    titles(here, a="cup", b="jug", d="bowl")
    found = here.json(PLAN)
    assert found["since"]["deployment"] == ""
    assert [one["what"] for one in found["changes"]] == ["input products.csv"]
    assert found["added"] == ["each[d].picture", "each[d].clip"]
    assert found["removed"] == ["each[c].picture", "each[c].clip"]
    (changed,) = [step for step in found["steps"] if "why" in step]
    why = {"param": "prompt", "was": "Photo of mug", "is": "Photo of jug", "from": "products.csv row 2"}
    assert (changed["address"], changed["state"], changed["why"]) == ("each[b].picture", "~", [why])
    table = here.call(PLAN)
    assert "compared with the run of " in table
    assert '~ each[b].picture  prompt: "Photo of mug" -> "Photo of jug"   products.csv row 2\n' in table
    assert "+ each[d]  not in the last run\n- each[c]  only in the last run\n" in table

    shutil.rmtree(here.folder / "out")  # copies of records on this machine count only while the files are there
    here.write("p.json", json.dumps(found))
    assert "each[a].picture: price: up to 0" in here.call("run products.yaml --plan p.json", fails=True)
    assert here.paid() == 6


@pytest.mark.parametrize(
    ("options", "takes"),
    [
        ("--new --items a", {"each[a].picture": 2}),
        ("--retake each.clip", {"each.clip": 2}),
        *[
            pytest.param(options, takes, marks=pytest.mark.long)
            for options, takes in (
                ("--retake each[b].picture", {"each[b].picture": 2}),
                ("--new", {"cover": 2, "each[a].picture": 2, "each[b].picture": 2}),
                ("--new --sample 1", {"each[a].picture": 2}),
                ("--new --only each.clip", {"each[a].clip": 2, "each[b].clip": 2}),
            )
        ],
    ],
)
def test_a_plan_shows_what_is_made_again_and_other_takes_stay(here: Here, options: str, takes: dict[str, int]) -> None:
    cover = "steps:\n  cover: {model: z-image/turbo, with: {prompt: a cover}}\n"
    here.write("products.yaml", PRODUCTS.replace("steps:\n", cover, 1))
    here.call(RUN)
    assert here.json(PLAN)["price"]["most"] == 0
    plan = here.json(f"{PLAN} {options}")
    paid, charged = here.paid(), here.rh.recorder.charged
    here.call(f"{RUN} {options}")
    assert here.takes("products") == takes
    assert Decimal(str(plan["price"]["expected"])) == here.rh.recorder.charged - charged > 0
    new = {one["address"] for one in plan["steps"] if one["state"] in "~+>"}
    assert here.paid() == paid + len(new)
    ran = json.loads((here.folder / "out" / "pipelines" / "products" / "cli.json").read_text())["plan"]
    shown, made = ({one["address"]: one["take"] for one in each["steps"]} for each in (plan, ran))
    assert shown == made
    assert {one["address"]: one["state"] for one in ran["steps"] if one["address"] in new} == dict.fromkeys(new, "=")
    assert "Nothing new" in here.call(RUN)


def test_a_retake_of_a_step_is_one_of_each_of_its_items(here: Here) -> None:
    here.call(RUN)
    here.call(f"{RUN} --retake each[a].clip")
    here.call(f"{RUN} --retake each.clip")
    assert here.takes("products") == {"each[a].clip": 3, "each.clip": 2}
    assert here.paid() == 4 + 1 + 2


@pytest.mark.parametrize("part", ["--only each.picture", "--items b", "--sample 1 --new"])
def test_a_plan_shows_the_price_of_the_selected_part(here: Here, part: str) -> None:
    said = here.call(f"{PLAN} {part}")
    (expected,) = re.findall(r"note: Price of the selected steps: least \S+, expected (\S+), most \S+ CNY\.", said)
    here.call(f"{RUN} {part}")
    assert here.rh.recorder.charged == Decimal(expected)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--only picture", "step picture does not exist; did you mean each.picture?"),
        ("--dry-run --only each.clips", "did you mean each.clip?"),
        ("--only each[c].picture", "step each[c].picture does not exist; did you mean each["),
        ("--only each.clip --only each", "step each does not exist"),
        ("--items c", "item c does not exist; known names: a, b"),
        ("--retake each.clip --items a", "--retake: each[b].clip is not selected by --only, --items or"),
        ("--retake each[a].clip --only each.picture", "--retake: each[a].clip is not selected by --only, --items or"),
    ],
)
def test_a_selection_of_what_does_not_exist_or_is_not_selected_is_refused(here: Here, options: str, said: str) -> None:
    assert said in here.call(f"{RUN} {options}", fails=True)
    assert not here.paid()


SCRIPT = ANSWER % '"Two shots as a JSON list, where each shot has name and look: a pier"'
LISTED = steps(
    script=f"{SCRIPT}, parse: {{list: {{name: string, look: string}}, at_most: 3}}",
    shots=group("foreach: $(script), id: $(item.name)", picture=PICTURE % "$(item.look)"),
    sheet="edit: contact_sheet, with: {of: $(shots.picture)}",
)


def test_items_of_an_answer_are_accepted_until_it_is_known(here: Here) -> None:
    here.write("listed.yaml", LISTED)
    run = "run listed.yaml"
    assert "shots[dawn].pictures does not exist" in here.call(f"{run} --only shots[dawn].pictures", fails=True)
    here.call(f"{run} --items dawn")
    assert [paid.endpoint for paid in here.rh.recorder.paid] == ["rhart-text-g-3-flash-preview/text-to-text"]
    steps = here.json("plan listed.yaml")["steps"]
    first, second = (step["address"] for step in steps if step["address"].startswith("shots["))
    here.call(f"{run} --only '{first}'")
    here.call(f"{run} --only '{second}' --retake '{second}'")
    assert here.paid() == 3
    assert "step shots[dawn].picture does not exist" in here.call(f"{run} --only shots[dawn].picture", fails=True)
    assert "item dawn does not exist; known names: " in here.call(f"{run} --items dawn", fails=True)
    wrong = first.replace("].picture", "].clip")
    assert f"there is no paid step {wrong}" in here.call(f"{run} --retake '{wrong}'", fails=True)
    assert here.paid() == 3


@pytest.mark.parametrize("given", ["", pytest.param(" --storage shelf", marks=[pytest.mark.prefect, pytest.mark.long])])
def test_saved_results_beside_the_inputs_do_not_refuse_the_next_run(here: Here, given: str) -> None:
    """The plan before the run took `b.png` for an input with the id of `b.jpg`."""
    if given:
        MediaStorage(url=str(here.folder / "out")).save("shelf", overwrite=True)
    folder = here.folder / "out" / "photos"
    folder.mkdir(parents=True)
    photo(folder / "b.jpg", 1)
    big = "model: hypir-ultra, from: $(item), save_as: photos/$(item.stem).png"
    each = group("foreach: $(params.photos), id: $(item.stem)", big=big)
    here.write("big.yaml", "params: {photos: {type: files, of: image}}\n" + steps(each=each))
    for _ in range(2):
        here.call(f"run big.yaml --set photos=out/photos{given}")
    assert here.paid() == 1


@pytest.mark.long
@pytest.mark.prefect
def test_a_retake_counts_the_inputs_of_the_run_by_number(here: Here) -> None:
    """The plan with --retake counted the pipeline's own results, too, and so took the number of another item."""
    MediaStorage(url=str(here.folder / "shelf")).save("shelf", overwrite=True)
    big = "model: hypir-ultra, from: $(item), save_as: photos/a-$(id).png"
    each = group("foreach: $(params.photos), id: 'n$(number)'", big=big)
    params = "params: {photos: {type: files, of: image}}\n"
    for number, (name, given) in enumerate((("out", ""), ("shelf", " --storage shelf"))):
        folder = here.folder / name / "photos"
        folder.mkdir(parents=True)
        photo(folder / "b.png", number)
        here.write(f"{name}.yaml", params + steps(each=each))
        given = f"{name}.yaml --set photos={name}/photos{given}"
        here.call(f"run {given}")
        for take in (2, 3):
            for shows in ("plan", "run --dry-run"):
                shown = here.json(f"{shows} {given} --retake each[n1].big")
                assert [step["take"] for step in shown["steps"]] == [take]
            here.call(f"run {given} --retake each[n1].big")
        assert "there is no paid step each[n2].big" in here.call(f"run {given} --retake each[n2].big", fails=True)
        assert here.paid() == 3 * (number + 1)


TITLED = ("title: string", "id: $(item.title)")


def test_a_partial_run_prints_saved_names_and_only_what_exists(here: Here) -> None:
    small = RESIZE % "$(picture)" + ", save_as: small/$(id).png"
    saved = of_rows(*TITLED, picture=PICTURE % "$(item.title)", small=small) + "outputs: {photos: $(each.small)}\n"
    here.write("saved.yaml", saved)
    here.call("run saved.yaml --set rows=products.csv --items cup")
    said = here.call("run saved.yaml --set rows=products.csv --only each.picture")
    assert re.findall(r"photos.*: (.*)", said) == [str(here.folder / "out" / "small" / "cup.png")]


SIZED = "edit: resize, with: {file: $(chosen), width: $(params.size), height: 64}, save_as: cup.png"
REVIEW = "params: {what: string, size: integer}\n" + steps(
    picture=PICTURE % '"a cup, $(params.what)"', chosen="review: $(picture), ask: Is it a cup", sized=SIZED
)
REVIEW += "outputs: {cup: $(sized)}\n"


@pytest.mark.prefect
def test_the_commands_that_a_review_prints_work_as_they_are(here: Here) -> None:
    here.write("my review.yaml", REVIEW)
    here.write("size.yaml", "size: 64\n")
    said = here.call("run 'my review.yaml' --set 'what=blue & old' --params size.yaml --out 'my files' --budget 3")
    choose, run = printed(said)
    assert "Waiting for review" in said
    (next_run,) = printed(here.call(choose))
    for command in (run, next_run):
        said = here.call(command)
        assert said.partition("cup: ")[2].splitlines()[0].endswith("/my files/cup.png")
        assert "Waiting for review" not in said
    assert run.endswith(" --budget 3")
    assert here.paid() == 1


def test_a_parameter_has_the_name_of_an_option_of_the_printed_command(here: Here) -> None:
    """`--text` of `choose` is a corrected text, and `--quiet` of `run` has no value."""
    here.write(
        "words.yaml",
        "params: {text: string, quiet: string, look_at: string}\n"
        + steps(p=PICTURE % "$(params.text) $(params.quiet) $(params.look_at)", r="review: $(p)"),
    )
    choose, run = printed(here.call("run words.yaml --text 'a cup' --look-at left --set quiet=yes --set text=x"))
    assert choose.endswith(" r=1 --set quiet=yes --set 'text=a cup' --set look_at=left")
    here.call(choose)
    (next_run,) = printed(here.call("choose words.yaml r=1 --quiet yes --set 'text=a cup' --look-at left"))
    for command in (run, next_run):
        assert "Waiting for review" not in here.call(command)
    assert here.paid() == 1


def test_a_review_of_an_item_whose_id_has_a_sign_of_equality_is_answered(here: Here) -> None:
    picture = PICTURE % "$(item.title)"
    each = of_rows(*TITLED, picture=picture, chosen="review: $(picture)", sized=RESIZE % "$(chosen)")
    here.write("each.yaml", each)
    here.write("titles.csv", "title\na=b\na=b].chosen=1\n")
    choose, run = printed(here.call("run each.yaml --set rows=titles.csv"))
    here.call(choose)
    assert "Waiting for review" not in here.call(run)


def test_a_run_of_an_item_does_not_ask_for_the_choice_of_another_item(here: Here) -> None:
    here.write("each.yaml", of_rows(*TITLED, picture=PICTURE % "$(item.title)", chosen="review: $(picture)"))
    here.write("titles.csv", "title\nmug\njug\n")
    here.call("run each.yaml --set rows=titles.csv")
    here.call("choose each.yaml each[mug].chosen=1 --set rows=titles.csv")
    run = "run each.yaml --set rows=titles.csv"
    assert "Waiting for review" not in here.call(f"{run} --items mug")
    assert "each[jug].chosen=1" in here.call(f"{run} --only each.picture")


def test_a_choice_that_cannot_be_used_is_refused(here: Here) -> None:
    here.write("review.yaml", REVIEW)
    here.write("text.txt", "a better text")
    (here.folder / "photo.png").write_bytes(picture("photo"))
    here.call("run review.yaml --set what=blue --set size=64")
    wrong = {
        "": "no choice was given. The reviews of review.yaml are: chosen.",
        "chosen=1 chosen=again": "chosen is given twice",
        "--text chosen=missing.txt": "missing.txt cannot be read: No such file or directory.",
        "--text chosen=photo.png": "photo.png cannot be read: it is not UTF-8 text.",
        "--text chosen=text.txt": "chosen shows no texts, so that a text cannot replace its candidates",
        "chosen=1 --params missing.yaml": "missing.yaml cannot be read: No such file or directory.",
    }
    for words, said in wrong.items():
        assert said in here.call(f"choose review.yaml {words} --set what=blue --set size=64", fails=True)
        assert not (here.folder / "review.takes.yaml").exists(), words


def test_new_candidates_of_an_edited_result_are_made_by_the_paid_step(here: Here) -> None:
    edited = steps(picture=PICTURE % "a cup" + ", takes: 2", small=RESIZE % "$(picture)", chosen="review: $(small)")
    here.write("edited.yaml", edited)
    assert "Waiting for review" in here.call("run edited.yaml")
    here.call("choose edited.yaml chosen=again")
    assert here.takes("edited") == {"picture": 3}
    paid = here.paid()
    assert "Waiting for review" in here.call("run edited.yaml")
    assert here.paid() == paid + 2


def test_new_candidates_of_an_item_are_not_those_of_an_equal_item(here: Here) -> None:
    picture = PICTURE % "$(item.title)" + ", same: separate"
    here.write("each.yaml", of_rows("title: string", picture=picture, chosen="review: $(picture)"))
    here.write("titles.csv", "title\nmug\nmug\n")
    here.call("run each.yaml --set rows=titles.csv")
    here.call("choose each.yaml each[1].chosen=again each[2].chosen=1 --set rows=titles.csv")
    assert "take: 3" in (here.folder / "each.takes.yaml").read_text()
    here.call("run each.yaml --set rows=titles.csv")
    assert here.paid() == 3, "the first item had the result of the second one, and that one the rejected result"


def test_new_candidates_of_a_parameter_are_refused(here: Here) -> None:
    (here.folder / "photo.png").write_bytes(picture("photo"))
    own = "params: {photo: image}\n" + steps(small=RESIZE % "$(params.photo)", own="review: $(small)")
    here.write("own.yaml", own)
    said = here.call("choose own.yaml own=again --set photo=photo.png", fails=True)
    assert "own cannot get new candidates" in said
    assert not (here.folder / "own.takes.yaml").exists()


def test_choose_takes_the_parameters_of_a_reviewed_plan(here: Here) -> None:
    here.write("review.yaml", REVIEW)
    here.call("plan review.yaml --set what=blue --set size=64 --out p.json")
    said = here.call("run review.yaml --plan p.json")
    choose, run = printed(said)
    wrong = here.call(choose.replace("chosen=1", "chosen=7"), fails=True)
    assert "chosen: there is no candidate 7; valid numbers: 1." in wrong
    assert not (here.folder / "review.takes.yaml").exists()
    assert "what is missing" in here.call("choose review.yaml chosen=1", fails=True)
    assert "--plan p.json" in choose
    assert printed(here.call(choose)) == [run]
    assert "Waiting for review" not in here.call(run)
    assert here.paid() == 1


@pytest.mark.prefect
def test_choose_looks_into_the_place_that_it_is_given_and_not_into_the_block_of_the_file(here: Here) -> None:
    MediaStorage(url=str(here.folder / "block")).save("shelf", overwrite=True)
    here.write("review.yaml", f"storage: shelf\n{REVIEW}")
    command = "review.yaml --set what=blue --set size=64 --out other"
    choose, _ = printed(here.call(f"run {command}"))
    here.call(choose)
    assert "Waiting for review" not in here.call(f"run {command}")
    assert here.paid() == 1


SIGNED = "params: {photo: image}\n" + steps(
    clip=CLIP % "$(params.photo)", chosen="review: $(clip)", end="edit: frame, with: {video: $(chosen), at: last}"
)
SIGNED += "outputs: {end: $(end)}\n"


def test_printed_commands_hide_signatures_and_are_refused_until_these_are_put_back(here: Here, links: LinkHost) -> None:
    here.write("signed.yaml", SIGNED)
    signature = "X-Amz-Signature=5ec2e7&X-Amz-Credential=5ec2e7"
    for name in ("photo.png", f"photo.png?{signature}"):
        link = links.put(name, picture("photo"))
    said = here.call(f"run signed.yaml --set 'photo={link}'")
    assert "5ec2e7" not in said
    choose, _ = printed(said)
    address = f"<the whole address of {links.url}/photo.png>"
    assert f"--set 'photo={address}'" in choose
    refused = here.call(choose, fails=True)
    assert f"photo={address} is a masked form of an address whose signature" in refused
    assert "What to do" in refused
    (run,) = printed(here.call(choose.replace(address, link)))
    assert "5ec2e7" not in run
    assert "end: " in here.call(run.replace(address, link))
    assert here.paid() == 1


def test_the_command_after_a_failure_pays_for_what_is_missing(here: Here) -> None:
    here.call(RUN)
    here.rh.faults.add(Fault("submit", prompt="Photo of mug", kind="fail", code="1504", times=1))
    said = here.call(f"{RUN} --new", fails=True)
    assert "new results are recorded in products.takes.yaml" in said
    (again,) = re.findall(r"pay only for what is missing: (rh-prefect .+)", said)
    new = {one.task_id for one in here.rh.recorder.paid[4:]}
    assert len(new) == 3, "a picture, its clip, and the picture that failed"
    here.call(again)
    assert here.paid() == 4 + 3 + 2
    assert "Nothing new" in here.call(again)
    assert here.paid() == 9


NEVER = steps(**{name: PICTURE % f"a {name}" + ", reuse: never" for name in ("mug", "cup")})


def test_the_command_after_a_failure_continues_a_run_that_reuses_nothing(here: Here) -> None:
    here.write("never.yaml", NEVER)
    here.call("plan never.yaml --out p.json")
    here.rh.faults.add(Fault("submit", prompt="a cup", kind="fail", code="1504", times=1))
    said = here.call("run never.yaml --plan p.json", fails=True)
    (again,) = re.findall(r"pay only for what is missing: (rh-prefect .+)", said)
    plan = " ".join(here.call("plan never.yaml").split())
    assert "least 0.04" in plan
    assert re.search(r"the round that began .* UTC is not complete and is continued", plan)
    here.call(again)
    assert here.paid() == 3
    assert "least 0.08" in here.call("plan never.yaml")
    here.call("run never.yaml")
    assert here.paid() == 5
    assert "mug: its result was made after the plan" in here.call(again, fails=True)


def test_unknown_submissions_of_a_run_are_told_apart_and_settled(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    here.write("never.yaml", NEVER)
    here.rh.faults.add(Fault("submit"))
    here.call("run never.yaml", fails=True)
    (run,) = {json.loads(one.read_text())["flow_run"] for one in (here.folder / "out").glob("works/*/intent-1.json")}
    tasks = {one.payload["prompt"]: one.task_id for one in here.rh.recorder.paid}
    jobs = {one["label"]: one["job"] for one in here.json(f"jobs list {run}")}
    monkeypatch.setenv("RH_API_KEY", here.rh.keys.add("another account").secret)
    refused = here.call(f"jobs adopt {jobs['mug']} {tasks['a mug']}", fails=True)
    assert "Only the account that paid can tell whether task" in refused
    monkeypatch.setenv("RH_API_KEY", here.rh.key)
    assert "the account that submitted the job has no task 5" in here.call(f"jobs adopt {jobs['mug']} 5", fails=True)
    _, others = here.call(f"jobs adopt {jobs['mug']} {tasks['a mug']}").split("to which the task could belong:")
    assert re.search(rf"{jobs['cup'][:-28]}.*cup, prompt \"a cup\".*, submitted at ", others)
    assert "a mug" not in others
    marked = here.call(f"jobs mark-refused {run} --all")
    assert len(re.findall(r"works-\w+/\w+ \(.*z-image/turbo, started at .*\): recorded as not accepted", marked)) == 1
    assert f"{run}: 1 submission(s) recorded as not accepted" in marked
    again = here.call(f"jobs mark-refused {run} --all")
    assert f"{run}: 0 submission(s)" in again and "pays" not in again
    here.rh.faults.clear()
    here.call("run never.yaml")
    assert here.paid() == 3, "a task is adopted, and one is paid for again"


def test_new_results_of_steps_whose_reuse_has_an_age_are_none_of_an_earlier_day(here: Here) -> None:
    mug = PICTURE % "a mug" + ", reuse: 12h"
    here.write("daily.yaml", steps(mug=mug, chosen="review: $(mug)", big=RESIZE % "$(chosen)"))
    here.call("run daily.yaml")
    here.call("choose daily.yaml chosen=1")
    here.call("run daily.yaml")  # which completes the round
    for result in (here.folder / "out" / "works").glob("*/result.json"):
        result.write_text(re.sub(r'"at": ?"20\d\d', '"at": "2001', result.read_text()))
    (here.folder / "state" / "pipelines" / "results.sqlite").unlink()
    here.call("run daily.yaml")
    assert "least 0.04" in here.call("plan daily.yaml --retake mug")
    here.call("run daily.yaml --retake mug")
    assert here.paid() == 3, "the second day's result is no new one"
    here.call("choose daily.yaml chosen=again")
    here.call("run daily.yaml")
    here.call("run daily.yaml")
    assert here.paid() == 4
    assert here.takes("daily") == {"mug": 4}


@pytest.mark.prefect
def test_two_places_for_the_files_are_refused_before_anything_is_paid(here: Here) -> None:
    MediaStorage(url=str(here.folder / "block")).save("shelf", overwrite=True)
    here.write("rows.csv", "prompt\na cup\n")
    for command in (RUN, "run image-to-video --image a.png --prompt x", "batch rows.csv --model z-image/turbo"):
        said = here.call(f"{command} --out mine --storage shelf", fails=True)
        assert "--out mine and --storage shelf cannot both be given. Nothing was sent." in said
    for command, place in (("gallery mine", "mine"), ("open --out mine", "--out mine")):
        said = here.call(f"{command} --storage shelf", fails=True)
        assert f": {place} and --storage shelf cannot both be given. Nothing was written." in said
    assert not here.paid()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("plan products.yaml --params nope.yaml", "--params nope.yaml cannot be read: No such file or directory."),
        ("run products.yaml --params .", "--params . cannot be read: Is a directory."),
        ("schema nope.yaml", "schema nope.yaml cannot be read: No such file or directory."),
        (f"{PLAN} --out no/p.json", "plan --out: the file no/p.json cannot be written: No such file or directory."),
        ("run products.yaml --plan q.json", "The plan q.json cannot be read"),
        ("run products.yaml --plan p.json", "p.json is not a plan"),
    ],
)
def test_a_file_that_cannot_be_read_or_written_is_named(here: Here, command: str, said: str) -> None:
    here.write("p.json", "{}")
    assert said in here.call(command, fails=True)
