"""What importing costs: `python benchmarks/import_time.py`. Best of five fresh processes each, start of Python subtracted; a peer beside."""
import subprocess
import sys
import time

def seconds(code: str, times: int = 5) -> float:
    "Best wall time of a fresh process that runs `code`."
    def once() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, '-c', code], check=True, capture_output=True)
        return time.perf_counter() - start
    return min(once() for _ in range(times))

if __name__ == '__main__':
    start = seconds('pass')
    for name in ('expblip', 'expblip.facs', 'expblip.records', 'expblip.qformer', 'numpy', 'pandas', 'torch', 'transformers'):
        print(f'import {name:<16} {seconds(f"import {name}") - start:7.3f} s')
