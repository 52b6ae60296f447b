"""Muon: orthogonal updates, as large as those of AdamW, in agreement with PyTorch's Muon."""

import pytest
import torch
from torch import Tensor

from training.muon import LARGE, Muon, orthogonalize


def matrices_with_known_singular_vectors(count: int, rows: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices with singular values from 0.02 to 1, and their left and right singular vectors."""
    generator = torch.Generator().manual_seed(0)
    size = min(rows, columns)
    left = torch.linalg.qr(torch.randn(count, rows, size, generator=generator)).Q
    right = torch.linalg.qr(torch.randn(count, columns, size, generator=generator)).Q
    values = torch.linspace(0.02, 1, size).expand(count, size)
    return left @ torch.diag_embed(values) @ right.mT, left, right


@pytest.mark.parametrize(("rows", "columns"), [(32, 32), (16, 48), (48, 16), (1, 8)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_newton_schulz_makes_matrices_nearly_orthogonal(rows: int, columns: int, scale: float) -> None:
    matrices, left, right = matrices_with_known_singular_vectors(3, rows, columns)
    result = orthogonalize(matrices * scale)
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.6
    assert values.max() < 1.3
    # The singular vectors stay the same: in their bases the result is diagonal and positive.
    diagonal = left.mT @ result @ right
    torch.testing.assert_close(diagonal, torch.diag_embed(diagonal.diagonal(dim1=1, dim2=2)), atol=1e-4, rtol=0)
    assert diagonal.diagonal(dim1=1, dim2=2).min() > 0.6


def test_newton_schulz_treats_each_matrix_of_a_stack_alone() -> None:
    matrices = torch.randn(5, 12, 30, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-3, 1, 1e3, 7, 0])[:, None, None]
    results = orthogonalize(matrices)
    for matrix, result in zip(matrices, results, strict=True):
        torch.testing.assert_close(orthogonalize(matrix[None])[0], result, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(orthogonalize(matrix.mT[None])[0], result.mT, atol=1e-5, rtol=1e-5)
    assert not results[4].any()  # zero stays zero: at the first step the zero output matrices let no gradient through


@pytest.mark.parametrize(("shape", "momentum"), [((24, 40), 0.95), ((40, 24), 0.8), ((32, 32), 0.0)])
def test_muon_agrees_with_torch(shape: tuple[int, int], momentum: float) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    muons = [
        Muon([ours], 0.1, 0.1, momentum),
        torch.optim.Muon([theirs], lr=0.1, weight_decay=0.1, momentum=momentum, adjust_lr_fn="match_rms_adamw"),
    ]
    for _ in range(3):
        ours.grad = torch.randn(shape, generator=generator)
        theirs.grad = ours.grad.clone()
        for muon in muons:
            muon.step()
    moved = (theirs - start).norm()
    assert moved > 1
    assert (ours - theirs).norm() < 0.02 * moved  # theirs computes in bfloat16


def test_muon_moves_entries_as_far_as_adamw() -> None:
    """Entries move by about 0.2 of the learning rate in every shape, so both optimizers can share one rate."""
    for shape in ((64, 64), (64, 256), (256, 64)):
        matrix = torch.nn.Parameter(torch.zeros(shape))
        matrix.grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        Muon([matrix], lr=1.0, weight_decay=0.0, momentum=0.95).step()
        assert 0.15 < matrix.square().mean().sqrt() < 0.25


@pytest.mark.parametrize("rows", [LARGE // 2, LARGE])
def test_a_stack_is_orthogonalized_as_its_matrices_are(rows: int) -> None:
    """Small ones in one batched product, large ones one after the other."""
    torch.manual_seed(0)
    stack = torch.randn(3, rows, rows + 8)
    for matrix, found in zip(stack, orthogonalize(stack), strict=True):
        torch.testing.assert_close(found, orthogonalize(matrix[None])[0], rtol=0, atol=1e-4)


def test_large_matrices_may_be_orthogonalized_in_bfloat16_on_a_cpu() -> None:
    """As PyTorch's Muon does it everywhere; small ones stay in float32."""
    torch.manual_seed(0)
    for rows, is_rounded in ((LARGE // 2, False), (LARGE, True)):
        matrices = torch.randn(2, rows, rows + 8)
        exact, found = orthogonalize(matrices), orthogonalize(matrices, torch.bfloat16)
        assert found.dtype == torch.float32
        assert torch.equal(exact, found) != is_rounded
        assert (exact - found).norm() < 0.02 * exact.norm()
