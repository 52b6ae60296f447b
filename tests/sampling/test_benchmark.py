"""The benchmark measures one text, int8 and a batch, beside a full pass and the bound."""

import re

from tests.conftest import call_script


def test_a_tiny_model_is_measured() -> None:
    flags = ["demo", "--n-layer", 1, "--n-embed", 16, "--n-head", 2, "--prompt-tokens", 4, "--tokens", 4, "--rows", 3, "--repeats", 1]
    result = call_script("benchmark_xcoax.py", *flags, "--device", "cpu", "--dtype", "float32")
    assert result.returncode == 0, result.stderr
    parameters, run, full_pass, one, many, int8 = result.stdout.splitlines()
    assert "M parameters" in parameters
    assert run == "prompt of 4 tokens, 4 tokens generated; medians of 1 runs"
    assert re.search(r"torch.float32: \d+\.\d tokens/s$", full_pass)
    speed = r"torch.float32: \d+\.\d tokens/s; \d+% of the bound of \d+\.\d; \d+\.\d\d times the first, \d+\.\d times the full pass"
    assert re.fullmatch(f"one text, {speed}", one)
    assert re.fullmatch(r"3 texts at once, torch.float32: \d+\.\d tokens/s, \d+\.\d times one text", many)
    assert re.fullmatch(f"one text, int8, {speed}", int8)
