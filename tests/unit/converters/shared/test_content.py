"""Files that are there but are not what their name says."""

from __future__ import annotations

import os

import pytest

from converters.shared.content import not_content

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb\nsize 132735\n"
PAGE = b"\xef\xbb\xbf\n<!DOCTYPE html>\n<html><head><title>Sign in\n to see this</title></head>" + b"x" * 2000
DENIED = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>no</Message></Error>'


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        (b"", ["a/b.mp4 is empty (0 bytes)", "fetch it again"]),
        (
            LFS,
            ["a/b.mp4 is a Git LFS pointer of a file of 132735 bytes", "git lfs pull --include 'a/b.mp4'", "all files"],
        ),
        (LFS[:60], ["a/b.mp4 is a Git LFS pointer, not its content"]),
        (b"/annex/objects/SHA256E-s1--ab.mp4\n", ["is a git-annex pointer", "git annex get 'a/b.mp4'"]),
        (PAGE, ['is an HTML page ("Sign in to see this")', "hf auth login"]),
        (b"<HTML><body>404</body></HTML>", ["is an HTML page, not its content"]),
        (b"\n<!-- Hub -->\n<!-- 2 --><!doctype html><title>Log in</title>", ['an HTML page ("Log in")']),
        (b"<?xml version='1.0'?>\n<html><title>Wi-Fi</title>", ['is an HTML page ("Wi-Fi")']),
        (DENIED, ["is an error reply AccessDenied of the download's server"]),
        (b"Entry not found", ["is a text of 15 bytes ('Entry not found'), not its content", "hf auth login"]),
        (b'{"error":"Repository not found"}\n', ["is a text of 33 bytes", "a reply of the download's server"]),
        (b"PK\x03\x04" + bytes(2000), ["is a ZIP archive; unpack it: mv 'a/b.mp4' 'a/b.mp4.zip' && unzip"]),
        (b"\xef\xbb\xbf\r\n" + LFS.replace(b"\n", b"\r\n"), ["is a Git LFS pointer of a file of 132735 bytes"]),
        (b"429 Too Many Requests\n", ["is a text of 22 bytes ('429 Too Many Requests')", "saved in its place"]),
        (b"503 Service Unavailable", ["is a text of 23 bytes"]),
        (
            b"x.mp4" + bytes(252) + b"ustar\x0000" + bytes(2000),
            ["is a tar archive; unpack it: mv", "tar xf 'a/b.mp4.tar'"],
        ),
        (bytes(4096), ["begins with 1024 zero bytes"]),
    ],
)
def test_what_is_not_the_content_is_named_with_what_to_do(tmp_path, data, parts):
    path = tmp_path / "b.mp4"
    path.write_bytes(data)
    found = not_content(path, "a/b.mp4")
    assert found is not None and "\n" not in found
    assert all(part in found for part in parts), found


@pytest.mark.parametrize(
    "data",
    [
        b"PAR1" + bytes(100),
        b"\0\0\0\x20ftypisom" + bytes(2000),
        b"\x89HDF\r\n\x1a\n" + bytes(2000),
        b'{"episode_index": 0}\n',
        b"<?xml version='1.0'?><robot/>",
        b"\x89MCAP0\r\n",
        b'{"task_index": 0, "task": "find what was not found"}\n{"task_index": 1, "task": "press"}\n',
        b'{"seen": ["The cup that was not found."]}',
    ],
    ids=["parquet", "mp4", "hdf5", "jsonl", "xml", "mcap", "tasks", "instructions"],
)
def test_content_is_left_to_its_reader(tmp_path, data):
    path = tmp_path / "b.mp4"
    path.write_bytes(data)
    assert not_content(path, "b.mp4") is None


def test_what_cannot_be_opened_is_left_to_its_reader(tmp_path):
    assert not_content(tmp_path / "none", "none") is None


def test_a_pipe_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "take.mcap")  # opening it would wait for whoever writes
    assert not_content(tmp_path / "take.mcap", "take.mcap") == "take.mcap is not a regular file"
