"""Products with unpacked weights on CPUs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from qwen3vl.kernels.cpu import rows
from qwen3vl.kernels.cpu.library import library
from qwen3vl.model.layers import Linear
from tests.isas import ISAS, using

DTYPES = (torch.float32, torch.bfloat16)


def made(n: int, k: int, m: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n + m)
    return tuple(torch.randn(*shape, generator=generator).to(dtype) for shape in ((m, k), (n, k), (n,)))  # type: ignore[return-value]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 8, 31, 32, 33, 70])
@pytest.mark.parametrize("n", [1024, 1031])
def test_equals_torch(dtype: torch.dtype, m: int, n: int) -> None:
    x, weight, bias = made(n, 256, m, dtype)
    for given in (None, bias):
        out, exact = rows.linear(x, weight, given), F.linear(x.double(), weight.double(), None)
        exact = exact if given is None else exact + given.double()
        assert out.dtype == dtype and out.shape == (m, n)
        bound = 1e-6 if dtype == torch.float32 else 2**-8
        assert (out.double() - exact).abs().max() <= bound * exact.abs().max()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_does_not_depend_on_its_company(dtype: torch.dtype) -> None:
    kernels = library()
    if kernels is None or kernels.qwen3vl_isa() == b"plain":
        pytest.skip("there is no kernel for this")
    x, weight, _ = made(2048, 256, 32, dtype)
    together = rows.linear(x, weight)
    for first, last in ((0, 1), (3, 4), (31, 32), (2, 9), (5, 32)):
        assert torch.equal(rows.linear(x[first:last], weight), together[first:last])


def test_what_the_kernels_do_not_do_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias = made(1024, 252, 3, torch.float32)  # 252 is no multiple of 8
    assert torch.equal(rows.linear(x, weight, bias), F.linear(x, weight, bias))
    x, weight, bias = made(1024, 256, 3, torch.float32)
    turned = torch.randn(256, 1024).T
    assert torch.equal(rows.linear(x, turned), F.linear(x, turned))
    half = weight.half()
    assert torch.equal(rows.linear(x.half(), half), F.linear(x.half(), half))
    monkeypatch.setattr(rows, "library", lambda: None)
    assert torch.equal(rows.linear(x, weight, bias), F.linear(x, weight, bias))


def test_gradients_are_torchs() -> None:
    x, weight, _ = made(1024, 256, 3, torch.float32)
    layer = Linear(256, 1024)
    layer.weight.data.copy_(weight)
    layer(x).sum().backward()
    assert layer.weight.grad is not None and torch.equal(layer.weight.grad, x.sum(0).expand(1024, -1))
    layer.requires_grad_(False)
    x.requires_grad_()
    layer(x).sum().backward()
    assert x.grad is not None


@pytest.fixture(params=ISAS[1:])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Those that widen."""
    with using(request.param):
        yield request.param


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize(("m", "n", "k"), [(33, 37, 100), (70, 1031, 513), (600, 40, 1024), (1, 16, 8), (523, 7, 96)])
def test_bfloat16_is_widened_by_the_kernels(m: int, n: int, k: int) -> None:
    x, weight, bias = made(n, k, m, torch.bfloat16)
    x[:, k // 2] *= 1000
    x[0] *= 1e-38
    for given in (None, bias):
        out = rows._widened(x, weight, given)
        exact = F.linear(x.double(), weight.double(), None if given is None else given.double())
        assert out is not None and out.dtype == torch.bfloat16
        scale = F.linear(x.double().abs(), weight.double().abs()) + 1
        assert bool(((out.double() - exact).abs() <= 2**-8 * exact.abs() + 1e-6 * scale).all())
        for row in (0, m - 1, m // 2):  # in any company the same
            alone = rows._widened(x[row : row + 1], weight, given)
            assert alone is not None and torch.equal(alone[0], out[row])


def test_bfloat16_is_widened_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight, bias = made(1031, 256, 40, torch.bfloat16)
    monkeypatch.setattr(rows, "bfloat16_is_emulated", lambda: True)
    by_kernels = rows.linear(x, weight, bias)
    monkeypatch.setattr(rows, "_widened", lambda *_: None)
    torch.testing.assert_close(rows.linear(x, weight, bias), by_kernels, atol=1e-4, rtol=2**-7)
    whole = rows.linear(x, weight, bias)
    monkeypatch.setattr(rows, "PIECE_WEIGHTS", 256 * 100)
    torch.testing.assert_close(rows.linear(x, weight, bias), whole, atol=0, rtol=2**-7)
    assert torch.equal(whole, F.linear(x.float(), weight.float(), bias.float()).bfloat16())


def test_shapes_of_more_axes() -> None:
    x, weight, bias = made(1024, 256, 6, torch.float32)
    assert torch.equal(rows.linear(x.view(2, 3, 256), weight, bias).view(6, 1024), rows.linear(x, weight, bias))
    assert rows.linear(x[:0], weight).shape == (0, 1024)
