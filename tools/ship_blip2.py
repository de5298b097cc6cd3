"""Put a freshly built drawn BLIP-2 where it ships: `python tools/ship_blip2.py <stage folder> [data/drawn-blip2]`.

The stage folder must load and its hashes must fit; only then the old folder is replaced, in one rename.
"""
import shutil
import sys
from pathlib import Path

from expblip.checkpoints import DRAWN_BLIP2, Start
from expblip.io import project_root

LIMIT = 16_000_000  # bytes, all files together
KEPT = ('model.safetensors', 'config.json', 'lm', 'README.md', '*.jsonl', '*.json')

def main(source: Path, target: Path) -> None:
    Start(source)                                    # every file there, every hash right, every weight fits
    fresh, old = target.with_name(target.name + '.new'), target.with_name(target.name + '.old')
    for folder in (fresh, old): shutil.rmtree(folder, ignore_errors=True)
    fresh.mkdir(parents=True)
    for path in {p for pattern in KEPT for p in source.glob(pattern) if p.name not in ('manifest.json', 'timing.json', 'running.json')}:
        if path.is_dir(): shutil.copytree(path, fresh / path.name)
        else: shutil.copy(path, fresh / path.name)
    size = sum(p.stat().st_size for p in fresh.rglob('*') if p.is_file())
    if size > LIMIT: sys.exit(f'{source}: {size / 1e6:.1f} MB, more than the {LIMIT / 1e6:.0f} MB that may ship')
    if not (fresh / 'README.md').exists() and (target / 'README.md').exists(): shutil.copy(target / 'README.md', fresh / 'README.md')
    if target.exists(): target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    print(f'{target}: {size / 1e6:.1f} MB')

if __name__ == '__main__': main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else project_root() / DRAWN_BLIP2)
