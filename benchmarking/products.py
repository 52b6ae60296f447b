"""Owns the matrix products of a model, and nothing else of it: the time that no implementation with these products can go below."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from config import ModelConfig
from model import GPT, attend
from sampling.inference_weights import CastLinear, Int8Linear, prepare_for_inference

HEAD_ROWS = 4096  # rows of the output matrix's products at a time: the logits of all would only take memory


def random_model(config: ModelConfig, device: torch.device) -> GPT:
    """A model with random weights; those that start at zero would make the arithmetic too easy."""
    model = GPT(config).eval().requires_grad_(False).to(device)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return model


def inference_model(config: ModelConfig, dtype: torch.dtype, int8: bool, device: torch.device) -> GPT:
    """Random inference weights."""
    return prepare_for_inference(random_model(config, torch.device("cpu")), dtype, int8).to(device)


def matrices_to_train(model: GPT) -> list[Tensor]:
    """The matrices inside the blocks, one after the other; the embedding multiplies only as the output matrix."""
    return [module.weight.detach() for module in model.blocks.modules() if isinstance(module, nn.Linear)]


class TrainingProducts:
    """The products of forward and backward pass of a micro-batch; those of attention by PyTorch's kernel."""

    def __init__(self, model: GPT, sequences: int, device: torch.device, dtype: torch.dtype) -> None:
        config = model.config
        self._rows = sequences * config.block_size
        self._device, self._dtype = device, dtype
        self._blocks = [matrix.to(dtype) for matrix in matrices_to_train(model)]
        self._head = model.output_matrix.detach().to(dtype)
        self._buffers: dict[tuple[int, ...], Tensor] = {}
        self._attentions = config.n_layer
        shapes = [(sequences, heads, config.block_size, config.head_size) for heads in (config.n_head, config.kv_heads, config.kv_heads)]
        self._heads = [torch.randn(shape, device=device, dtype=dtype).requires_grad_() for shape in shapes]
        self._head_gradients = torch.randn(shapes[0], device=device, dtype=dtype)

    def __call__(self) -> None:
        """All products of the micro-batch, once."""
        for matrix in self._blocks:
            self._multiply(matrix, self._rows)
        for start in range(0, self._rows, HEAD_ROWS):
            self._multiply(self._head, min(HEAD_ROWS, self._rows - start))
        query, key, value = self._heads
        for _ in range(self._attentions):
            mixed = attend(query, key, value, None, 0.0)
            torch.autograd.grad(mixed, self._heads, self._head_gradients)

    def _multiply(self, matrix: Tensor, rows: int) -> None:
        """Output, gradient of the input, gradient of the matrix."""
        outputs, inputs = matrix.shape
        x, gradient = self._random(rows, inputs), self._random(rows, outputs)
        torch.mm(x, matrix.t(), out=self._buffer(0, rows, outputs))
        torch.mm(gradient, matrix, out=self._buffer(0, rows, inputs))
        torch.mm(gradient.t(), x, out=self._buffer(0, outputs, inputs))

    def _random(self, rows: int, columns: int) -> Tensor:
        return self._buffer(1, rows, columns)

    def _buffer(self, use: int, rows: int, columns: int) -> Tensor:
        """Memory for a result (use 0), or random numbers to multiply (1); one of each shape, since fresh memory costs page faults."""
        key = use, rows, columns
        if key not in self._buffers:
            self._buffers[key] = torch.randn(rows, columns, device=self._device).to(self._dtype)
        return self._buffers[key]


def inference_products(model: GPT, rows: int, head_rows: int, rows_at_once: int = 0) -> Callable[[], None]:
    """The products of inference weights with `rows` states, in batches of `rows_at_once` (0: all), and those of `head_rows` logits."""
    device = model.cos.device
    blocks = [layer for block in model.blocks for layer in block.modules() if isinstance(layer, CastLinear | Int8Linear)]

    def states(layer: CastLinear | Int8Linear, count: int) -> Tensor:
        dtype = layer.weight.dtype if layer.weight.dtype.is_floating_point else torch.bfloat16
        return torch.randn(count, layer.weight.shape[1], device=device).to(dtype)

    def batches(count: int) -> list[int]:
        size = rows_at_once or count
        return [min(size, count - start) for start in range(0, count, size)]

    inputs = {
        (layer.weight.shape[1], size): states(layer, size)
        for layer in (*blocks, model.head)
        for size in {*batches(rows), *batches(head_rows)}
    }

    @torch.inference_mode()
    def multiply() -> None:
        for size in batches(rows):
            for layer in blocks:
                layer.forward(inputs[layer.weight.shape[1], size])
        for size in batches(head_rows):
            model.head.forward(inputs[model.head.weight.shape[1], size])

    return multiply


def inference_bytes(model: GPT) -> int:
    """Bytes of all matrices that a token reads."""
    return sum(layer.weight.nbytes for layer in model.modules() if isinstance(layer, CastLinear | Int8Linear))
