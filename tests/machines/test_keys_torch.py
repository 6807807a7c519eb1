"""Keys of real tensors.

The CPU build of torch comes from an index of its own, and the build of the usual one is gigabytes of CUDA: so torch is
in no test group, and this runs where it is installed.
"""

from __future__ import annotations

import pytest

from asyncguard._machines.canonical import encode
from asyncguard._machines.keys import UnkeyableError, freeze

torch = pytest.importorskip("torch", reason="needs torch, best its CPU build", exc_type=ImportError)

BIG = torch.arange(32 * 768, dtype=torch.float32).reshape(32, 768)


def changed(tensor, at):
    tensor = tensor.clone()
    tensor.view(-1)[at] += 1
    return tensor


DIFFERENT = [
    (BIG, changed(BIG, 12000)),
    (BIG, BIG.reshape(-1)),
    (BIG, BIG.double()),
    (BIG, BIG.numpy()),
    (BIG, torch.nn.Parameter(BIG.clone())),
    (torch.zeros(3), -torch.zeros(3)),
    (torch.zeros(3, dtype=torch.bfloat16), torch.zeros(3, dtype=torch.float16)),
    (torch.tensor(True), torch.tensor(1)),
    (torch.tensor(1.0), torch.tensor([1.0])),
    (torch.zeros(0), torch.zeros(0, 3)),
    (torch.tensor([1j]), torch.tensor([1j]).conj()),
    (torch.float32, torch.float64),
    (torch.device("cpu"), torch.device("meta")),
    (torch.Size([1]), (1,)),
]


@pytest.mark.parametrize(("a", "b"), DIFFERENT, ids=range(len(DIFFERENT)))
def test_tensors_that_differ_in_anything_have_different_keys(a, b):
    assert freeze(a) != freeze(b)
    assert encode(a) != encode(b)


SAME = [
    (BIG, BIG.clone()),
    (BIG, BIG.t().contiguous().t()),
    (BIG[::2, ::3], BIG[::2, ::3].contiguous()),
    (BIG[:1], BIG.clone()[:1]),
    (BIG, BIG.clone().requires_grad_()),
    (torch.tensor([1j]).conj(), torch.tensor([complex(0, -1)])),
    (torch._neg_view(torch.ones(3)), -torch.ones(3)),
    (torch.full((99,), float("nan")), torch.full((99,), float("nan"))),
    (torch.ones(40, dtype=torch.bfloat16), torch.ones(40, dtype=torch.bfloat16)),
    (torch.ones(3, dtype=torch.float8_e4m3fn), torch.ones(3, dtype=torch.float8_e4m3fn)),
    (torch.tensor([True]), torch.tensor([True])),
    (torch.zeros(0, 768), torch.zeros(0, 768)),
]


@pytest.mark.parametrize(("a", "b"), SAME, ids=range(len(SAME)))
def test_equal_tensors_share_a_key_however_they_lie_in_memory(a, b):
    assert freeze(a) == freeze(b)
    assert encode(a) == encode(b)


def test_a_tensor_without_dense_content_has_no_key():
    for tensor in [torch.zeros(3).to_sparse(), torch.zeros(2, device="meta")]:
        with pytest.raises(UnkeyableError, match=r"sparse or quantized|cannot be read"):
            freeze(tensor)


def test_a_module_has_no_key():
    with pytest.raises(UnkeyableError, match="equals only itself"):
        freeze(torch.nn.Linear(2, 2))
