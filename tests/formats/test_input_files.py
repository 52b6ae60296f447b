"""The files that --input names, in a fixed order, and fingerprints that change with their contents."""

import os
from pathlib import Path

import pytest

from formats import input_files
from formats.input_files import find_files, fingerprint, look_for_files
from system.errors import UserError


def refused(*inputs: str) -> str:
    """The message for inputs that are bad flags."""
    with pytest.raises(UserError) as caught:
        find_files(inputs)
    assert caught.value.exit_code == 2
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_files_folders_and_globs_give_files_in_a_fixed_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.txt", "a/z.txt", "a/deep/er/y.jsonl", "c/[1].json", "c/notes.md", "c/x.txt.bak", "d [2]/w.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)

    def names(*inputs: str) -> list[str]:
        return find_files(inputs)

    assert names(".") == ["a/deep/er/y.jsonl", "a/z.txt", "b.txt", "c/[1].json", "d [2]/w.txt"]
    assert names("c", "a") == ["c/[1].json", "a/deep/er/y.jsonl", "a/z.txt"]
    assert names("**/*.txt") == ["a/z.txt", "b.txt", "d [2]/w.txt"]
    assert names("b.txt", "?/*.txt", "b.txt") == ["b.txt", "a/z.txt", "b.txt"]
    assert names("c/[1].json", "d [2]") == ["c/[1].json", "d [2]/w.txt"]
    for other_kind in ("c/notes.md", "c/*", "c/x.txt.bak"):
        assert "supported endings: .parquet, .jsonl" in refused(other_kind)
    for missing in ("nothing.txt", "nothing/*.txt", "c/n*", "x" * 5000):
        refused(missing)
    assert "--input empty: no such file, or no file in it ends in .parquet, .jsonl" in refused("b.txt", "empty")


def test_hidden_files_are_read_only_if_they_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.txt", ".b.txt", ".git/c.txt", "__MACOSX/._a.txt", "d/.e/f.txt", "d/g.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    for inputs, expected in {
        (".",): ["a.txt", "d/g.txt"],
        (str(tmp_path),): [str(tmp_path / "a.txt"), str(tmp_path / "d/g.txt")],
        ("**/*.txt",): ["a.txt", "d/g.txt"],
        ("*/*.txt",): ["d/g.txt"],
        (".b.txt", ".git", "__MACOSX/._a.txt", "d/.e/*.txt"): [".b.txt", ".git/c.txt", "__MACOSX/._a.txt", "d/.e/f.txt"],
        (".*.txt",): [".b.txt"],
    }.items():
        assert find_files(inputs) == expected
    assert "no file in it ends in .parquet" in refused("__MACOSX")
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / ".x.txt").touch()
    assert refused("only").endswith(".txt, except hidden ones")


def test_files_that_are_not_read_are_counted_and_named(tmp_path: Path) -> None:
    def notice(*names: str) -> str:
        for name in names:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        return look_for_files((str(tmp_path),), (".txt",)).notice

    assert notice("a.txt") == ""
    assert notice("b.pdf") == "1 file is not read: b.pdf"
    assert notice("c.docx", ".d.txt") == "3 files are not read: b.pdf, c.docx, .d.txt (1 hidden)"
    assert notice(".git/e.txt", "f.bin") == "5 files are not read: b.pdf, c.docx, f.bin, … (2 hidden)"
    assert look_for_files((str(tmp_path / "a.txt"),), (".txt",)).notice == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.jsonl"
    path.parent.mkdir()
    path.write_text("")
    path.parent.chmod(0)
    try:
        assert f"--input {path}: " in refused(str(path))
    finally:
        path.parent.chmod(0o700)


@pytest.mark.parametrize("whole_bytes", [1 << 30, 0])
def test_a_fingerprint_changes_with_name_size_and_contents_but_not_with_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole_bytes: int
) -> None:
    """Also for a large file, of which only parts are read, the first and the last bytes among them."""
    monkeypatch.setattr(input_files, "WHOLE_BYTES", whole_bytes)
    path = tmp_path / "a.txt"
    data = bytes(range(256)) * 16384
    path.write_bytes(data)
    before = fingerprint(str(path))
    assert before.startswith("a.txt (4,194,304 bytes, ")
    assert fingerprint(str(path)) == before
    (tmp_path / "elsewhere").mkdir()
    assert fingerprint(str(path.rename(tmp_path / "elsewhere" / "a.txt"))) == before
    for other in (data[:-1] + b"x", b"x" + data[1:], data + b"x"):
        path.write_bytes(other)
        assert fingerprint(str(path)) != before
    path.write_bytes(data)
    assert fingerprint(str(path.rename(tmp_path / "b.txt"))) != before
