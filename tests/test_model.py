"""The GPT: positions, causality, the loss, dropout, and logits equal to those of Qwen3 and Llama in transformers."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo import lookup_backend

from config import IGNORE_INDEX, NORM_EPSILON, ModelConfig
from formats.batches import PADDING
from model import GPT, Block, RMSNorm, segment_positions_and_mask

TINY = ModelConfig(n_layer=2, n_head=4, n_embed=32, block_size=16, vocab_size=50)  # 64 embedding rows, 14 of them padding
GOLDEN_LOSS = 3.9168


def random_model(config: ModelConfig = TINY, seed: int = 0) -> GPT:
    """A model as training might leave it: no weight is 0 or 1, so every weight has an effect."""
    torch.manual_seed(seed)
    model = GPT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2 + (parameter.dim() == 1))
    return model.eval()


def some_ids(count: int = 2, length: int = 16, seed: int = 1) -> Tensor:
    return torch.randint(TINY.vocab_size, (count, length), generator=torch.Generator().manual_seed(seed))


def loss_and_gradients(model: GPT, ids: Tensor, targets: Tensor, segment_ids: Tensor | None = None) -> tuple[float, dict[str, Tensor]]:
    model.zero_grad()
    loss = model(ids, targets, segment_ids)
    loss.backward()
    return loss.item(), {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def test_the_order_of_the_context_matters() -> None:
    """In a single block attention has no notion of order without rotary positions."""
    model = random_model(dataclasses.replace(TINY, n_layer=1))
    ids = some_ids(1)
    reordered = torch.cat((ids[:, :-1].flip(1), ids[:, -1:]), dim=1)
    assert (model(ids)[:, -1] - model(reordered)[:, -1]).abs().max() > 0.01


def test_no_token_attends_to_a_later_one() -> None:
    model, ids = random_model(), some_ids()
    changed = ids.clone()
    changed[:, 9] = (changed[:, 9] + 1) % TINY.vocab_size
    before, after = model(ids), model(changed)
    torch.testing.assert_close(before[:, :9], after[:, :9], atol=1e-6, rtol=0)
    assert (before[:, 9:] - after[:, 9:]).abs().amax(dim=(0, 2)).min() > 1e-3  # every later token sees the change


def test_positions_restart_and_attention_stays_inside_each_segment() -> None:
    positions, mask = segment_positions_and_mask(torch.tensor([[0, 0, 1, 1, 1, PADDING]]))
    assert positions.tolist() == [[0, 1, 0, 1, 2, 0]]
    assert isinstance(mask, Tensor)
    assert mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]


def test_flex_attention_gives_the_loss_and_gradients_of_the_dense_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled without a kernel, its plain formulas run on a CPU too, the backward pass included; only a check of the device forbids it."""
    monkeypatch.setattr(torch.nn.attention.flex_attention, "_validate_device", lambda *tensors: None)
    model = random_model(dataclasses.replace(TINY, n_layer=1, block_size=300))
    model.checkpoint_activations = True  # without it: tests/training/test_compilation.py
    ids, segment_ids = some_ids(2, 301), torch.randint(2, (2, 300), generator=torch.Generator().manual_seed(2)).cumsum(1) // 10
    segment_ids[:, 290:] = PADDING
    batch = ids[:, :-1], ids[:, 1:], segment_ids
    dense = loss_and_gradients(model.train(), *batch)
    monkeypatch.setattr(GPT, "_uses_flex_attention", lambda self, device: True)
    operations: set[str] = set()

    def look_and_compile(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        parts = [part for part in graph.modules() if isinstance(part, torch.fx.GraphModule)]
        operations.update(str(node.target) for part in parts for node in part.graph.nodes)
        return lookup_backend("aot_eager")(graph, inputs)

    model.compile(backend=look_and_compile, dynamic=False, fullgraph=True)
    in_blocks = loss_and_gradients(model, *batch)
    assert "flex_attention" in operations
    assert in_blocks[0] == pytest.approx(dense[0], rel=1e-6)
    torch.testing.assert_close(in_blocks[1], dense[1], atol=1e-4, rtol=1e-4)


def test_compiled_gradients_of_the_norms_are_those_of_eager_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiled backward pass is under the autocast of its forward pass. On a GPU that rounds `mv` to bfloat16, on a CPU `mm`."""
    monkeypatch.setattr(torch, "mv", lambda matrix, vector: torch.mm(matrix, vector.unsqueeze(1)).squeeze(1))
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    gradients = []
    for is_compiled in (False, True):
        norm = RMSNorm(8)
        if is_compiled:
            norm.compile(backend="aot_eager")
        with torch.autocast("cpu", torch.bfloat16):
            loss = (norm(x) * x).sum()
        loss.backward()
        gradients.append(norm.weight.grad)
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=0)


@pytest.mark.parametrize("n_embed", [32, 256, 1024])
@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_the_initial_loss_is_that_of_a_uniform_guess(n_embed: int, tie_embeddings: bool) -> None:
    """With tied embeddings a wide model must not predict that the current token is repeated."""
    torch.manual_seed(0)
    config = ModelConfig(n_layer=1, n_head=4, n_embed=n_embed, block_size=64, vocab_size=2000, tie_embeddings=tie_embeddings)
    ids = torch.randint(config.vocab_size, (4, 65))
    loss = GPT(config)(ids[:, :-1], ids[:, 1:]).item() / 256
    assert abs(loss - math.log(config.vocab_size)) < 0.1


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_padding_rows_of_the_embedding_do_not_change_logits_or_loss(tie_embeddings: bool) -> None:
    model, ids = random_model(dataclasses.replace(TINY, tie_embeddings=tie_embeddings)), some_ids()
    before, loss = model(ids), model(ids, ids)
    assert before.shape == (2, 16, TINY.vocab_size)
    with torch.no_grad():
        model.output_matrix[TINY.vocab_size :] = 1e6
    assert len(model.output_matrix) == TINY.padded_vocab_size == 64
    torch.testing.assert_close(model(ids), before, atol=1e-5, rtol=0)
    torch.testing.assert_close(model(ids, ids), loss)


def test_ignored_targets_are_not_counted() -> None:
    model, ids = random_model(), some_ids()
    targets = some_ids(seed=2)
    by_hand = -model(ids).log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    torch.testing.assert_close(model(ids, targets), by_hand.sum())
    targets[0, :5] = IGNORE_INDEX
    torch.testing.assert_close(model(ids, targets), by_hand.sum() - by_hand[0, :5].sum())
    assert model(ids, torch.full_like(targets, IGNORE_INDEX)).item() == 0


def test_micro_batches_add_up_to_the_whole_batch() -> None:
    """Also if their numbers of targets differ, where a mean of means would be wrong."""
    model, ids, targets = random_model(), some_ids(4), some_ids(4, seed=2)
    targets[0, 3:] = IGNORE_INDEX
    whole, whole_gradients = loss_and_gradients(model, ids, targets)
    model.zero_grad()
    parts = 0.0
    for i in range(4):
        part = model(ids[i : i + 1], targets[i : i + 1])
        part.backward()
        parts += part.item()
    assert parts == pytest.approx(whole, rel=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, whole_gradients[name], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_recomputing_activations_changes_nothing(dropout: float) -> None:
    model, ids, targets = random_model(dataclasses.replace(TINY, dropout=dropout)).train(), some_ids(), some_ids(seed=2)
    block_runs = []
    model.blocks[0].register_forward_pre_hook(lambda *_: block_runs.append(1))
    torch.manual_seed(3)
    loss, gradients = loss_and_gradients(model, ids, targets)
    model.checkpoint_activations = True
    torch.manual_seed(3)
    again, gradients_again = loss_and_gradients(model, ids, targets)
    assert len(block_runs) == 1 + 2  # once, then twice with recomputation
    assert again == loss
    torch.testing.assert_close(gradients_again, gradients, atol=0, rtol=0)


@pytest.mark.parametrize("place", ["attention weights", "attention branch", "mlp branch"])
def test_dropout_acts_in_each_place_and_only_in_training(place: str) -> None:
    model, ids = random_model(dataclasses.replace(TINY, n_layer=1, dropout=0.5)), some_ids()
    block = model.blocks[0]
    assert isinstance(block, Block)
    with torch.no_grad():  # turn off the other branch, and the other dropout of this one
        (block.attention.output if place == "mlp branch" else block.mlp.down).weight.zero_()
    if place == "attention weights":
        block.dropout.p = 0.0
    elif place == "attention branch":
        block.attention.dropout = 0.0
    torch.testing.assert_close(model(ids), model(ids), atol=0, rtol=0)
    model.train()
    assert (model(ids) - model(ids)).abs().max() > 0.1


# Our names, and those that Qwen3 and Llama have in transformers.
THEIR_NAMES = {
    "embedding.": "model.embed_tokens.",
    "blocks.": "model.layers.",
    "attention_norm.": "input_layernorm.",
    "mlp_norm.": "post_attention_layernorm.",
    "attention.query.": "self_attn.q_proj.",
    "attention.key.": "self_attn.k_proj.",
    "attention.value.": "self_attn.v_proj.",
    "attention.output.": "self_attn.o_proj.",
    "attention.query_norm.": "self_attn.q_norm.",
    "attention.key_norm.": "self_attn.k_norm.",
    "mlp.gate.": "mlp.gate_proj.",
    "mlp.up.": "mlp.up_proj.",
    "mlp.down.": "mlp.down_proj.",
    "head.": "lm_head.",
}


def their_name(name: str) -> str:
    if name == "norm.weight":
        return "model.norm.weight"
    for ours, theirs in THEIR_NAMES.items():
        name = name.replace(ours, theirs)
    return name


@pytest.mark.parametrize("tie_embeddings", [True, False])
@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.parametrize(("n_kv_head", "mlp_size"), [(None, None), (2, 96), (1, 40)])
def test_logits_equal_those_of_transformers(n_kv_head: int | None, mlp_size: int | None, qk_norm: bool, tie_embeddings: bool) -> None:
    transformers: Any = pytest.importorskip("transformers")
    changes: dict[str, Any] = {"qk_norm": qk_norm, "tie_embeddings": tie_embeddings, "n_kv_head": n_kv_head, "mlp_size": mlp_size}
    config = dataclasses.replace(TINY, rope_theta=500.0, **changes)
    model, ids = random_model(config), some_ids()
    settings = {
        "vocab_size": config.padded_vocab_size,
        "hidden_size": config.n_embed,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_size,
        "max_position_embeddings": config.block_size,
        "rms_norm_eps": NORM_EPSILON,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "tie_word_embeddings": tie_embeddings,
    }
    if qk_norm:
        theirs = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**settings)).eval()
    else:
        theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings)).eval()
    missing, unexpected = theirs.load_state_dict({their_name(name): weight for name, weight in model.state_dict().items()}, strict=False)
    assert set(missing) <= ({"lm_head.weight"} if tie_embeddings else set())
    assert not unexpected
    with torch.no_grad():
        expected = theirs(ids).logits[..., : config.vocab_size]
        torch.testing.assert_close(model(ids), expected, atol=1e-4, rtol=0)


def test_the_size_of_the_published_model() -> None:
    with torch.device("meta"):
        model = GPT(ModelConfig())
    per_block = 4 * 1024 * 1024 + 3 * 1024 * 2752
    matrices = 12 * per_block + 8896 * 1024
    assert model.count_parameters() == matrices + 12 * (2 * 1024 + 2 * 64) + 1024 == 160_918_016
    small = {"n_layer": 3, "n_head": 4, "n_embed": 32, "vocab_size": 400}
    for other in ({}, {"qk_norm": False, "tie_embeddings": False}, {"n_kv_head": 2, "mlp_size": 40}):
        shape = ModelConfig(**small, **other)  # type: ignore[arg-type]  # by name
        assert GPT(shape).count_parameters() == shape.parameters
    assert model.flops_per_token() == 6 * matrices + 12 * 12 * 1024 * 1024 / 2
    with torch.device("meta"):
        untied = GPT(ModelConfig(tie_embeddings=False))
    assert untied.flops_per_token() == model.flops_per_token()  # looking up an embedding multiplies nothing


def test_weights_can_be_assigned_to_a_model_on_meta() -> None:
    """This is how a checkpoint is loaded: the rotary tables, which are not in a state dict, must have values."""
    model, ids = random_model(), some_ids()
    with torch.device("meta"):
        empty = GPT(TINY)
    empty.load_state_dict(model.state_dict(), assign=True)
    torch.testing.assert_close(empty(ids), model(ids), atol=0, rtol=0)


def test_the_seed_determines_the_weights() -> None:
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        weights.append(GPT(TINY).state_dict())
    torch.testing.assert_close(weights[0], weights[1], atol=0, rtol=0)
    assert not torch.equal(weights[0]["embedding.weight"], weights[2]["embedding.weight"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_and_loss_are_float32_under_autocast(dtype: torch.dtype) -> None:
    model, ids = random_model(), some_ids()
    exact, exact_loss = model(ids), model(ids, ids)
    with torch.autocast("cpu", dtype):
        assert model.get_submodule("blocks.0.attention.query")(torch.ones(1, TINY.n_embed)).dtype == dtype  # the products are in this dtype
        logits, loss = model(ids), model(ids, ids)
    assert logits.dtype == loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact_loss.item(), rel=0.02)
    torch.testing.assert_close(logits, exact, atol=0.2, rtol=0)


def test_weights_in_bfloat16_give_nearly_the_same_logits() -> None:
    model, ids = random_model(), some_ids()
    exact = model(ids)
    logits = model.to(torch.bfloat16)(ids)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, exact, atol=0.3, rtol=0)


def test_compiling_in_place_keeps_names_and_logits() -> None:
    model, ids = random_model(), some_ids()
    names, logits = list(model.state_dict()), model(ids)
    model.compile(backend="aot_eager")  # traces as the default backend does, and needs no C++ compiler
    torch.testing.assert_close(model(ids), logits, atol=1e-5, rtol=0)
    assert list(model.state_dict()) == names


def test_golden_loss() -> None:
    """Any change to the model changes this number: initialization, positions, norms, loss."""
    torch.manual_seed(0)
    model = GPT(TINY)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():  # the output matrices start at zero, which would hide the blocks
                parameter.normal_(std=0.1)
    ids = torch.arange(17)[None] * 7 % TINY.vocab_size
    assert model(ids[:, :-1], ids[:, 1:]).item() / 16 == pytest.approx(GOLDEN_LOSS, abs=1e-3)
