"""Put a trained Exp-BLIP where it ships: `python tools/ship_expblip.py outputs/<run> [expblip/drawn] [seed]`.

What ships is held in half precision and captions the run's test pictures once more; the card states how many captions stayed as they were,
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

def same(captioner: Captioner, run: Path, seed: int) -> tuple[float, int]:
    "Share of the run's greedy captions of test pictures that this copy writes again, and how many there were."
    data = run / 'shared' / 'data'
    table = read_records(data / 'records.parquet').set_index('id')
    said = read_captions(run / f'seed{seed}' / 'caption-exp' / 'predictions.parquet')
    said = said[(said.decode == 'greedy') & (said.use == 'predicted')]
    store = ImageStore(list(table.loc[said.record].image), data)
    texts = [c.text for at in range(0, len(said), 64)
             for c in captioner.caption(store(range(at, min(at + 64, len(said)))).numpy(), batch=64, scores=False, attention=False, crop='picture')]
    return float((pd.Series(texts) == said.text.reset_index(drop=True)).mean()), len(said)

def main(run: Path, target: Path, seed: int = 0) -> None:
    names = sorted(set(read_records(run / 'shared' / 'data' / 'records.parquet').dataset))
    facts = read_json(run / 'run.json')
    captioner = Captioner.from_pretrained(run / f'seed{seed}' / 'step2-exp', device='cpu')
    fresh, old = target.with_name(target.name + '.new'), target.with_name(target.name + '.old')
    for folder in (fresh, old): shutil.rmtree(folder, ignore_errors=True)
    about = dict(name='drawn', data=names, scale=facts['scale'], commit=facts.get('commit'), scores=scores(run, seed))
    captioner.save_pretrained(fresh, half=True, **about)
    share, count = same(Captioner.from_pretrained(fresh, device='cpu'), run, seed)
    about['scores'].append(dict(name='same caption', value=share, meaning=f'share of the run\'s {count} greedy captions of test pictures that '
                                'this copy in half precision writes word for word; the other figures are the run\'s'))
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
