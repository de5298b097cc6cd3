"""What the paper's 372,771 records cost: `python benchmarks/records.py`. Load, check and sample in fresh processes, ours and JSON lines in turn.

Records have the sizes of Table 1. Each process reads its file, checks every row, counts what the sampling rule keeps of the video sets and draws
32 rows; all must find the same. Seconds exclude imports; peak is the largest resident memory of the process, imports (and, where a file is mapped,
the file) included. Medians of three rounds, first at a quarter of the size. `python benchmarks/records.py 0.1` does it with a tenth.
"""
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DRAWN = 32
AUS = {'BP4D': (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24), 'DISFA': (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26),
       'GFT': (1, 2, 4, 6, 10, 12, 14, 15, 23, 24), 'RAF-AU': (1, 2, 4, 5, 6, 9, 10, 12, 16, 17, 25, 26, 27),
       'EmotioNet': (1, 2, 4, 5, 6, 9, 12, 17, 20, 25, 26)}

def rows(share: float):
    "Records with the sizes of Table 1, or a share of them."
    from expblip.facs import EMOTIONS
    dice = random.Random(0)
    for line in (Path(__file__).parents[1] / 'data/paper/table1_datasets.csv').read_text().splitlines()[1:]:
        name, _, split, size, people, _ = line.split(',')
        if split != 'train': continue
        n, aus, shown = round(share * int(size)), AUS.get(name), set()
        for i in range(n):
            row = dict.fromkeys(('subject', 'sequence', 'frame', 'au_present', 'au_absent', 'emotions'))
            path = f'{name}/{i % 1000}/{dice.getrandbits(224):056x}.jpg'
            if people:  # frames of one person stand together, 500 to a sequence
                person, at = divmod(i, n // int(people) + 1)
                row |= {'subject': f'{name[0]}{person:03}', 'sequence': f'{name[0]}{person:03}/T{at // 500}', 'frame': at}
                path = f'{name}/{row["sequence"]}/{at:05}.jpg'
            if aus and (not people or at % 500 == 0): shown = set(dice.sample(aus, 3))
            elif aus and dice.random() < .06: shown ^= {dice.choice(aus)}
            row |= {'au_present': sorted(shown), 'au_absent': sorted(set(aus) - shown)} if aus else {'emotions': [EMOTIONS[dice.randrange(8)]]}
            yield row | {'id': path, 'image': f'data/licensed/{path}', 'dataset': name, 'split': split}

def make(folder: Path, share: float) -> None:
    "The same records as Parquet and as JSON lines."
    import pandas as pd

    from expblip.records import RECORD_COLUMNS, write_records
    table = list(rows(share))
    with open(folder / 'records.jsonl', 'w') as f: f.writelines(json.dumps(row) + '\n' for row in table)
    write_records(pd.DataFrame({k: pd.Series([row[k] for row in table], dtype=object) for k in RECORD_COLUMNS}), folder / 'records.parquet')

def chosen(n: int) -> list[int]: return sorted(random.Random(0).sample(range(n), DRAWN))

# a route imports, yields, does the work that is timed, and yields what it found
def whole(folder: Path):
    "Ours, all records as one table."
    from expblip.facs import AUS as known
    from expblip.records import au_labels, read_records
    from expblip.sampling import kept_frames
    yield
    table = read_records(folder / 'records.parquet')
    video = table[table['sequence'].notna()]
    kept = kept_frames(video['sequence'], video['frame'], au_labels(video, tuple(known)))
    yield len(table), int(kept.sum()), table['id'].iloc[chosen(len(table))].tolist()

def pieces(folder: Path):
    "Ours, a row group at a time."
    import numpy as np

    from expblip.columns import open_columns
    from expblip.facs import AUS as known
    from expblip.records import au_labels, scan_records
    from expblip.sampling import kept_frames
    yield
    n = open_columns(folder / 'records.parquet').metadata.num_rows
    wanted, drawn, parts = chosen(n), [], []
    for part in scan_records(folder / 'records.parquet'):
        drawn += part['id'].reindex(wanted).dropna().tolist()
        video = part[part['sequence'].notna()]
        parts.append((video['sequence'].to_numpy(), video['frame'].to_numpy(int), au_labels(video, tuple(known))))
    yield n, int(kept_frames(*map(np.concatenate, zip(*parts))).sum()), drawn

def usual(folder: Path):
    "JSON lines into dictionaries, checked row by row."
    from expblip.facs import AUS as known
    from expblip.facs import EMOTIONS
    columns = {'id', 'image', 'dataset', 'split', 'subject', 'sequence', 'frame', 'au_present', 'au_absent', 'emotions'}
    yield
    with open(folder / 'records.jsonl') as f: table = [json.loads(line) for line in f]
    seen = set()
    for i, row in enumerate(table):
        present, absent, named = row['au_present'], row['au_absent'], row['emotions']
        if not (row.keys() == columns and row['id'] not in seen and row['split'] in ('train', 'val', 'test')
                and all(isinstance(row[k], str) and row[k].strip() for k in ('id', 'image', 'dataset'))
                and all(row[k] is None or (isinstance(row[k], str) and row[k].strip()) for k in ('subject', 'sequence'))
                and (row['frame'] is None or (isinstance(row['frame'], int) and row['frame'] >= 0))
                and (present is None) == (absent is None) and (present is None or present or absent)
                and (present is None or (all(n in known for n in present + absent) and len(set(present + absent)) == len(present + absent)))
                and (named is None or (named and all(name in EMOTIONS for name in named)))):
            raise ValueError(f'row {i}: {row}')
        seen.add(row['id'])
    kept, before, place = 0, {'sequence': None}, 0
    for row in table:
        if row['sequence'] is None: continue
        place = place + 1 if row['sequence'] == before['sequence'] else 0
        kept += place % 10 == 0 or any(row[k] != before[k] for k in ('au_present', 'au_absent'))
        before = row
    yield len(table), kept, [table[i]['id'] for i in chosen(len(table))]

def peak_mib() -> float:
    "Largest resident memory of this process alone (what getrusage tells also counts the parent's before exec)."
    status = Path('/proc/self/status')
    if not status.exists(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return int(status.read_text().split('VmHWM:')[1].split()[0]) / 1024

def measure(way: str, folder: Path) -> dict:
    "One route in a fresh process."
    out = subprocess.run([sys.executable, __file__, way, str(folder)], check=True, capture_output=True, text=True).stdout
    return json.loads(out)

def formats(folder: Path) -> None:
    "The file format: Parquet against Arrow's own, mapped into memory."
    import pyarrow as pa

    from expblip.columns import open_columns, to_cells
    from expblip.records import RECORD_SCHEMA
    table = open_columns(folder / 'records.parquet').read()
    with pa.OSFile(str(folder / 'records.arrow'), 'wb') as f, pa.ipc.new_file(f, table.schema) as out: out.write_table(table)
    reads = {'parquet': lambda p: open_columns(p).read(), 'arrow': lambda p: pa.ipc.open_file(pa.memory_map(str(p))).read_all()}
    for _ in range(3):
        for name, read in reads.items():
            begin = time.process_time(); got = read(folder / f'records.{name}'); middle = time.process_time(); to_cells(got, RECORD_SCHEMA)
            end = time.process_time()
            last = f'decoding {middle - begin:.2f} CPU-s, to plain cells {end - middle:.2f} CPU-s'
            print(f'{name:8} {(folder / f"records.{name}").stat().st_size / 1e6:6.1f} MB  {last}')

if __name__ == '__main__':
    if len(sys.argv) == 3 and sys.argv[1] in ('whole', 'pieces', 'usual', 'formats'):
        steps = globals()[sys.argv[1]](Path(sys.argv[2]))
        if steps:
            next(steps)
            wall, cpu = time.perf_counter(), time.process_time()
            found = next(steps)
            print(json.dumps({'wall': time.perf_counter() - wall, 'cpu': time.process_time() - cpu, 'peak': peak_mib(), 'found': found}))
        sys.exit()
    most = float(sys.argv[1]) if len(sys.argv) > 1 else 1.
    for share in (most / 4, most):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            make(folder, share)
            rounds = [{way: measure(way, folder) for way in ('usual', 'whole', 'pieces')} for _ in range(3)]
            assert len({json.dumps(run['found']) for r in rounds for run in r.values()}) == 1, 'all routes find the same'
            n, kept, _ = rounds[0]['usual']['found']
            print(f'{n:,} records; the sampling rule keeps {kept:,} of the video frames', flush=True)
            for way, told in (('usual', 'JSON lines, dictionaries'), ('whole', 'ours, one table'), ('pieces', 'ours, in pieces')):
                wall, cpu, peak = (statistics.median(r[way][k] for r in rounds) for k in ('wall', 'cpu', 'peak'))
                faster = statistics.median(r['usual']['cpu'] / r[way]['cpu'] for r in rounds)
                print(f'  {told:25} {wall:6.2f} s {cpu:6.2f} CPU-s ({faster:4.1f} times as fast)   peak {peak:5.0f} MiB', flush=True)
            if share == most: subprocess.run([sys.executable, __file__, 'formats', place], check=True)
