"""Each parameter has one optimizer, Muon orthogonalises, a restored run is the run, and the schedules have their shape."""

import io
import itertools
import math
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from config import ModelConfig, TrainConfig
from errors import UserError
from model import GPT
from optimizer import Muon, Optimizers, learning_rate, make_optimizer, orthogonalise

TINY = ModelConfig(n_layer=2, n_head=4, n_embed=32, block_size=16, vocab_size=50)
Name = Literal["adamw", "muon"]
NAMES: tuple[Name, ...] = ("adamw", "muon")


def tiny_run(optimizer: Name, model: ModelConfig = TINY) -> tuple[GPT, Optimizers]:
    torch.manual_seed(0)
    gpt = GPT(model)
    return gpt, make_optimizer(gpt, TrainConfig(model=model, optimizer=optimizer, lr=0.01), "cpu")


def train(gpt: GPT, optimizers: Optimizers, steps: range) -> float:
    """The task: each id is followed by the next one; a different batch in each step. Returns the last loss."""
    loss = torch.tensor(math.nan)
    for step in steps:
        ids = (torch.arange(17) + 5 * torch.arange(4)[:, None] + step) % TINY.vocab_size
        loss = gpt(ids[:, :-1], ids[:, 1:]) / 64
        loss.backward()
        optimizers.set_learning_rate(0.01 / (1 + 0.01 * step))
        optimizers.step()
        optimizers.zero_grad()
    return loss.item()


def names_of(parameters: list[torch.nn.Parameter], gpt: GPT) -> list[str]:
    names = {parameter: name for name, parameter in gpt.named_parameters()}
    return sorted(names[parameter] for parameter in parameters)


@pytest.mark.parametrize("tie_embeddings", [True, False])
@pytest.mark.parametrize("optimizer", NAMES)
def test_every_parameter_has_one_optimizer(optimizer: Name, tie_embeddings: bool) -> None:
    gpt, optimizers = tiny_run(optimizer, ModelConfig(2, 4, 32, 16, 50, tie_embeddings=tie_embeddings))
    names = {name: names_of([p for group in one.param_groups for p in group["params"]], gpt) for name, one in optimizers.named.items()}
    everything = sorted(name for name, _ in gpt.named_parameters())
    assert sorted(itertools.chain(*names.values())) == everything
    inside = [f"attention.{matrix}" for matrix in ("query", "key", "value", "output")] + ["mlp.gate", "mlp.up", "mlp.down"]
    hidden = sorted(f"blocks.{block}.{matrix}.weight" for block in range(2) for matrix in inside)
    assert names.get("muon", []) == (hidden if optimizer == "muon" else [])


@pytest.mark.parametrize("optimizer", NAMES)
def test_matrices_decay_and_vectors_do_not(optimizer: Name) -> None:
    gpt, optimizers = tiny_run(optimizer)
    for group in optimizers.param_groups:
        assert {parameter.dim() >= 2 for parameter in group["params"]} == {group["weight_decay"] > 0}
    before = {name: parameter.detach().clone() for name, parameter in gpt.named_parameters()}
    for parameter in gpt.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizers.set_learning_rate(0.5)
    optimizers.step()  # without a gradient, only the decay is left
    for name, parameter in gpt.named_parameters():
        torch.testing.assert_close(parameter, before[name] * (1 - 0.5 * 0.1 if parameter.dim() >= 2 else 1))


def matrices_with_known_values(count: int, rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    size = min(rows, columns)
    left = torch.linalg.qr(torch.randn(count, rows, size, generator=generator)).Q
    right = torch.linalg.qr(torch.randn(count, columns, size, generator=generator)).Q
    values = torch.linspace(0.02, 1, size).expand(count, size)
    return left @ torch.diag_embed(values) @ right.mT, left, values, right


@pytest.mark.parametrize(("rows", "columns"), [(32, 32), (16, 48), (48, 16), (1, 8)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_newton_schulz_makes_matrices_nearly_orthogonal(rows: int, columns: int, scale: float) -> None:
    matrices, left, _, right = matrices_with_known_values(3, rows, columns)
    result = orthogonalise(matrices * scale)
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.6
    assert values.max() < 1.3
    # The same singular vectors: in their bases, the result is diagonal and positive.
    diagonal = left.mT @ result @ right
    torch.testing.assert_close(diagonal, torch.diag_embed(diagonal.diagonal(dim1=1, dim2=2)), atol=1e-4, rtol=0)
    assert diagonal.diagonal(dim1=1, dim2=2).min() > 0.6


def test_newton_schulz_of_a_stack_is_that_of_each_matrix() -> None:
    matrices = torch.randn(5, 12, 30, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-3, 1, 1e3, 7, 0])[:, None, None]
    together = orthogonalise(matrices)
    for matrix, result in zip(matrices, together, strict=True):
        torch.testing.assert_close(orthogonalise(matrix[None])[0], result, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(orthogonalise(matrix.mT[None])[0], result.mT, atol=1e-5, rtol=1e-5)
    assert not together[4].any()  # as at the first step, where the zero output matrices let no gradient through


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (32, 32)])
def test_muon_agrees_with_that_of_torch(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    muons = [Muon([ours], 0.1, 0.1), torch.optim.Muon([theirs], lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")]
    for _ in range(3):
        ours.grad = torch.randn(shape, generator=generator)
        theirs.grad = ours.grad.clone()
        for muon in muons:
            muon.step()
    moved = (theirs - start).norm()
    assert moved > 1
    assert (ours - theirs).norm() < 0.02 * moved  # theirs computes in bfloat16


def test_muon_moves_entries_as_far_as_adamw_does() -> None:
    """So that both take one learning rate: entries move by about 0.2 of it, whatever the shape."""
    for shape in ((64, 64), (64, 256), (256, 64)):
        matrix = torch.nn.Parameter(torch.zeros(shape))
        matrix.grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        Muon([matrix], lr=1.0, weight_decay=0.0).step()
        assert 0.15 < matrix.square().mean().sqrt() < 0.25


@pytest.mark.parametrize("optimizer", NAMES)
def test_restored_in_the_middle_it_ends_with_the_same_bits(optimizer: Name) -> None:
    gpt, optimizers = tiny_run(optimizer)
    train(gpt, optimizers, range(5))
    file = io.BytesIO()
    torch.save({"model": gpt.state_dict(), "optimizer": optimizers.state_dict()}, file)
    train(gpt, optimizers, range(5, 10))

    again, optimizers = tiny_run(optimizer)
    train(again, optimizers, range(100, 103))  # a past of its own, which the state must wipe out
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again.load_state_dict(saved["model"])
    optimizers.load_state_dict(saved["optimizer"])
    train(again, optimizers, range(5, 10))
    torch.testing.assert_close(again.state_dict(), gpt.state_dict(), atol=0, rtol=0)


@pytest.mark.parametrize("optimizer", NAMES)
def test_a_restored_run_keeps_its_own_settings(optimizer: Name) -> None:
    state = tiny_run(optimizer)[1].state_dict()
    optimizers = make_optimizer(GPT(TINY), TrainConfig(model=TINY, optimizer=optimizer, lr=0.5, weight_decay=0.3, beta2=0.9), "cpu")
    optimizers.load_state_dict(state)
    assert {group["lr"] for group in optimizers.param_groups} == {0.5}
    assert {group["weight_decay"] for group in optimizers.param_groups} == {0.3, 0.0}
    assert optimizers.param_groups[0]["betas"] == (0.9, 0.9)


def test_state_of_the_other_optimizer_is_refused() -> None:
    with pytest.raises(UserError, match="--optimizer"):
        tiny_run("adamw")[1].load_state_dict(tiny_run("muon")[1].state_dict())


@pytest.mark.parametrize("overflows_in", ["embedding.weight", "blocks.1.mlp.up.weight"])
def test_grad_scaler_steps_both_optimizers_or_neither(overflows_in: str) -> None:
    gpt, optimizers = tiny_run("muon")
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    ids = torch.arange(17)[None]
    for overflow in (False, True):
        before = {name: parameter.detach().clone() for name, parameter in gpt.named_parameters()}
        scaler.scale(gpt(ids[:, :-1], ids[:, 1:]) / 16).backward()
        if overflow:
            parameter = gpt.get_parameter(overflows_in)
            assert parameter.grad is not None
            parameter.grad[0, 0] = math.inf
        for one in optimizers.optimizers:
            scaler.unscale_(one)
        norm = torch.nn.utils.clip_grad_norm_(gpt.parameters(), 1.0)
        if norm.isfinite():
            assert norm < 100  # unscaled
            optimizers.step()
        scaler.update()
        optimizers.zero_grad()
        moved = {name for name, parameter in gpt.named_parameters() if not torch.equal(parameter, before[name])}
        assert ({"embedding.weight", "blocks.1.mlp.down.weight"} <= moved) == (not overflow)
        assert not (overflow and moved)
        assert scaler.get_scale() == (512.0 if overflow else 1024.0)


@pytest.mark.parametrize(("optimizer", "golden"), [("adamw", 1.6990), ("muon", 1.2585)])
def test_golden_loss_after_twenty_steps(optimizer: Name, golden: float) -> None:
    assert train(*tiny_run(optimizer), range(20)) == pytest.approx(golden, rel=0.02)


def rates(config: TrainConfig) -> list[float]:
    return [learning_rate(config, step) for step in range(config.max_steps + 1)]


def test_cosine_by_hand() -> None:
    """Four steps of warmup from zero, the peak, half-way down, and the floor at the step that is never taken."""
    got = rates(TrainConfig(lr=1.0, min_lr_share=0.1, warmup_steps=4, max_steps=20, schedule="cosine"))
    assert got[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert got[8] == pytest.approx(0.1 + 0.9 * (0.5 + math.sqrt(0.5) / 2))
    assert got[12] == pytest.approx(0.55)
    assert got[20] == pytest.approx(0.1)


def test_wsd_by_hand() -> None:
    got = rates(TrainConfig(lr=1.0, min_lr_share=0.0, warmup_steps=1, max_steps=10, schedule="wsd", cooldown_share=0.4))
    assert got == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0.0])


def test_a_warmup_longer_than_the_run_only_rises() -> None:
    got = rates(TrainConfig(lr=1.0, warmup_steps=9, max_steps=5, schedule="cosine"))
    assert got[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


configs = st.builds(
    TrainConfig,
    lr=st.floats(1e-6, 1.0),
    min_lr_share=st.floats(0, 1),
    warmup_steps=st.integers(0, 60),
    max_steps=st.integers(1, 50),
    schedule=st.sampled_from(["cosine", "wsd"]),
    cooldown_share=st.floats(0, 1),
)


@given(configs)
def test_rates_are_above_zero_up_to_the_peak_and_one_hill(config: TrainConfig) -> None:
    got = rates(config)
    assert all(0 < rate <= config.lr for rate in got[:-1])
    assert got[-1] >= 0
    peak = got.index(max(got))
    assert all(a <= b for a, b in itertools.pairwise(got[: peak + 1]))
    assert all(a >= b for a, b in itertools.pairwise(got[peak:]))


@given(configs)
def test_rates_meet_at_the_seams(config: TrainConfig) -> None:
    """No jump is larger than the steepest slope that the flags ask for; the ends are the warmup's first rate and the floor."""
    got = rates(config)
    if config.warmup_steps >= config.max_steps:
        return
    cosine_fall = (config.max_steps - config.warmup_steps) * 2 / math.pi  # steps from top to bottom at its steepest
    fall = config.cooldown_share * config.max_steps if config.schedule == "wsd" else cosine_fall
    steepest = config.lr * max(1 / (config.warmup_steps + 1), 1 / fall if fall else 0)
    assert all(abs(a - b) <= steepest * (1 + 1e-9) for a, b in itertools.pairwise(got))
    assert got[0] <= config.lr / (config.warmup_steps + 1) * (1 + 1e-9)
    if fall:
        assert got[-1] == pytest.approx(config.lr * config.min_lr_share)
