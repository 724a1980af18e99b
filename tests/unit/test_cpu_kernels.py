"""The C++ kernels against their plain torch twin: equal bits where they are exact, whatever the instruction set."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from qwen3vl.errors import InvalidParams
from qwen3vl.kernels.cpu import library as library_module
from qwen3vl.kernels.cpu import packed as packed_module
from qwen3vl.kernels.cpu import plain
from qwen3vl.kernels.cpu.library import library
from qwen3vl.kernels.cpu.packed import Packed, matmul_several
from tests.isas import ISAS, using

BITS = (4, 8)


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that this CPU has."""
    with using(request.param):
        yield request.param


def weights(n: int, k: int, seed: int = 0) -> Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed)) * 0.05


def activations(m: int, k: int, seed: int = 1) -> Tensor:
    """With outliers of a thousand times the rest, a token of zeros and one of denormals."""
    x = torch.randn(m, k, generator=torch.Generator().manual_seed(seed))
    x[:, 5] *= 1000
    x[0, 32:64] = 0
    if m > 2:
        x[1], x[2] = 0, 1e-40
    return x


def test_layout_by_the_worked_example() -> None:
    """csrc/layout.h: column 22 of row 3 is the high nibble of byte 14 of line 1."""
    weight = torch.zeros(16, 32)
    weight[3, 22], weight[3, 0] = 3.0, -8.0  # the largest magnitude, -8, fixes the scale at 1
    block = plain.pack(weight, 4)
    assert block[:32].view(torch.float16)[3] == 1.0
    values = block[32:].reshape(4, 64)
    assert values[1, 4 * 3 + 2] >> 4 == 3 + 8 and values[0, 4 * 3] & 15 == -8 + 8
    assert (values[2] == 8 + 8 * 16).all()
    wide = plain.pack(weight, 8)[32:].reshape(8, 64)
    assert wide[5, 4 * 3 + 2] == 128 + round(3 / 8 * 127) and wide[0, 4 * 3] == 128 - 127


@pytest.mark.parametrize("bits", BITS)
def test_packing_equals_the_twin(isa: str, bits: int) -> None:
    weight = weights(37, 96)
    weight[4], weight[5, :32], weight[6, 3] = 0, 1e-38, 40000.0
    importance = torch.rand(96, generator=torch.Generator().manual_seed(2)) + 0.1
    for given in (None, importance):
        for stored in (weight, weight.bfloat16()):
            packed = Packed.of(stored, bits, given)
            assert torch.equal(packed.values, plain.pack(stored, bits, given))
            assert torch.equal(packed.rows(torch.arange(37)), plain.unpack(packed.values, bits, 37, 96))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("m", [1, 2, 3, 7, 8, 64, 65, 131])
def test_products_equal_the_twin(isa: str, bits: int, m: int) -> None:
    packed, x = Packed.of(weights(50, 128), bits), activations(m, 128)
    out = packed.matmul(x)
    assert torch.equal(out, plain.matmul(packed.values, bits, 50, x))
    # A token's result does not depend on its company, nor on its place.
    assert torch.equal(packed.matmul(x.flip(0)).flip(0), out)
    assert torch.equal(packed.matmul(x[-1:]), out[-1:])


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("m", [11, 12, 122, 241])
def test_many_tokens_equal_the_twin(isa: str, bits: int, m: int) -> None:
    """More groups, tiles and tokens than are worked on at a time, none of them a round number."""
    packed, x = Packed.of(weights(140, 544), bits), activations(m, 544)
    assert torch.equal(packed.matmul(x), plain.matmul(packed.values, bits, 140, x))


@pytest.mark.parametrize("bits", BITS)
def test_largest_sums_do_not_overflow(isa: str, bits: int) -> None:
    weight = torch.full((16, 64), 7 / 8)
    weight[:, ::32] = -1  # fixes the scale: int4 takes -8 here, and 7, the most, in all other columns
    x = torch.ones(13, 64)
    x[1], x[2, ::2], x[3, 16:48] = -1, -1, -1
    packed = Packed.of(weight, bits)
    assert torch.equal(packed.matmul(x), plain.matmul(packed.values, bits, 16, x))


@pytest.mark.parametrize("m", [9, 125])
def test_gated_pairs_are_those_of_single_tokens(isa: str, m: int) -> None:
    packed, x = Packed.of(weights(32 * 9, 64), 4), activations(m, 64)
    single = torch.cat([packed.matmul(row[None], None, "swiglu") for row in x])
    torch.testing.assert_close(packed.matmul(x, None, "swiglu"), single, atol=0, rtol=0)


def test_unaligned_rows_and_other_types(isa: str) -> None:
    packed, x = Packed.of(weights(20, 64), 4), activations(5, 64)
    shifted = torch.cat((torch.zeros(1), x.flatten()))[1:].view(5, 64)
    assert torch.equal(packed.matmul(shifted), packed.matmul(x))
    assert torch.equal(packed.matmul(x.bfloat16()), packed.matmul(x.bfloat16().float()))
    assert packed.matmul(torch.empty(0, 64)).shape == (0, 20)


def test_bias_and_epilogues(isa: str) -> None:
    packed, bias, x = Packed.of(weights(64, 64), 8), torch.randn(64), torch.randn(9, 64)
    out = packed.matmul(x)
    assert torch.equal(packed.matmul(x, bias), out + bias)
    torch.testing.assert_close(packed.matmul(x, bias, "gelu"), F.gelu(out + bias), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        packed.matmul(x, bias, "gelu_tanh"), F.gelu(out + bias, approximate="tanh"), atol=1e-6, rtol=1e-5
    )
    gate, up = out.reshape(9, 2, 2, 16).unbind(2)
    torch.testing.assert_close(packed.matmul(x, None, "swiglu"), (F.silu(gate) * up).flatten(1), atol=1e-6, rtol=1e-5)


def test_errors_are_those_of_the_bits() -> None:
    weight, x = weights(256, 512), torch.randn(64, 512, generator=torch.Generator().manual_seed(3))
    exact = x @ weight.T
    errors = {bits: float((Packed.of(weight, bits).matmul(x) - exact).norm() / exact.norm()) for bits in BITS}
    assert errors[8] < 0.01 and 0.03 < errors[4] < 0.09
    # An outlier costs its own group only: the rest keeps its accuracy.
    with_outlier = x.clone()
    with_outlier[:, 0] = 1000
    off = Packed.of(weight, 8).matmul(with_outlier) - with_outlier @ weight.T
    assert off.norm() / (with_outlier @ weight.T).norm() < 0.02


def test_importance_moves_the_error_away() -> None:
    weight, importance = weights(64, 64), torch.ones(64)
    importance[::2] = 100
    off = (Packed.of(weight, 4, importance).rows(torch.arange(64)) - weight).square().mean(0)
    plainly = (Packed.of(weight, 4).rows(torch.arange(64)) - weight).square().mean(0)
    assert off[::2].mean() < plainly[::2].mean() and off[1::2].mean() > plainly[1::2].mean()


@pytest.mark.parametrize("bits", BITS)
def test_without_the_library_torch_does_it(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, ids = torch.randn(5, 64), torch.tensor([3, 0, 39, 3])
    with_kernels = Packed.of(weights(40, 64), bits)
    rows = with_kernels.rows(ids)
    monkeypatch.setattr(packed_module, "library", lambda: None)
    packed = Packed.of(weights(40, 64), bits)
    assert torch.equal(packed.values, with_kernels.values) and torch.equal(packed.rows(ids), rows)
    torch.testing.assert_close(packed.matmul(x), x @ plain.unpack(packed.values, bits, 40, 64).T, atol=1e-5, rtol=1e-5)


def test_choice_by_environment() -> None:
    code = "from qwen3vl.kernels.cpu.library import library; k = library(); print(k and k.qwen3vl_isa().decode())"

    def run(wish: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code], env={"QWEN3VL_CPU_KERNELS": wish}, capture_output=True, text=True, check=False
        )

    assert run("off").stdout == "None\n"
    if library() is not None:
        assert run("plain").stdout == "plain\n"
        assert "unknown" in run("sse9").stderr
        if platform.machine() not in ("aarch64", "arm64"):
            assert "QWEN3VL_CPU_KERNELS=neon: unknown, or this CPU lacks it" in run("neon").stderr


def test_threads_respect_quotas(tmp_path: Path) -> None:
    assert library_module._quota(tmp_path) == sys.maxsize
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert library_module._quota(tmp_path) == 2
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert library_module._quota(tmp_path) == sys.maxsize
    assert library_module.default_threads() >= 1


def test_many_threads_at_once() -> None:
    """Products asked for by several Python threads take turns and stay right."""
    from concurrent.futures import ThreadPoolExecutor

    packed, x = Packed.of(weights(128, 256), 4), torch.randn(20, 256)
    expected = packed.matmul(x)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: packed.matmul(x), range(200)))
    assert all(torch.equal(result, expected) for result in results)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("m", [1, 9, 130])
def test_several_matrices_are_each_of_them(isa: str, bits: int, m: int) -> None:
    biases = {50: None, 16: torch.randn(16), 7: None}
    matrices = [(Packed.of(weights(n, 96, n), bits), bias) for n, bias in biases.items()]
    x = activations(m, 96)
    for out, (packed, bias) in zip(matmul_several(matrices, x), matrices, strict=True):
        assert torch.equal(out, packed.matmul(x, bias))


def test_kernels_of_another_version_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    if library_module.library() is None:
        pytest.skip("the CPU kernels were not built")
    monkeypatch.setattr(library_module, "ABI_VERSION", 0)
    with pytest.raises(InvalidParams, match=r"\(\d+, not 0; missing: nothing\): install it again"):
        library_module.library.__wrapped__()


def test_kernels_that_lack_functions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QWEN3VL_CPU_KERNELS", raising=False)
    monkeypatch.setattr(library_module, "_places", lambda: iter([Path(torch._C.__file__)]))  # another library
    with pytest.raises(InvalidParams, match=r"missing: qwen3vl_abi_version, .*install it again"):
        library_module.library.__wrapped__()
    monkeypatch.setenv("QWEN3VL_CPU_KERNELS", "off")
    assert library_module.library.__wrapped__() is None
