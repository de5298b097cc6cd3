"The graphs of ViT-g/14 + Q-Former + OPT-6.7B at batch 64 and 64 caption tokens, forward and backward, without a number being computed."
import pytest
import torch
import torch.fx.experimental._config as fx
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from expblip.models import MODELS, build
from expblip.step2 import trainable

BATCH, TOKENS = 64, 64


def models():
    "Full size, without content: weights that are trained in float32, the language model in bfloat16."
    step1, captioner = build(MODELS['full'], 'meta')
    captioner.lm.to(torch.bfloat16)
    return step1, captioner


def batches(new):
    "Keywords of step 1 and of step 2; `new` makes a tensor."
    text = dict(ids=new(BATCH, TOKENS, dtype=torch.long), mask=new(BATCH, TOKENS, dtype=torch.long))
    one = dict(image=new(BATCH, 257, 1408), group=new(BATCH, dtype=torch.long), draw=new(BATCH, 2), **text)
    return one, dict(pixels=new(BATCH, 3, 224, 224), **text)


def trains(step1, captioner, one, two):
    "Losses of both steps after a backward pass, and the parameters that got no gradient though they are trained."
    first = step1(**one)
    first['loss'].backward()
    lost = [n for n, p in step1.named_parameters() if p.grad is None]
    named = trainable(captioner.train())
    for _, p in named: p.grad = None
    second = captioner(**two)
    second['loss'].backward()
    assert all(p.grad is None for p in captioner.lm.parameters())
    return first, second, lost + [n for n, p in named if p.grad is None]


def test_no_tensor_is_left_on_another_device(monkeypatch):
    monkeypatch.setattr(fx, 'meta_nonzero_assume_all_nonzero', True)  # a mask without content counts as all true
    step1, captioner = models()
    def new(*shape, dtype=torch.float32): return torch.empty(*shape, dtype=dtype, device='meta')
    first, second, lost = trains(step1, captioner, *batches(new))
    assert all(v.device.type == 'meta' and v.shape == () for v in [*first.values(), *second.values()])
    assert not lost
    with pytest.raises((RuntimeError, ValueError)): step1(**batches(new)[0] | dict(image=torch.zeros(BATCH, 257, 1408)))  # the check can fail


def test_shapes_and_types_under_bf16_autocast():
    step1, captioner = models()
    mode = FakeTensorMode(shape_env=ShapeEnv(allow_scalar_outputs=True, allow_dynamic_output_shape_ops=True))
    def fake(x): return FakeTensor(mode, x, torch.device('cpu'))
    made: dict = {}
    for module in [m for net in (step1, captioner) for m in net.modules()]:
        for store in (module._parameters, module._buffers):
            for name, x in store.items():
                if x is None or isinstance(x, FakeTensor): continue
                if x not in made: made[x] = torch.nn.Parameter(fake(x.detach()), x.requires_grad) if isinstance(x, torch.nn.Parameter) else fake(x)
                store[name] = made[x]
    def new(*shape, dtype=torch.float32): return fake(torch.empty(*shape, dtype=dtype, device='meta'))
    given = batches(new)
    with mode, torch.autocast('cpu', torch.bfloat16): first, second, lost = trains(step1, captioner, *given)
    assert all(v.dtype == torch.float32 and v.shape == () for v in [*first.values(), *second.values()])
    assert not lost and captioner.encoder.model.embeddings.patch_embedding.weight.grad.dtype == torch.float32
