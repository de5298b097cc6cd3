"The CPU benchmark runs at tiny sizes without LAVIS, and what it switches off changes neither loss nor gradient."
import importlib.util
from pathlib import Path

import pytest
import torch

SPEC = importlib.util.spec_from_file_location('lavis_cpu', Path(__file__).parent.parent / 'benchmarks' / 'lavis_cpu.py')
BENCH = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(BENCH)


@pytest.fixture(scope='module', autouse=True)
def threads():
    "The benchmark takes two; bits of the tests that follow depend on their number."
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='module')
def ours(tmp_path_factory):
    c, texts = BENCH.SMALL, BENCH.rule_captions(BENCH.SMALL['batch'])
    torch.manual_seed(0)
    pictures = [torch.randn(c['batch'], 3, c['image'], c['image'])]
    return BENCH.Ours(c, sorted({w for t in texts for w in t.split()}), [texts], pictures, tmp_path_factory.mktemp('none'))


def run(ours, step: str) -> tuple[float, list]:
    "Loss and gradients of one update that is not made; ITM's wrong pairs drawn alike."
    kept: list = []
    model = ours.one if step == 'step1' else ours.two
    stepper = ours.steppers[step, True]
    stepper.opt.step, before = (lambda: kept.extend(p.grad.clone() for p in model.parameters() if p.grad is not None)), stepper.opt.step
    torch.manual_seed(1)
    try: return ours(step, 0)['loss'], kept
    finally: stepper.opt.step = before


@pytest.mark.parametrize('step,name', [(s, n) for s, off in BENCH.ABLATIONS.items() for n, change in off.items() if callable(change)])
def test_what_is_switched_off_changes_neither_loss_nor_gradient(ours, step, name):
    loss, grads = run(ours, step)
    with BENCH.ABLATIONS[step][name](): plain, theirs = run(ours, step)
    assert loss == pytest.approx(plain, abs=1e-5) and len(grads) == len(theirs) > 10
    largest = max(b.abs().max().item() for b in theirs)
    rounding = 2 * torch.finfo(torch.float32).eps * largest  # a gradient that is all but nothing is a difference of large terms
    for a, b in zip(grads, theirs): assert (a - b).abs().max() <= max(2e-5 * b.abs().max().item(), rounding)


def test_the_benchmark_runs_without_lavis(capsys):
    found = BENCH.main(None, True, 1)
    assert {k for k in found if ' without: ' in k} == {f'{s} without: {n}' for s, off in BENCH.ABLATIONS.items() for n in off}
    assert all(len(b.split()) <= 29 for b in BENCH.rule_captions(40))
