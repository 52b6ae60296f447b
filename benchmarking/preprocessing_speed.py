"""Owns the speed of preprocessing: the real stage on made-up text, beside encoding alone in as many processes.

Worker processes import this file: nothing heavy at its top.
"""

import contextlib
import io
import multiprocessing
import shutil
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any, NamedTuple

from benchmarking.made_text import DOCUMENT_BYTES, made_documents
from benchmarking.measurement import Measurement, Rounds, Section
from config import BenchmarkConfig, PreprocessConfig
from preprocessing.documents import document_settings, preprocess_documents
from preprocessing.workers import START_METHOD, prepare_workers
from tokens.encoders import EncoderName, choose_encoder, make_encoder
from tokens.reversal import reorder
from tokens.tokenizer import Tokenizer
from tokens.tokenizer_training import train_tokenizer

SHORT_RUN, LONG_RUN = 1, 3  # times the text; what the longer run takes more is the speed without the start of the workers
LEAST_SHARE = 0.25  # of the longer run that counts as this difference, if starting hides it
SAMPLE_DOCUMENTS = 3000  # that the tokenizer is trained on
ENCODED_BYTES = 8 << 20  # that are encoded alone at a time
PLAIN_BYTES = 1 << 20  # the same for SentencePiece, which is slower
CHECKED_DOCUMENTS = 300
ENCODE_SECONDS = 1.0  # that encoding alone is measured for


class EncodeAlone(NamedTuple):
    """What processes encode, and nothing else."""

    encoder_name: EncoderName
    texts: list[str]  # in the order of the shards


def measure_preprocessing(config: BenchmarkConfig, scratch: Path, rounds: Rounds) -> Section:
    """MB of text per second with one worker and with all of them."""
    documents = made_documents(max(1, round(config.text_mb * 1e6 / DOCUMENT_BYTES)))
    tokenizer = train_tokenizer(iter(documents[:SAMPLE_DOCUMENTS]), config.model.vocab_size)
    (scratch / "tokenizer.model").write_bytes(tokenizer.model)
    _write_parquet(scratch / "text.parquet", documents)
    texts = [reorder(document, "backward") for document in documents]
    encoder, _ = choose_encoder(tokenizer, texts[:CHECKED_DOCUMENTS])
    alone = EncodeAlone(encoder, _first_bytes(texts, ENCODED_BYTES)), EncodeAlone("sentencepiece", _first_bytes(texts, PLAIN_BYTES))
    size = sum(len(document.encode()) for document in documents) / 1e6
    del documents, texts

    workers = sorted({1, config.workers})
    figures: dict[int, list[float]] = defaultdict(list)
    bounds: dict[int, list[float]] = defaultdict(list)
    yardsticks: dict[int, list[float]] = defaultdict(list)
    for _ in rounds():
        for count in workers:
            bound, plain = encode_rates(tokenizer.model, alone, count)
            bounds[count].append(bound)
            yardsticks[count].append(plain)
            figures[count].append(_stage_rate(scratch, size, tokenizer, count))
    return Section(
        "preprocess",
        f"Preprocessing: Parquet to shards, {tokenizer.vocab_size:,} ids, {size * LONG_RUN:.0f} MB of made-up text for each worker",
        [
            Measurement(
                f"{count} worker{'s, in all' if count > 1 else ''}",
                "MB/s",
                *(tuple(series[count]) for series in (figures, bounds, yardsticks)),
            )
            for count in workers
        ],
        [
            f"Bound: encoding alone ({encoder}), in as many processes at once. Yardstick: SentencePiece alone, likewise.",
            *(f"{count} workers: {sum(figures[count]) / len(figures[count]) / count:.1f} MB/s each." for count in workers if count > 1),
        ],
    )


def encode_rates(tokenizer_model: bytes, work: tuple[EncodeAlone, ...], processes: int) -> list[float]:
    """For each kind of work the MB of text per second that this many processes encode together, when all have started."""
    prepare_workers()  # or the processes would lack the large pages of the stage's workers, and be no bound
    context = multiprocessing.get_context(START_METHOD)
    assignment = tokenizer_model, work, ENCODE_SECONDS, context.Barrier(processes)
    with ProcessPoolExecutor(processes, context, _receive, assignment) as executor:
        return [sum(rates) for rates in zip(*executor.map(_encode_alone, range(processes)), strict=True)]


def _receive(*assignment: Any) -> None:
    global _assignment
    _assignment = assignment


def _encode_alone(number: int) -> list[float]:
    """MB of text per second of process `number`, for each kind of work, while all the others do the same."""
    tokenizer_model, work, least_seconds, barrier = _assignment
    rates = []
    for encoder_name, texts in work:
        encode = make_encoder(Tokenizer(tokenizer_model), encoder_name)
        encode(texts[: len(texts) // 4 + 1])
        size = sum(len(text.encode()) for text in texts) / 1e6
        barrier.wait()
        started, count, seconds = time.perf_counter(), 0, 0.0
        while seconds < least_seconds:
            encode(texts)
            count, seconds = count + 1, time.perf_counter() - started
        rates.append(count * size / seconds)
    return rates


_assignment: tuple[bytes, tuple[EncodeAlone, ...], float, Barrier]  # tokenizer, work, least seconds; of this process, set when it starts


def _stage_rate(scratch: Path, size: float, tokenizer: Tokenizer, workers: int) -> float:
    """MB of text per second of the real stage, from two runs of different length."""
    short, long = (_stage_seconds(scratch, tokenizer, workers, workers * times) for times in (SHORT_RUN, LONG_RUN))
    return (LONG_RUN - SHORT_RUN) * workers * size / max(long - short, LEAST_SHARE * long)


def _stage_seconds(scratch: Path, tokenizer: Tokenizer, workers: int, times: int) -> float:
    """Seconds of the stage for the text `times` times over."""
    config = PreprocessConfig(
        data_dir=str(scratch / "data"),
        input=(str(scratch / "text.parquet"),) * times,
        tokenizer=str(scratch / "tokenizer.model"),
        vocab_size=tokenizer.vocab_size,
        workers=workers,
    )
    settings = document_settings(config)
    folder = Path(config.data_dir)
    folder.mkdir()
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        preprocess_documents(config, folder, settings)
    seconds = time.perf_counter() - started
    shutil.rmtree(folder)
    return seconds


def _first_bytes(texts: list[str], limit: int) -> list[str]:
    """The first texts, of about this size together."""
    taken, size = [], 0
    for text in texts:
        taken.append(text)
        size += len(text)
        if size >= limit:
            break
    return taken


def _write_parquet(path: Path, documents: list[str]) -> None:
    import pyarrow  # comes with datasets
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"text": documents}), path, row_group_size=1000)
