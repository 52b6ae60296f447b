"""Generating is compared with one plain GPT."""

from unittest import mock

from benchmarking.bench import Bench
from benchmarking.generation_speed import measure_generation
from benchmarking.yardstick import ReferenceGPT


def test_the_yardstick_is_in_memory_once_for_all_numbers_of_texts(bench: Bench) -> None:
    with mock.patch("benchmarking.generation_speed.ReferenceGPT", wraps=ReferenceGPT) as made:
        section = measure_generation(bench)
    assert made.call_count == 1
    assert {measurement.name for measurement in section.measurements} >= {"float32, 1 text", "float32, 3 texts"}
