"""What cached features save: `python benchmarks/probes.py [faces]`. 100 epochs of a linear layer on features encoded once, and encoded every epoch.

240 drawn faces to train on (12 AUs) and 240 of other people to test; encoder and Q-Former of the shipped start, flattened; on both routes the same
layer, seed and optimizer (Adam, all faces at once), so the F1 must be equal, and is checked to be. Beside them the fit that the repository uses
(L-BFGS, three penalties). All of it is measured in full at this size; the last line extrapolates to the paper's RAF-AU (3,733 training images, 400
epochs) in proportion, and says so. CPU seconds of this process, one run of each route. At 240 faces the result is kept in `results/probes.json`.
"""
import os
import sys
import time
from pathlib import Path

EPOCHS, WHOLE = 100, 240
FACES = int(sys.argv[1]) if len(sys.argv) > 1 else WHOLE

def main() -> None:
    import numpy as np
    import torch

    from expblip.checkpoints import Start
    from expblip.drawing import draw_many
    from expblip.images import evaluation_view
    from expblip.io import write_json
    from expblip.metrics import f1_scores, macro
    from expblip.probes import TABLE3_AUS, linear_probe, read_features
    from expblip.records import au_labels
    from expblip.world import draw_world
    torch.set_num_threads(1)
    load = round(os.getloadavg()[0], 1) if hasattr(os, 'getloadavg') else None
    world = draw_world({'bp4d': 0, 'rafau': FACES, 'val': 0, 'test': 1.}, 5)
    labels = au_labels(world.records, TABLE3_AUS).astype('float32')
    train, test = (np.flatnonzero(world.records.split == split) for split in ('train', 'test'))
    test = test[:FACES]
    answers = torch.from_numpy(labels[train])
    known = ~answers.isnan()
    pictures = torch.from_numpy(draw_many(world.faces))
    net = Start().captioner().eval().requires_grad_(False)
    parts = ('image_encoder', 'qformer')

    @torch.no_grad()
    def encode(rows):
        found = [net.features(evaluation_view(pictures[rows[at:at + 60]], net.encoder.image_size)) for at in range(0, len(rows), 60)]
        return {name: torch.cat([one[k] for one in found]) for k, name in enumerate(parts)}

    def layer(part, features, statistics):
        "A fresh linear layer, its optimizer, and how features are standardised."
        torch.manual_seed(0)
        one = torch.nn.Linear(statistics[0].numel(), len(TABLE3_AUS))
        return one, torch.optim.Adam(one.parameters(), 1e-3, weight_decay=1e-4)

    def an_epoch(one, optimizer, x):
        "One update with all faces; labels that are not annotated cost nothing."
        loss = torch.nn.functional.binary_cross_entropy_with_logits(one(x)[known], answers[known])
        optimizer.zero_grad(); loss.backward(); optimizer.step()

    def f1(one, x): return macro(f1_scores(labels[test], (one(x) >= 0).numpy()))

    started = time.process_time()
    kept = encode(train)
    once = time.process_time() - started
    unseen, statistics = encode(test), {part: (kept[part].mean(0), kept[part].std(0) + 1e-6) for part in parts}
    def ready(features, part): return ((features[part] - statistics[part][0]) / statistics[part][1]).flatten(1)
    scores, seconds = {}, {}
    started = time.process_time()
    again = {part: layer(part, kept, statistics[part]) for part in parts}
    for _ in range(EPOCHS):
        fresh = encode(train)
        for part in parts: an_epoch(*again[part], ready(fresh, part))
    seconds['encoded again every epoch'] = time.process_time() - started
    started = time.process_time()
    cached = {part: layer(part, kept, statistics[part]) for part in parts}
    for part in parts:
        x = ready(kept, part)
        for _ in range(EPOCHS): an_epoch(*cached[part], x)
    fitted = time.process_time() - started
    seconds['encoded once'] = once + fitted
    started = time.process_time()
    def split(features, part, rows): return read_features(features[part], 'flattened'), labels[rows]
    ours = {part: linear_probe(split(kept, part, train), split(unseen, part, test)) for part in parts}
    seconds["encoded once, the repository's fit"] = once + time.process_time() - started
    with torch.no_grad():
        for name, nets in (('encoded again every epoch', again), ('encoded once', cached)):
            scores[name] = [f1(nets[part][0], ready(unseen, part)) for part in parts]
    scores["encoded once, the repository's fit"] = [ours[part].score for part in parts]
    slow = seconds['encoded again every epoch']
    for name, spent in seconds.items():
        print(f'{name:36} {spent:8.2f} s  {slow / spent:6.1f}x   F1 {", ".join(f"{part} {score:.4f}" for part, score in zip(parts, scores[name]))}')
    assert np.allclose(scores['encoded again every epoch'], scores['encoded once'], atol=1e-6), 'the two routes must end at the same F1'
    big = 3733 / len(train)
    print(f'extrapolated in proportion, not measured: RAF-AU, 3,733 images, 400 epochs: {big * 400 * slow / EPOCHS / 60:.0f} min '
          f'against {big * (once + 400 * fitted / EPOCHS) / 60:.1f} min')
    if FACES == WHOLE:
        assert slow / seconds['encoded once'] >= 50, 'features kept in memory must save at least 50x over 100 epochs'
        shares = {'an epoch of encoding': once, 'an epoch of the layers': fitted / EPOCHS}
        found = {'date': time.strftime('%Y-%m-%d'), 'torch': torch.__version__, 'threads': 1, 'load': load, 'faces': len(train), 'epochs': EPOCHS,
                 'cpu_seconds': {name: round(spent, 2) for name, spent in seconds.items()},
                 'times_as_fast': {name: round(slow / spent, 1) for name, spent in seconds.items()},
                 'cpu_seconds_of': {name: round(spent, 4) for name, spent in shares.items()},
                 'f1': {name: dict(zip(parts, (round(float(one), 4) for one in given))) for name, given in scores.items()}}
        write_json(Path(__file__).resolve().parent / 'results' / 'probes.json', found)

if __name__ == '__main__': main()
