"""What a drawn face costs: `python benchmarks/drawing.py`. CPU milliseconds a face in bulk, by size, beside as many bare ellipses by Pillow."""
import time

import numpy as np
from PIL import Image, ImageDraw

from expblip.drawing import draw
from expblip.faces import Face, express, sample_identity, sample_scene

def faces(n: int) -> list:
    "Faces as the wild sets have them, each with two action units."
    rng = np.random.default_rng(0)
    out = []
    for _ in range(n):
        who = sample_identity(rng)
        out.append(Face(who, sample_scene(rng, 'wild', who), express(rng, (1, 12))))
    return out

def cpu_ms(do, things: list) -> float:
    "CPU milliseconds a thing, after a warm-up of eight."
    for t in things[:8]: do(t)
    start = time.process_time()
    for t in things: do(t)
    return 1000 * (time.process_time() - start) / len(things)

def pillow(size: int):
    "Forty anti-aliased ellipses (drawn at four times the size), about as many shapes as a face has."
    def do(_) -> np.ndarray:
        big = Image.new('RGB', (4 * size, 4 * size), 'white')
        pen = ImageDraw.Draw(big)
        for i in range(40): pen.ellipse((4 * i, 4 * i, 4 * (size - i), 4 * (size - i)), fill=(i * 6, 90, 120))
        return np.asarray(big.resize((size, size), Image.Resampling.LANCZOS))
    return do

if __name__ == '__main__':
    some = faces(200)
    print(f'sampling a face        {cpu_ms(lambda _: faces(1), some):6.2f} CPU-ms')
    for size in (96, 112, 224):
        ours, peer = cpu_ms(lambda f, s=size: draw(f, s), some), cpu_ms(pillow(size), some[:50])
        print(f'drawing at {size:3d} px      {ours:6.2f} CPU-ms   (Pillow, 40 ellipses: {peer:6.2f})')
