"""The store: whole or absent, resumable, and honest about damage."""

import errno
import json
import os
from pathlib import Path

import pytest

from moeplan.errors import InputError, RecordError
from moeplan.validate import store as store_module
from moeplan.validate.archive import pack, unpack
from moeplan.validate.store import MANIFEST, DiskFullError, Store, open_run


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


def test_a_run_reads_back_what_was_written(store):
    run = store.run("a")
    run.write_json("result.json", {"x": 1})
    run.finish()
    again = store.run("a")
    assert again.complete
    assert again.read_json("result.json") == {"x": 1}
    assert not again.problems


def test_an_unfinished_run_continues_where_it_stopped(store):
    store.run("a").write("repeat-0.json", b"0")
    again = store.run("a")
    assert not again.complete
    again.write("repeat-1.json", b"1")
    assert store.run("a").names("repeat-") == ["repeat-0.json", "repeat-1.json"]


def test_nothing_is_rewritten(store):
    run = store.run("a")
    run.write("r", b"1")
    with pytest.raises(InputError, match="never rewritten"):
        run.write("r", b"2")


def test_a_damaged_file_is_named_and_the_rest_used(store):
    run = store.run("a")
    run.write("good", b"good")
    run.write("bad", b"fine")
    (run.path / "bad").write_bytes(b"fino")
    again = store.run("a")
    assert list(again.entries) == ["good"]
    assert "bad: checksum differs" in again.problems[0]
    with pytest.raises(RecordError, match="no intact bad"):
        again.read("bad")


def test_a_truncated_file_is_named(store):
    run = store.run("a")
    run.write("r", b"12345")
    (run.path / "r").write_bytes(b"123")
    assert "3 bytes instead of 5" in store.run("a").problems[0]


def test_a_manifest_cut_in_mid_line_loses_that_line_only(store):
    run = store.run("a")
    run.write("first", b"1")
    run.write("second", b"2")
    manifest = run.path / MANIFEST
    manifest.write_bytes(manifest.read_bytes()[:-9])
    again = store.run("a")
    assert list(again.entries) == ["first"]
    assert "half-written line" in again.problems[0]
    again.write("third", b"3")
    assert list(store.run("a").entries) == ["first", "third"]


def test_a_writer_that_died_leaves_a_reported_stray(store):
    run = store.run("a")
    run.write("first", b"1")
    (run.path / ".half-xyz").write_bytes(b"junk")
    assert any("half-written" in problem for problem in store.run("a").problems)


def test_a_full_disk_leaves_the_store_usable(store, monkeypatch):
    run = store.run("a")
    run.write("first", b"1")

    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store_module.os, "fsync", full)
        with pytest.raises(DiskFullError, match=r"No space.*intact"):
            run.write("second", b"2")
    assert [path.name for path in run.path.glob(".half-*")] == []
    again = store.run("a")
    assert list(again.entries) == ["first"]
    again.write("second", b"2")
    assert not open_run(run.path).problems


def test_an_archive_carries_every_intact_file(store, tmp_path):
    for key in ("a", "b"):
        run = store.run(key)
        run.write_json("r.json", {"key": key})
        run.finish()
    (store.root / "a" / "engine.log").write_text("not in the manifest")
    archive = tmp_path / "runs.tar.gz"
    assert pack(store.root, archive) == []
    assert unpack(archive, tmp_path / "home") == 2
    carried = Store(tmp_path / "home")
    assert [run.read_json("r.json")["key"] for run in carried.runs()] == ["a", "b"]
    assert all(run.complete and not run.problems for run in carried.runs())


def test_a_cut_archive_is_refused(store, tmp_path):
    store.run("a").write("r", os.urandom(50_000))
    archive = tmp_path / "runs.tar.gz"
    pack(store.root, archive)
    archive.write_bytes(archive.read_bytes()[:20_000])
    with pytest.raises(RecordError, match="copy it again"):
        unpack(archive, tmp_path / "home")


def test_unpacking_never_overwrites(store, tmp_path):
    store.run("a").write("r", b"1")
    archive = tmp_path / "runs.tar.xz"
    pack(store.root, archive)
    with pytest.raises(InputError, match="holds a already"):
        unpack(archive, store.root)


def test_a_missing_store_says_what_to_give(tmp_path):
    with pytest.raises(InputError, match="validate run"):
        list(Store(tmp_path / "none").runs())


def test_manifest_lines_are_json(store):
    run = store.run("a")
    run.write("r", b"1")
    lines = (Path(run.path) / MANIFEST).read_text().splitlines()
    assert json.loads(lines[0])["bytes"] == 1
