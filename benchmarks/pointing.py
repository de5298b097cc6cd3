"""Do the maps of words point? `python benchmarks/pointing.py` plays the pointing game on 120 drawn faces and writes results/pointing.json.

The faces are of people nobody trained on (seed 778,000, used for nothing else), the captioner is the drawn Exp-BLIP that ships, on the CPU. Each
figure is a share of words with a 95 % percentile interval over faces (`intervals.ratio_intervals`). `python benchmarks/pointing.py 8` takes 8 faces
and writes nothing.
"""
import json
import re
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np

from expblip.captioner import Captioner
from expblip.intervals import ratio_intervals
from expblip.words import word_game
from expblip.world import draw_world

FIGURES = ('hit', 'mean_map', 'other', 'shuffled', 'chance', 'weight')

if __name__ == '__main__':
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 120
    world, began = draw_world(dict(rafau=480, val=0, test=1.0), 778_000), time.time()
    test = np.flatnonzero(world.records.split == 'test')[:count]
    game, captions = word_game(Captioner.from_pretrained('drawn', device='cpu').net, [world.faces[k] for k in test])
    shown = game.dropna(subset=list(FIGURES))
    values = shown[list(FIGURES)].to_numpy(float)
    bounds = ratio_intervals(values, np.ones_like(values), shown['face'].tolist())
    common = game.groupby('word')['hit'].agg(['mean', 'size']).query('size >= 10').sort_values('mean', ascending=False)
    found = {'date': date.today().isoformat(), 'seconds': round(time.time() - began), 'faces': count, 'words': len(game), 'scored': len(shown),
             'faces_with_words': int(game['face'].nunique()),
             'figures': {name: [round(float(v), 4) for v in (values[:, k].mean(), *bounds[k])] for k, name in enumerate(FIGURES)},
             'hit_by_word': {word: [round(float(row['mean']), 4), int(row['size'])] for word, row in common.iterrows()}}
    text = re.sub(r'\[\s+([^\[\]]*?)\s+\]', lambda row: '[' + ' '.join(row[1].split()) + ']', json.dumps(found, indent=1))  # a row a figure
    print(text)
    if count == 120: (Path(__file__).parent / 'results' / 'pointing.json').write_text(text + '\n')
