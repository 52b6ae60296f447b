"""WikiText: lines become articles, tokenization and markup go, and reading resumes at any row."""

import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import PreprocessConfig
from formats.document_reader import DocumentReader
from formats.shards import open_dataset
from preprocessing.sources import Position, open_documents
from preprocessing.wikitext import clean_line, join_articles
from tests.conftest import fails_with, write_jsonl
from tests.preprocessing.in_process import run_here
from tokens.tokenizer import Tokenizer

LINES = [
    " \n",
    " = The Old House = \n",
    " \n",
    ' The house ( built in 1888 ) is a well @-@ known <unk> , with 3 @.@ 5 m of " red brick " . \n',
    " = = History = = \n",
    " It cost $ 1 @,@ 000 ; the owner 's dog didn 't like it , said the painters ' union . \n",
    " \n",
    " = Cats = \n",
    " A cat = an animal . \n",
]
ARTICLES = [
    'The Old House\nThe house (built in 1888) is a well-known, with 3.5 m of "red brick".\nHistory\n'
    "It cost $1,000; the owner's dog didn't like it, said the painters' union.",
    "Cats\nA cat = an animal.",
]


def articles(lines: Sequence[str]) -> list[str]:
    return [text.decode() for row in join_articles(line.encode() for line in lines) for text in row if text is not None]


def test_lines_become_clean_articles() -> None:
    assert articles(LINES) == ARTICLES


def test_a_row_of_many_lines_is_read_like_its_lines() -> None:
    assert articles(["".join(LINES)]) == ARTICLES


def test_what_is_not_text_is_passed_on() -> None:
    assert list(join_articles([b" = A = ", None, b"\xff", b" b "])) == [[], [None], [b"\xff"], [], [b"A\nb"]]


@pytest.mark.parametrize("line", ["An equation x = y", "= = =", "1 = 1 and 2 = 2", "a @ b"])
def test_other_lines_stay(line: str) -> None:
    assert clean_line(line) == line


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20), max_size=6))
def test_no_word_without_markup_is_lost(words: list[str]) -> None:
    line = " ".join(word for word in words if word.isalnum())
    assert clean_line(line) == line


@given(st.lists(st.sampled_from(LINES), max_size=30), st.integers(0, 31))
def test_there_is_one_list_for_each_row_and_one_at_the_end(lines: list[str], first: int) -> None:
    rows = list(join_articles(line.encode() for line in lines))
    assert len(rows) in (len(lines), len(lines) + 1)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "wiki.jsonl"
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in LINES * 3), encoding="utf-8")
    return path


def test_reading_resumes_within_an_article(source: Path) -> None:
    documents = open_documents(PreprocessConfig(input=(str(source),), clean="wikitext"))
    whole = list(documents.read(Position(0, 0)))
    texts = [part.text.decode() for items, _ in whole for part in items if part.text]
    assert texts == ARTICLES * 3
    for row in range(len(whole)):
        assert list(documents.read(Position(0, row))) == whole[row:]


def test_a_data_folder_of_it(source: Path, tmp_path: Path) -> None:
    flags = ["--input", source, "--data-dir", tmp_path / "data", "--vocab-size", 300, "--workers", 1, "--val-share", 0.4]
    result = run_here("preprocess_xcoax.py", *flags, "--clean", "wikitext", "--order", "forward")
    assert result.returncode == 0, result.stderr
    dataset = open_dataset(tmp_path / "data")
    tokenizer = Tokenizer.load(dataset.folder)
    readers = [DocumentReader(dataset, split, tokenizer.end_of_text) for split in ("train", "val")]
    found = list(itertools.chain.from_iterable([reader.read(index) for index in range(len(reader))] for reader in readers))
    assert {tokenizer.decode(ids[1:].tolist()) for ids in found} == set(ARTICLES)
    fails_with(
        run_here("preprocess_xcoax.py", *flags, "--order", "forward"),
        2,
        "was made with different settings",
        "clean was 'wikitext', now 'no'",
    )


def test_a_folder_of_an_earlier_version_is_still_finished(dataset_folder: Path, documents: list[str], tmp_path: Path) -> None:
    """It does not say that nothing was cleaned."""
    shutil.copytree(dataset_folder, tmp_path / "data")
    meta = json.loads((tmp_path / "data" / "meta.json").read_text(encoding="utf-8"))
    assert meta["settings"].pop("clean") == "no"
    (tmp_path / "data" / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    source = write_jsonl(tmp_path / "documents.jsonl", documents)
    result = run_here("preprocess_xcoax.py", "--input", source, "--data-dir", tmp_path / "data", "--vocab-size", 400, "--val-share", 0.1)
    assert "is already finished" in result.stdout, result.stderr
