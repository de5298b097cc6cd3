#!/usr/bin/env bash
# One session on a machine with an NVIDIA GPU: PYTHON=/path/to/python bash benchmarks/gpu_session.sh [folder]. Every command ends within ten minutes by
# itself; what fails is noted and the rest goes on. The folder is small and meant to be committed, with a line in the log of benchmarks/README.md.
set -u
cd "$(dirname "$0")/.."
PY=${PYTHON:-python}
OUT=${1:-benchmarks/results/$(date -u +%Y-%m-%d)-$(git rev-parse --short HEAD)}
LIMIT=${LIMIT:-590}
mkdir -p "$OUT"
export HF_HUB_OFFLINE=1 MPLBACKEND=agg

part() {  # name, command...
  local name=$1; shift
  echo "== $name: $*" | tee -a "$OUT/session.log"
  local begin=$SECONDS
  timeout "$LIMIT" "$@" >"$OUT/$name.log" 2>&1
  echo "   ended with $? after $((SECONDS - begin)) s" | tee -a "$OUT/session.log"
}

nvidia-smi >"$OUT/gpu.txt" 2>&1 || echo 'nvidia-smi says nothing: no NVIDIA GPU?' | tee -a "$OUT/session.log"
part tests "$PY" -m pytest -q tests/test_speed.py tests/test_full_size.py tests/test_full_size_speed.py
part smoke "$PY" -m expblip.pipeline run --run gpu --scale smoke --seeds 1 --device cuda
part smoke_compiled "$PY" -m expblip.pipeline run --run gpu-compiled --scale smoke --seeds 1 --device cuda --only step2-au \
  -p step1.compile=qformer -p step1.pad_to=16 -p step2.compile=encoder+qformer+lm -p step2.pad_to=16
PARTS=$(mktemp -d)  # full size, random weights, through the stage notebooks themselves: their timing.json and memory are what counts
part random_parts "$PY" benchmarks/random_parts.py "$PARTS" --lm 6.7b
part stages_full bash -c "$PY -m expblip.pipeline run --run gpu-full --scale full --seeds 1 --device cuda --only caption-au $(tail -n 1 "$OUT/random_parts.log")"
rm -rf "$PARTS"
LAVIS=${LAVIS_PYTHON:+--lavis $LAVIS_PYTHON}
for p in features step1 step2-6.7b-64 step2-6.7b-128 step2-2.7b generate; do
  part "speed_$p" "$PY" benchmarks/full_size.py --device cuda --parts "$p" --out "$OUT/speed_$p.json" ${LAVIS:-}
done
part speed_rule_lengths "$PY" benchmarks/full_size.py --device cuda --parts step1-online step2-6.7b-128 --lengths rule --out "$OUT/speed_rule_lengths.json" ${LAVIS:-}
part speed_eager_blocks "$PY" benchmarks/full_size.py --device cuda --parts features step2-6.7b-64 --sides ours --compile none --out "$OUT/speed_eager_blocks.json"
cat "$OUT/session.log"
