"""`rh-prefect gallery`: which outputs it finds, and what its pages hold."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import re
import socket
import time
from pathlib import Path
from typing import Any

import fsspec
import httpx
import pytest
from PIL import Image

from rh_prefect import models
from rh_prefect.cli.gallery import gallery, open_
from rh_prefect.cli.gallery_outputs import entries_of
from rh_prefect.cli.gallery_run_reports import last_run, with_reports
from rh_prefect.emulator import Emulator, Fault
from rh_prefect.errors import ConfigError, InputError
from rh_prefect.flows.pipeline_run import run_here
from rh_prefect.gallery.entries import Entry
from rh_prefect.gallery.pages import ON_A_PAGE, write_gallery
from rh_prefect.gallery.server import app_of
from rh_prefect.media.media import Media
from rh_prefect.media.store import MediaStore
from rh_prefect.pipelines.batch_pipeline import Batch, write_batch
from rh_prefect.pipelines.pipeline import Pipeline
from rh_prefect.pipelines.plan.planned_steps import KnownWorks
from rh_prefect.pipelines.run.csv_report import report_name
from rh_prefect.pipelines.stored_edits import EditResult
from rh_prefect.settings import get_settings
from rh_prefect.table_files import csv_text
from rh_prefect.tasks import generate
from tests.support.samples import media as samples
from tests.support.servers.s3 import S3Server
from tests.support.world.filesystems import Files

PICTURE = models.ZImageTurbo(prompt="a lighthouse at dawn")


def make(request: Any, **options: Any) -> Any:
    return asyncio.run(generate.fn(request, scope="gallery", **options))


def storage() -> MediaStore:
    return MediaStore(get_settings().storage_url)


def data_of(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def page_of(store: MediaStore, *entries: Entry, **options: Any) -> Any:
    """The data of the only page of these entries."""
    (page,) = write_gallery(store, list(entries), **options)
    return data_of(store.read_bytes(page).decode())


def test_outputs_are_found_with_what_they_were_made_from(rh: Emulator) -> None:
    picture, other = make(PICTURE, label="dawn"), make(PICTURE, take=2)
    clip = make(models.KlingV26ProImageToVideo(image_url=picture.first_output, prompt="waves", duration="5"))
    store = storage()
    film, second, first = entries_of(store, store)
    assert (film.task, second.task, first.task) == (clip.task_id, other.task_id, picture.task_id)
    assert film.sources == (picture.first_output.sha256,)
    assert first.file is not None
    assert first.file.sha256 == picture.first_output.sha256
    assert (first.request, first.take, second.take) == (second.request, 1, 2)
    assert (first.label, first.prompt, first.cost) == ("dawn", "a lighthouse at dawn", "0.04 CNY")
    assert len(rh.recorder.paid) == 3


def test_the_page_has_the_picture_and_a_link_to_the_file(
    rh: Emulator, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    picture = make(PICTURE)
    gallery()
    page = tmp_path / "out" / "gallery" / "index.html"
    assert capsys.readouterr().out == f"gallery: {page.as_uri()} (1 outputs)\n"
    (entry,) = data_of(page.read_text())["entries"]
    assert (page.parent / entry["src"]).resolve() == Path(picture.first_output.uri)
    assert entry["poster"].startswith("data:image/jpeg;base64,")
    kept = list((page.parent / "posters").iterdir())
    assert len(kept) == 1
    before = kept[0].stat().st_mtime_ns
    gallery()
    assert kept[0].stat().st_mtime_ns == before
    assert rh.key not in page.read_text()


def test_a_place_without_results_is_an_error(rh: Emulator, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no results yet\. Nothing was written"):
        gallery()
    with pytest.raises(InputError, match=r"no results of the run 'night'.* do not name flow runs without paid jobs"):
        make(PICTURE)
        gallery(run="night")
    assert not (tmp_path / "out" / "gallery").exists()
    assert len(rh.recorder.paid) == 1


PIPELINE = """
name: signs
steps:
  sign: {model: z-image/turbo, with: {prompt: a sign}}
"""


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that has the address which the browser was told to open last."""
    opened = tmp_path / "opened"
    program = tmp_path / "browser"
    program.write_text(f'#!/bin/sh\nprintf %s "$1" > {opened}\n')
    program.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{program} %s")
    monkeypatch.setattr("webbrowser._tryorder", None)  # Python reads BROWSER once in a process
    return opened


async def test_the_newest_run_is_opened_in_the_browser(
    rh: Emulator, tmp_path: Path, opened: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run without a Prefect server has no flow run, and is found by its own id and by its pipeline."""
    await asyncio.to_thread(make, PICTURE)
    await run_here(Pipeline.from_text(PIPELINE), {})
    (sign,) = [one for one in entries_of(storage(), storage()) if one.flow == "signs"]
    assert sign.run.startswith("run-")
    await asyncio.to_thread(open_)
    page = tmp_path / "out" / "gallery" / f"{sign.run}.html"
    assert opened.read_text() == page.as_uri()
    assert capsys.readouterr().out == f"gallery: {page.as_uri()}\n"
    assert [one["run"] for one in data_of(page.read_text())["entries"]] == [sign.run]
    await asyncio.to_thread(gallery, run="signs")
    assert (tmp_path / "out" / "gallery" / "signs.html").exists()
    assert len(rh.recorder.paid) == 2


FILM = """
name: waves
steps:
  photo: {model: z-image/turbo, with: {prompt: a lighthouse}}
  clip: {model: kling-v2.6-pro-image-to-video, from: $(photo), with: {prompt: waves, duration: 5}}
  film: {edit: concat, with: {videos: [$(clip)], width: 64, height: 36}, save_as: films/$(run.id).mp4}
  sheet: {edit: contact_sheet, with: {of: [$(film)]}}
  words: {edit: subtitles, with: {text: [Far out], at: [0], seconds: 1}}
  bad: {model: z-image/turbo, with: {prompt: a sign}}
outputs: {film: $(film)}
"""


async def test_a_run_ends_with_a_page_and_film_report_and_page_open(rh: Emulator, tmp_path: Path, opened: Path) -> None:
    """The second run pays for nothing, has the results and small pictures of the first one, and its own page."""
    rh.faults.add(Fault("submit", kind="code", code="1007", message="no such sign", prompt="a sign"))
    kept: dict[str, int] = {}
    for _ in range(2):
        result = (await run_here(Pipeline.from_text(FILM), {"budget": 5})).result
        report, page, film = Path(result.report), Path(result.gallery), result.outputs["film"]
        run = report.parent.name
        assert page == tmp_path / "out" / "gallery" / f"{run}.html"
        expected: list[tuple[Any, Path]] = [(None, Path(film.uri)), ("report", report), ("gallery", page)]
        for what, file in expected:
            await asyncio.to_thread(open_, run, what=what)
            assert opened.read_text() == file.as_uri()
        entries = {one["label"]: one for one in data_of(page.read_text())["entries"]}
        assert {label: one["model"] for label, one in entries.items()} == {
            "photo": "z-image/turbo",
            "clip": "kling-v2.6-pro-image-to-video",
            "film": "concat",
            "sheet": "contact_sheet",
            "words": "subtitles",  # known by its step, though no job is a source of it
            "bad": "z-image/turbo",
        }
        assert {one["label"] for one in entries.values() if one["poster"]} == {"photo", "clip", "film", "sheet"}
        assert len({one["run"] for one in entries.values() if one["state"] != "failed"}) == 1
        assert (entries["photo"]["cost"], entries["photo"]["prompt"]) == ("0.04 CNY", "a lighthouse")
        assert entries["clip"]["sources"] == [entries["photo"]["sha"]]
        assert entries["film"]["saved_as"] == storage().name_of(film.uri)
        assert (entries["bad"]["state"], "no such sign" in entries["bad"]["reason"]) == ("failed", True)
        pictures = {one.name: one.stat().st_mtime_ns for one in (page.parent / "posters").iterdir()}
        assert kept in ({}, pictures)
        kept = pictures
        await asyncio.sleep(1)  # a failure is shown in the last of its runs, and names of runs have whole seconds
    assert len(rh.recorder.paid) == 2


async def test_a_run_that_made_only_edits_is_found_by_its_pipeline(rh: Emulator) -> None:
    words = "name: words\nsteps:\n  words: {edit: subtitles, with: {text: [Far out], at: [0], seconds: 1}}\n"
    result = (await run_here(Pipeline.from_text(words), {})).result
    await asyncio.to_thread(gallery, run="words")
    (entry,) = data_of(Path(result.gallery).read_text())["entries"]
    assert (entry["label"], rh.recorder.paid) == ("words", [])


async def test_a_run_ends_well_without_its_page(rh: Emulator, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "gallery").write_text("a file in place of the folder")
    end = await run_here(Pipeline.from_text(PIPELINE), {})
    assert (end.is_failed, end.result.gallery) == (False, "")
    assert "The page of this run was not written" in caplog.text
    assert len(rh.recorder.paid) == 1


def test_pictures_are_made_for_a_limited_time(tmp_path: Path) -> None:
    store = MediaStore(tmp_path)
    media = store.publish(samples.png(tmp_path / "a.png"), "b.png").at("b.png")
    (entry,) = page_of(store, Entry("m", "1", file=media), seconds=0)["entries"]
    assert (entry["poster"], entry["src"]) == ("", "../b.png")


class Endless(Files):
    """A store whose videos never end."""

    protocol = "endless"

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        return Path("/dev/zero").open("rb") if path.endswith(".mp4") else super()._open(path, mode, **options)


def test_a_download_for_a_picture_ends_with_the_time() -> None:
    fsspec.register_implementation("endless", Endless, clobber=True)
    media = Media(uri="a.mp4", kind="video", mime="video/mp4", size=1, sha256="1" * 64)
    (entry,) = page_of(MediaStore("endless://media"), Entry("m", "1", file=media), seconds=0.05)["entries"]
    assert (entry["poster"], entry["kind"]) == ("", "video")


class Unsigned(Files):
    """A store that cannot sign links at the moment."""

    protocol = "unsigned"

    def sign(self, path: str, expiration: int = 100, **options: Any) -> str:
        raise ConnectionError("the token service does not answer")


def test_a_page_is_written_without_links_that_cannot_be_signed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fsspec.register_implementation("unsigned", Unsigned, clobber=True)
    store = MediaStore("unsigned://media")
    photo = store.publish(samples.png(tmp_path / "a.png"), "photo.png").at("photo.png")
    (entry,) = page_of(store, Entry("m", "1", file=photo))["entries"]
    assert (entry["src"], entry["kind"]) == ("", "image")
    row = {"step": "sign", "model": "m", "state": "failed", "reason": "no such sign"}
    store.write_bytes(report_name("run-20261201-000000-abcdef01"), csv_text([*row], [row]).encode())
    gallery(store.url)
    assert "gallery: unsigned://media/gallery/index.html (1 outputs)" in capsys.readouterr().out


NAMED = """
name: named
params: {subject: string}
steps:
  hero: {model: z-image/turbo, with: {prompt: $(params.subject)}, save_as: hero.png}
  words: {model: rhart-text-g-3-flash-preview/text-to-text, with: {prompt: a caption}}
"""


async def test_a_run_has_its_own_results_after_another_run_replaced_a_saved_file(rh: Emulator, tmp_path: Path) -> None:
    """The name belongs to the content that the file has now, also after a run returned to an earlier result."""
    subjects, runs = ("a lighthouse", "a sign", "an owl", "a boat"), {}
    for subject in (*subjects, *subjects):
        result = (await run_here(Pipeline.from_text(NAMED), {"budget": 5, "subject": subject})).result
        runs[subject] = Path(result.gallery)
        own = _shown(runs[subject])
        assert own[0] == {("a caption", ""), (subject, "hero.png")}
        await asyncio.to_thread(gallery)
        everything = _shown(tmp_path / "out" / "gallery" / "index.html")[0]
        assert {one for one in everything if one[1]} == {(subject, "hero.png")}
        await asyncio.to_thread(gallery, run=runs[subject].stem)
        assert _shown(runs[subject]) == own
    for subject in subjects[:-1]:
        await asyncio.to_thread(gallery, run=runs[subject].stem)
        assert _shown(runs[subject])[0] == {("a caption", ""), (subject, "")}
    assert len(rh.recorder.paid) == 5


def _shown(page: Path) -> tuple[set[tuple[str, str]], set[str]]:
    """The prompts and names, and the contents, on a page."""
    entries = data_of(page.read_text())["entries"]
    return {(one["prompt"], one["saved_as"]) for one in entries}, {one["sha"] for one in entries}


async def test_a_run_that_reused_only_a_text_is_opened(rh: Emulator, opened: Path) -> None:
    text = "name: text\nsteps:\n" + NAMED.splitlines()[-1]
    for _ in range(2):
        result = (await run_here(Pipeline.from_text(text), {"budget": 5})).result
    run = Path(result.report).parent.name
    await asyncio.to_thread(open_, run)
    assert [one["label"] for one in data_of(Path(result.gallery).read_text())["entries"]] == ["words"]
    await asyncio.to_thread(open_, run, what="report")
    assert opened.read_text() == Path(result.report).as_uri()
    assert len(rh.recorder.paid) == 1


async def test_a_failed_step_is_shown_with_its_reason_until_it_has_a_result(rh: Emulator, tmp_path: Path) -> None:
    rh.faults.add(Fault("submit", kind="code", code="1007", message="no such sign", times=1))
    end = await run_here(Pipeline.from_text(PIPELINE), {})
    assert end.is_failed
    await asyncio.to_thread(gallery)
    page = tmp_path / "out" / "gallery" / "index.html"
    (entry,) = data_of(page.read_text())["entries"]
    assert (entry["state"], entry["label"], entry["prompt"]) == ("failed", "sign", "a sign")
    assert "no such sign" in entry["reason"]
    assert re.fullmatch(r"20[-0-9]{8}T[0-9:]{8}Z", entry["at"])
    await run_here(Pipeline.from_text(PIPELINE), {})
    await asyncio.to_thread(gallery)
    assert [one["state"] for one in data_of(page.read_text())["entries"]] == ["whole"]
    with pytest.raises(InputError, match="has no report"):
        await asyncio.to_thread(open_, "signs", what="report")


async def test_a_failed_edit_is_shown_until_its_recipe_has_a_result(rh: Emulator) -> None:
    sized = "  sized: {edit: resize, with: {file: $(sign), width: 32, height: 32}}\n"
    end = await run_here(Pipeline.from_text(PIPELINE + sized), {})
    store = storage()
    report = Path(end.result.report).read_text()
    (made,) = (one for one in csv.DictReader(report.splitlines()) if one["step"] == "sized")
    whole, early, late = (f"run-20261201-000000{rest}" for rest in ("-aaaaaaaa", "001-bbbbbbbb", "002-aaaaaaaa"))
    for run, recipe in ((whole, made["recipe"]), (early, "0" * 40), (late, "1" * 40)):
        row = {**made, "state": "failed", "files": "", "recipe": recipe}
        store.write_bytes(report_name(run), csv_text([*row], [row]).encode())
    entries = with_reports(store, entries_of(store, store))
    assert [one.run for one in entries if one.file is None] == [late, early]
    assert sorted(one.label for one in entries) == ["sign", "sized", "sized", "sized"]


async def test_a_failed_take_has_neither_the_cost_nor_the_task_of_the_other_takes(rh: Emulator) -> None:
    """The card of the failure showed the cost of the whole step, and the page added that to the costs of the takes."""
    rh.faults.add(Fault("submit", kind="code", code="1007", every=3))
    end = await run_here(Pipeline.from_text(PIPELINE.replace("with:", "takes: 3, with:")), {})
    entries = data_of(Path(end.result.gallery).read_text())["entries"]
    assert sorted(one["take"] for one in entries) == [1, 2, 3]
    assert sorted(one["cost"] for one in entries) == ["", "0.04 CNY", "0.04 CNY"]
    assert [(one["task"], one["cost"]) for one in entries if one["state"] == "failed"] == [("", "")]


async def test_the_coins_of_a_task_are_shown_beside_its_money(
    rh: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run_here(Pipeline.from_text(PIPELINE), {})
    for folder in ("results/*/*.json", "works/*/result*.json"):
        (record,) = (tmp_path / "out").glob(folder)
        record.write_text(json.dumps(json.loads(record.read_text()) | {"coins": "25"}))
    monkeypatch.setenv("RH_STATE_DIR", str(tmp_path / "another machine"))  # which has no copies of records
    end = await run_here(Pipeline.from_text(PIPELINE), {})
    await asyncio.to_thread(gallery)
    for page in (Path(end.result.gallery), tmp_path / "out" / "gallery" / "index.html"):
        (entry,) = data_of(page.read_text())["entries"]
        assert (entry["cost"], entry["amounts"]) == ("0.04 CNY, 25 coins", [["CNY", "0.04"], ["coins", "25"]])


def test_a_flow_run_that_made_nothing_new_is_the_last_one_and_is_found_by_its_id_and_its_name(
    rh: Emulator,
    tmp_path: Path,
    opened: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, flow_run = "2026-01-02-e0439d07775e", "6975f345-88c8-42b4-b052-e0439d07775e"
    store, picture = storage(), make(PICTURE)
    columns = ["step", "model", "state", "cost", "files", "reason", "subject", "tasks", "jobs"]
    row = {"step": "sign", "state": "reused", "files": picture.first_output.uri}
    store.write_bytes(f"runs/{run}/report.csv", csv_text(columns, [row]).encode())
    store.write_bytes(f"runs/{flow_run}.json", json.dumps({"flow_run": flow_run, "flow_run_name": "owl"}).encode())
    for wanted in ("last", flow_run, run, "owl"):
        opened.unlink(missing_ok=True)
        open_(wanted, what="report")
        assert opened.read_text() == (tmp_path / "out" / "runs" / run / "report.csv").as_uri()
    open_("owl")
    assert opened.read_text() == (tmp_path / "out" / "gallery" / f"{run}.html").as_uri()
    with pytest.raises(InputError, match=r"open: .* with --out or --storage"):
        open_(flow_run, out=str(tmp_path / "elsewhere"))
    monkeypatch.setattr("webbrowser._tryorder", [])
    capsys.readouterr()
    open_(flow_run)
    said = capsys.readouterr()
    assert said.out == f"gallery: {opened.read_text()}\n"
    assert "no browser was found" in said.err


def test_the_last_run_is_the_one_that_ended_last(tmp_path: Path) -> None:
    """A run of a schedule was created three days before it started, so its folder has the earlier day."""
    store, now = MediaStore(tmp_path), time.time()
    runs = {"2026-11-28-aaaaaaaaaaaa": now - 60, "2026-11-30-bbbbbbbbbbbb": now - 86400}
    for run, at in runs.items():
        store.write_bytes(report_name(run), b"step\r\n")
        os.utime(tmp_path / report_name(run), (at, at))
    assert last_run(store, []) == min(runs)


def test_a_report_with_a_very_long_cell_is_read(tmp_path: Path) -> None:
    store, row = MediaStore(tmp_path), {"step": "sheets", "state": "failed", "reason": "x" * 140_000}
    store.write_bytes(report_name("run-20261201-000000-abcdef01"), csv_text([*row], [row]).encode())
    limit = csv.field_size_limit(131_072)
    try:
        (found,) = with_reports(store, [])
    finally:
        csv.field_size_limit(limit)
    assert found.reason == row["reason"]


def test_many_outputs_have_several_pages(tmp_path: Path) -> None:
    store = MediaStore(tmp_path)
    pages = write_gallery(store, [Entry("m", str(n), text=f"text {n}") for n in range(ON_A_PAGE + 1)])
    assert pages == ["gallery/index.html", "gallery/index-2.html"]
    first, second = (data_of(store.read_bytes(one).decode()) for one in pages)
    assert (len(first["entries"]), len(second["entries"])) == (ON_A_PAGE, 1)
    assert [one["href"] for one in first["pages"]] == ["", "index-2.html"]
    assert [one["href"] for one in second["pages"]] == ["index.html", ""]


def test_a_missing_file_has_no_picture_and_keeps_its_place(tmp_path: Path) -> None:
    gone = Media(uri="gone.png", kind="image", mime="image/png", size=1, sha256="0" * 64)
    broken = gone.model_copy(update={"defect": "a broken png"})
    entries = page_of(MediaStore(tmp_path), Entry("m", "1", file=gone), Entry("m", "2", file=broken))["entries"]
    assert [(one["poster"], one["state"]) for one in entries] == [("", "whole"), ("", "damaged")]


def test_a_long_seed_is_shown_with_all_digits(tmp_path: Path) -> None:
    (entry,) = page_of(MediaStore(tmp_path), Entry("m", "1", seed=2**60 + 1))["entries"]
    assert entry["seed"] == str(2**60 + 1)


def test_a_3d_model_has_a_drawn_picture_and_a_broken_one_has_none(tmp_path: Path) -> None:
    store = MediaStore(tmp_path)
    model = store.publish(samples.glb(tmp_path / "local.glb"), "a.glb").at("a.glb")
    store.write_bytes("cut.glb", store.read_bytes("a.glb")[:60])
    broken = model.model_copy(update={"uri": "cut.glb", "sha256": "1" * 64})
    entries = page_of(store, Entry("m", "1", file=model), Entry("m", "2", file=broken))["entries"]
    assert [bool(one["poster"]) for one in entries] == [True, False]
    with Image.open(store.uri(f"gallery/posters/{model.sha256}.jpg")) as drawn:
        shades = drawn.convert("L").getextrema()
    assert (drawn.size, shades[1] > 100 > shades[0]) == ((256, 256), True)  # type: ignore[operator]


def test_the_server_gives_the_pages_and_the_files_that_they_show(rh: Emulator, tmp_path: Path) -> None:
    picture = make(PICTURE)
    store = storage()
    entries = entries_of(store, store)
    app = app_of(store, write_gallery(store, entries), entries)
    (tmp_path / "out" / "secret.txt").write_text("secret")

    async def ask() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", follow_redirects=True) as client:
            assert "<title>All outputs - gallery</title>" in (await client.get("/")).text
            name = store.name_of(picture.first_output.uri)
            part = await client.get(f"/{name}", headers={"Range": "bytes=0-3"})
            assert (part.status_code, part.content) == (206, b"\x89PNG")
            for other in ("secret.txt", "%2e%2e/state/spool", f"results/{entries[0].request}"):
                assert (await client.get(f"/{other}")).status_code == 404
            assert (await client.get("/", headers={"Host": "evil.example"})).status_code == 400
            Path(picture.first_output.uri).unlink()
            assert (await client.get(f"/{name}")).status_code == 404

    asyncio.run(ask())
    assert len(rh.recorder.paid) == 1


def test_a_port_that_is_in_use_is_named(rh: Emulator) -> None:
    make(PICTURE)
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: .*What to do: choose another"):
            gallery(serve=True, port=port)


def test_links_to_an_object_store_are_signed(s3: S3Server, tmp_path: Path) -> None:
    store = MediaStore(s3.url("gallery"), options=s3.options)
    picture = store.publish(samples.png(tmp_path / "a.png"), "run/a picture.png")
    page = page_of(store, Entry("m", "1", file=picture.at("run/a picture.png")))
    (entry,) = page["entries"]
    assert httpx.get(entry["src"]).content == (tmp_path / "a.png").read_bytes()
    assert entry["poster"]
    assert "valid for at most 7 days" in page["about"]
    text = store.read_bytes("gallery/index.html").decode()
    assert not any(secret in text for secret in s3.secrets if secret != s3.options["key"])


async def test_a_place_is_read_with_the_options_and_the_records_of_its_run(
    rh: Emulator, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RH_STORAGE_OPTIONS", json.dumps(s3.options))
    monkeypatch.setenv("RH_RECORDS", str(tmp_path / "records"))
    films = s3.url("films")
    monkeypatch.setenv("RH_STORAGE_URL", films)
    small = "  small: {edit: resize, with: {file: $(sign), width: 32, height: 32}}\n"
    await run_here(Pipeline.from_text(PIPELINE + small), {})
    monkeypatch.setenv("RH_STORAGE_URL", str(tmp_path / "elsewhere"))
    await asyncio.to_thread(gallery, films)
    assert "(2 outputs)" in capsys.readouterr().out


async def test_small_pictures_are_no_rows_of_a_batch_over_the_storage(tmp_path: Path) -> None:
    """They would be paid for like the photos that they show."""
    store = MediaStore(tmp_path / "out")
    photo = store.publish(samples.png(tmp_path / "a.png"), "photo.png")
    write_gallery(store, [Entry("m", "1", file=photo.at("photo.png"))])
    assert len(store.list("gallery")) == 2
    values = {"prompt": "waves", "duration": 5}
    asked = Batch(str(tmp_path / "out"), model="kling-v2.6-pro-image-to-video", values=values)
    batch = await write_batch(asked, "site", store)
    plan = await batch.plan(KnownWorks())
    assert not plan.problems
    assert sum(one.is_paid for one in plan.instances) == 1


def test_an_edit_is_shown_after_its_storage_was_moved(rh: Emulator, tmp_path: Path) -> None:
    picture, store = make(PICTURE).first_output, storage()
    file = picture.at(store.name_of(picture.uri))
    params = {"file": f"sha256:{file.sha256}"}
    edit = EditResult(token="t", edit="resize", params=params, version="1", store=store.url, file=file)
    store.write_bytes("edits/recipe/result.json", edit.model_dump_json().encode())
    moved = MediaStore((tmp_path / "out").rename(tmp_path / "after"))
    assert {one.model for one in entries_of(moved, moved)} == {"z-image/turbo", "resize"}
