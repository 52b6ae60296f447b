"""Measure how fast every stage is on this machine, beside the limit of the machine and beside a plain GPT. No data is needed.

    python benchmark_xcoax.py
    python benchmark_xcoax.py demo
    python benchmark_xcoax.py --parts train generate --json figures.json

The weights are random and the text is made up. With the published shape it takes about ten minutes on two CPU cores.
"""

from system.startup import run_script

from presets import BENCHMARK_PRESETS
from system.command_line import read_flags


def main() -> None:
    config = read_flags(BENCHMARK_PRESETS, __doc__)
    from benchmarking.run import run_benchmark  # loads torch, which the worker processes of preprocessing must not: they import this script

    run_benchmark(config)


if __name__ == "__main__":
    run_script(main)
