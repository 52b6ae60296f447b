"""The optimizers: each parameter has exactly one, and restored state continues to the same bits."""

import io
import itertools
import math
from typing import Literal

import pytest
import torch

from config import ModelConfig, TrainConfig
from model import GPT
from system.errors import UserError
from training.optimizer import Optimizers, make_optimizer

TINY = ModelConfig(n_layer=2, n_head=4, n_embed=32, block_size=16, vocab_size=50)
Name = Literal["adamw", "muon"]
NAMES: tuple[Name, ...] = ("adamw", "muon")


def tiny_run(optimizer: Name, model: ModelConfig = TINY) -> tuple[GPT, Optimizers]:
    torch.manual_seed(0)
    gpt = GPT(model)
    return gpt, make_optimizer(gpt, TrainConfig(model=model, optimizer=optimizer, lr=0.01), "cpu")


def train(gpt: GPT, optimizers: Optimizers, steps: range) -> float:
    """Train on sequences that count upwards, a different batch in each step; returns the last loss."""
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
    names = {
        name: names_of([parameter for group in of_one.param_groups for parameter in group["params"]], gpt)
        for name, of_one in optimizers.named.items()
    }
    assert sorted(itertools.chain(*names.values())) == sorted(name for name, _ in gpt.named_parameters())
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
    optimizers.step()  # with zero gradients only the decay acts
    for name, parameter in gpt.named_parameters():
        torch.testing.assert_close(parameter, before[name] * (1 - 0.5 * 0.1 if parameter.dim() >= 2 else 1))


@pytest.mark.parametrize("optimizer", NAMES)
@pytest.mark.parametrize("adamw_lr", [None, 0.2])
def test_beside_muon_adamw_has_a_rate_of_its_own(optimizer: Name, adamw_lr: float | None) -> None:
    config = TrainConfig(model=TINY, optimizer=optimizer, lr=0.1, adamw_lr=adamw_lr)
    optimizers = make_optimizer(GPT(TINY), config, "cpu")
    optimizers.set_learning_rate(0.05)  # half the peak
    rates = {name: {group["lr"] for group in of_one.param_groups} for name, of_one in optimizers.named.items()}
    assert rates == ({"adamw": {0.1 if adamw_lr else 0.05}, "muon": {0.05}} if optimizer == "muon" else {"adamw": {0.05}})


def test_muon_computes_in_bfloat16_beside_a_model_that_does() -> None:
    changes = []
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        torch.manual_seed(0)
        gpt = GPT(ModelConfig(n_layer=1, n_head=4, n_embed=256, block_size=16, vocab_size=50))
        matrix = gpt.get_parameter("blocks.0.attention.query.weight")
        before = matrix.detach().clone()
        matrix.grad = torch.randn_like(matrix)
        make_optimizer(gpt, TrainConfig(optimizer="muon", lr=0.01), "cpu", dtype=dtype).step()
        changes.append(matrix.detach() - before)
    assert torch.equal(changes[0], changes[1])
    assert 0 < (changes[2] - changes[0]).norm() < 0.02 * changes[0].norm()


@pytest.mark.parametrize("optimizer", NAMES)
def test_a_restored_run_ends_with_the_same_bits(optimizer: Name) -> None:
    gpt, optimizers = tiny_run(optimizer)
    train(gpt, optimizers, range(5))
    file = io.BytesIO()
    torch.save({"model": gpt.state_dict(), "optimizer": optimizers.state_dict()}, file)
    train(gpt, optimizers, range(5, 10))

    again, optimizers = tiny_run(optimizer)
    train(again, optimizers, range(100, 103))  # state of its own, which the saved state must replace
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


def test_the_state_of_another_optimizer_is_refused() -> None:
    with pytest.raises(UserError, match="--optimizer"):
        tiny_run("adamw")[1].load_state_dict(tiny_run("muon")[1].state_dict())


@pytest.mark.parametrize("overflows_in", ["embedding.weight", "blocks.1.mlp.up.weight"])
def test_with_a_grad_scaler_both_optimizers_step_or_neither(overflows_in: str) -> None:
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
        for optimizer in optimizers.optimizers:
            scaler.unscale_(optimizer)
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
