"""The speed of the stage leaves out the start of its workers; encoding alone is that of all processes together."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarking import preprocessing_speed
from benchmarking.made_text import made_documents
from benchmarking.preprocessing_speed import EncodeAlone, _stage_rate, encode_rates
from preprocessing.workers import START_METHOD
from tokens.tokenizer_training import train_tokenizer


@given(start=st.floats(0, 5), rate=st.floats(1, 1000), size=st.floats(1, 100), workers=st.integers(1, 64))
def test_the_start_does_not_count(start: float, rate: float, size: float, workers: int) -> None:
    def seconds(scratch: Path, tokenizer: Any, workers: int, times: int) -> float:
        return start + times * size / rate

    with mock.patch("benchmarking.preprocessing_speed._stage_seconds", seconds):
        found = _stage_rate(Path(), size, mock.Mock(), workers)
    hidden = 2 * workers * size / rate < 0.25 * (start + 3 * workers * size / rate)
    assert found < rate if hidden else found == pytest.approx(rate)


def test_every_kind_of_work_has_a_rate() -> None:
    documents = made_documents(20)
    tokenizer = train_tokenizer(iter(documents), 400)
    with mock.patch("benchmarking.preprocessing_speed.ENCODE_SECONDS", 0.01):
        rates = encode_rates(tokenizer.model, (EncodeAlone("gigatoken", documents), EncodeAlone("sentencepiece", documents[:2])), 2)
    assert len(rates) == 2 and min(rates) > 0


def test_the_clock_starts_when_all_processes_are_ready() -> None:
    """For each kind of work, a process waits for the others between its first call, which fetches memory, and those that count."""
    events: list[str] = []

    def make_encoder(tokenizer: object, name: str) -> Callable[[list[str]], None]:
        return lambda texts: events.append(f"{name} {len(texts)}")

    work = EncodeAlone("gigatoken", ["text"] * 8), EncodeAlone("sentencepiece", ["text"] * 4)
    assignment = b"", work, 1e-9, mock.Mock(wait=lambda: events.append("wait"))
    with (
        mock.patch.multiple(preprocessing_speed, make_encoder=make_encoder, Tokenizer=mock.Mock()),
        mock.patch.object(preprocessing_speed, "_assignment", assignment, create=True),
    ):
        preprocessing_speed._encode_alone(0)
    assert events == ["gigatoken 3", "wait", "gigatoken 8", "sentencepiece 2", "wait", "sentencepiece 4"]


def _place_among_those_that_wait(number: int) -> list[float]:
    return [preprocessing_speed._assignment[-1].wait(60)]


def test_two_processes_encode_at_the_same_time() -> None:
    with mock.patch("benchmarking.preprocessing_speed._encode_alone", _place_among_those_that_wait):  # found by its name in each process
        assert encode_rates(b"", (), 2) == [0 + 1]


def _has_large_pages(number: int) -> list[float]:
    return ["glibc.malloc.hugetlb=1" in os.environ.get("GLIBC_TUNABLES", "")]


@pytest.mark.skipif(START_METHOD != "forkserver", reason="workers have large pages on Linux only")
def test_processes_that_encode_alone_start_as_the_workers_do() -> None:
    with mock.patch("benchmarking.preprocessing_speed._encode_alone", _has_large_pages):
        assert encode_rates(b"", (), 2) == [2]
