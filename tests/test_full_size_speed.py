"benchmarks/full_size.py: the FLOP model is torch's count, the plain step has our loss, and the program gives every field it promises."
import json
import math
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'benchmarks'))
import flops
import full_size

from expblip.encoders import HubEncoder
from expblip.models import ENCODERS, LANGUAGE_MODELS, MODELS, build

torch.set_num_threads(1)
FIELDS = {'part', 'side', 'batch', 'tokens', 'compiled', 'samples_per_s', 'spread', 'tokens_per_s', 'data_wait', 'peak_memory_gib', 'first_update_s',
          'compile_s', 'flop_per_sample', 'flop_counted', 'mfu', 'tflop_per_s', 'mfu_data_sheet'}


@pytest.fixture(autouse=True)
def tables(monkeypatch):
    "What `--small` registers is gone afterwards."
    for table in (ENCODERS, LANGUAGE_MODELS): monkeypatch.setattr('expblip.models.' + ('ENCODERS' if table is ENCODERS else 'LANGUAGE_MODELS'), table)
    yield
    for table in (ENCODERS, LANGUAGE_MODELS): table.pop('tiny', None)


@pytest.mark.parametrize('lm, text, step1, step2', [('2.7b', 64, .85, 2.62), ('6.7b', 64, .85, 4.16), ('6.7b', 128, 1.03, 5.86)])
def test_flop_model_at_full_size(lm, text, step1, step2):
    "TFLOP a sample as worked out by hand for ViT-g/14 with OPT, and 534 GFLOP a picture for 40 blocks."
    _, captioner = build(MODELS['full'].but(lm=f'facebook/opt-{lm}'), 'meta')
    enc, c = captioner.encoder, captioner.qformer.cfg
    assert isinstance(enc, HubEncoder) and flops.features(enc) * 40 / 39 == pytest.approx(534e9, rel=.003)
    assert (flops.features(enc) + flops.step1(c, text, 257, 64, shared=False)) / 1e12 == pytest.approx(step1, abs=.006)
    assert flops.step2(enc, c, captioner.lm.config, text) / 1e12 == pytest.approx(step2, rel=.006)


@pytest.mark.parametrize('part', ('step1-online-64', 'step2-6.7b-64'))
def test_flop_model_is_what_torch_counts_at_full_size(part):
    size = full_size.sizes(False, '6.7b')
    _, captioner = build(size, 'meta')
    assert full_size.modelled(part, captioner, 64, 8, 0) == pytest.approx(full_size.counted(part, size, 64, 8, 0), rel=.01)


def test_whole_program_small(tmp_path, capsys):
    out = tmp_path / 'result.json'
    full_size.main(['--small', '--device', 'cpu', '--parts', 'features', 'step1', 'step2-6.7b-64', 'generate-6.7b', '--seconds', '.3',
                    '--lengths', 'rule', '--recompute', '--out', str(out)])
    said = json.loads(out.read_text())
    assert said['small'] and said['device'].startswith('CPU') and said['commit'] and said['date']
    assert set(said['versions']) >= {'torch', 'transformers'}
    rows = {(r['part'], r['side']): r for r in said['results']}
    assert len(rows) == 10 and all(FIELDS <= r.keys() for r in rows.values())
    for (part, _), r in rows.items():
        assert r['samples_per_s'] > 0 and r['spread'][0] <= r['samples_per_s'] <= r['spread'][1] and 0 <= r['data_wait'] < 1 and 0 < r['mfu'] < 1.5
        assert r['mfu'] == pytest.approx(r['flop_per_sample'] * r['samples_per_s'] / said['matmul_flop_per_s'])
        if not part.startswith('generate'): assert r['flop_counted'] == pytest.approx(r['flop_per_sample'], rel=.02)
        if part.startswith('step'): assert r['loss'] == pytest.approx(rows[part, 'plain']['loss'], abs=2e-5) and math.isfinite(r['loss'])
        assert (r['tokens_per_s'] > 0) == (part != 'features')
    table = capsys.readouterr().out
    assert 'goals (one H200)' in table and '95 and 114' in table


def test_part_that_does_not_exist():
    with pytest.raises(SystemExit): full_size.main(['--small', '--parts', 'step3'])


def test_captions_as_rules_write_them_are_short():
    full, rule = full_size.lengths('full', 50, 64), full_size.lengths('rule', 50, 64)
    assert (full == 64).all() and 4 < rule.mean() < 64 and rule.max() <= 64 and len(set(rule)) > 5
