"""Put a trained Exp-BLIP where it ships: `python tools/ship_expblip.py outputs/<run> [expblip/drawn] [seed]`.

What ships is held in half precision and captions the run's test pictures beside the original; the card states how many captions are the same,
and the scores that the run's stage `metrics` gave this seed.
"""
import os
import shutil
import sys
from pathlib import Path

import pandas as pd

from expblip.captioner import Captioner
from expblip.images import ImageStore
from expblip.io import project_root, read_json
from expblip.records import read_captions, read_records

LIMIT = 16_000_000  # bytes, all files together
FIGURES = ('au_f1_full', 'emotion_accuracy', 'correctness', 'completeness', 'both_aspects')

def scores(run: Path, seed: int) -> list[dict]:
    "The judged figures of Exp-BLIP's greedy captions, a data set each."
    rows = read_json(run / f'seed{seed}' / 'metrics' / 'results.json')
    chosen = [r for r in rows if r['name'].startswith('judge/') and '/exp/greedy/' in r['name'] and r['name'].rpartition('/')[2] in FIGURES]
    return [dict(name=r['name'].removeprefix('judge/').replace('/exp/greedy', ''), value=r['value'], meaning=r['meaning']) for r in chosen]

def captions(captioner: Captioner, run: Path, ids: pd.Series) -> pd.Series:
    "Greedy captions in fp32 of some of the run's pictures."
    data = run / 'shared' / 'data'
    store = ImageStore(list(read_records(data / 'records.parquet').set_index('id').loc[ids].image), data)
    return pd.Series([c.text for at in range(0, len(ids), 64) for c in captioner.caption(
        store(range(at, min(at + 64, len(ids)))).numpy(), batch=64, scores=False, attention=False, crop='picture')])

def main(run: Path, target: Path, seed: int = 0) -> None:
    names = sorted(set(read_records(run / 'shared' / 'data' / 'records.parquet').dataset))
    facts = read_json(run / 'run.json')
    captioner = Captioner.from_pretrained(run / f'seed{seed}' / 'step2-exp', device='cpu')
    fresh, old = target.with_name(target.name + '.new'), target.with_name(target.name + '.old')
    for folder in (fresh, old): shutil.rmtree(folder, ignore_errors=True)
    about = dict(name='drawn', data=names, scale=facts['scale'], commit=facts.get('commit'), scores=scores(run, seed))
    captioner.save_pretrained(fresh, half=True, **about)
    said = read_captions(run / f'seed{seed}' / 'caption-exp' / 'predictions.parquet')
    ids = said[(said.decode == 'greedy') & (said.use == 'predicted')].record
    share, count = float((captions(Captioner.from_pretrained(fresh, device='cpu'), run, ids) == captions(captioner, run, ids)).mean()), len(ids)
    about['scores'].append(dict(name='same caption', value=share, meaning=f'share of {count} greedy captions of test pictures (fp32) that this copy, '
                                'stored in half precision, writes as the original does; the other figures are those of the run'))
    captioner.save_pretrained(fresh, half=True, **about)
    size = sum(p.stat().st_size for p in fresh.rglob('*') if p.is_file())
    if size > LIMIT: sys.exit(f'{run}: {size / 1e6:.1f} MB, more than the {LIMIT / 1e6:.0f} MB that may ship')
    if target.exists(): os.rename(target, old)
    os.rename(fresh, target)
    shutil.rmtree(old, ignore_errors=True)
    print(f'{target}: {size / 1e6:.1f} MB, {share:.1%} of {count} captions as before')

if __name__ == '__main__':
    where = Path(sys.argv[2]) if len(sys.argv) > 2 else project_root() / 'expblip' / 'drawn'
    main(Path(sys.argv[1]).resolve(), where.resolve(), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
