"vocabulary: the loss in pieces is torch's own in value and gradient: bias, smoothing, frozen words, bf16; nothing is computed for what is frozen."
import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from expblip import vocabulary
from expblip.vocabulary import vocabulary_loss

torch.set_num_threads(1)
N, V, H = 50, 300, 8


def given(bias=True, kind=torch.float32):
    torch.manual_seed(0)
    make = lambda *size: torch.randn(*size, dtype=kind).requires_grad_(True)
    return make(N, H), make(V, H), make(V) if bias else None, torch.randint(V, (N,))


@pytest.mark.parametrize("room", (1, 20 * 4 * V, 2**30))
@pytest.mark.parametrize("smoothing", (0., .1))
@pytest.mark.parametrize("bias", (True, False))
def test_equal_to_torch_in_value_and_gradient(monkeypatch, room, smoothing, bias):
    monkeypatch.setitem(vocabulary.ROOM, "cpu", room)
    states, weight, b, target = given(bias)
    ours, hits = vocabulary_loss(states, weight, target, b, smoothing)
    logits = F.linear(states, weight, b)
    theirs = F.cross_entropy(logits, target, reduction="sum", label_smoothing=smoothing)
    wanted = [x for x in (states, weight, b) if x is not None]
    assert torch.allclose(ours, theirs, rtol=1e-6) and hits == (logits.argmax(1) == target).sum()
    for mine, other in zip(torch.autograd.grad(3 * ours, wanted), torch.autograd.grad(3 * theirs, wanted)):
        assert torch.allclose(mine, other, atol=2e-5) and other.abs().max() > .1


def test_frozen_words_cost_nothing():
    states, weight, _, target = given()
    def work(w):
        with FlopCounterMode(display=False) as counter: vocabulary_loss(states, w, target)[0].backward()
        return counter.get_total_flops()
    assert work(weight) == 3 * 2 * N * V * H and work(weight.detach()) == 2 * 2 * N * V * H
    with torch.no_grad(), FlopCounterMode(display=False) as counter: vocabulary_loss(states, weight, target)
    assert counter.get_total_flops() == 2 * N * V * H  # no gradient is wanted, none is made


def test_bf16_under_autocast_and_frozen_bf16_words():
    states, weight, bias, target = given()
    exact = F.cross_entropy(F.linear(states, weight, bias), target, reduction="sum")
    with torch.autocast("cpu", torch.bfloat16): ours, _ = vocabulary_loss(states, weight, target, bias)
    assert ours.dtype == torch.float32 and ours.item() == pytest.approx(exact.item(), rel=1e-2) and ours.item() != exact.item()
    g, = torch.autograd.grad(ours, states)
    assert g.dtype == states.dtype and torch.nn.functional.cosine_similarity(g.flatten(), torch.autograd.grad(exact, states)[0].flatten(), 0) > .999
    half, _ = vocabulary_loss(states.to(torch.bfloat16), weight.detach().to(torch.bfloat16), target)
    assert half.dtype == torch.float32 and half.isfinite()


def test_scores_of_large_numbers_stay_finite():
    loss, _ = vocabulary_loss(torch.full((2, 1), 1e4), torch.tensor([[1.], [-1.], [0.]]), torch.tensor([0, 1]), smoothing=.1)
    assert torch.allclose(loss, F.cross_entropy(torch.tensor([[1e4, -1e4, 0.]] * 2), torch.tensor([0, 1]), reduction="sum", label_smoothing=.1))
