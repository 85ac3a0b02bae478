#!/usr/bin/env bash
# What a rented GPU shall measure, in order of value, in less than half an hour:
#
#     bash benchmarks/gpu_day.sh FOLDER
#
# Each part writes FOLDER/PART.json when it is complete; called again, the script goes on with the
# parts that are missing. At the end gpu_day.json and gpu_day.md hold all of them. Needs torch,
# diffusers, peft, transformers and timm, and neither DVC nor MLflow. Nothing is downloaded: weights
# are random. `gpu_day.sh FOLDER --tiny` tries the script itself on a CPU; its figures mean nothing.
set -u -o pipefail
out=${1:?"usage: gpu_day.sh FOLDER [--tiny]"}
shift
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python}
export PYTHONPATH="$here/../src${PYTHONPATH:+:$PYTHONPATH}"
export PYTORCH_ALLOC_CONF=${PYTORCH_ALLOC_CONF:-expandable_segments:True}
mkdir -p "$out"
missing=0
# A part and the most seconds it may take: 28 minutes together.
for entry in memory:240 train:300 train-compiled:480 sample:360 vit:180 resnext:120; do
  part=${entry%:*}
  if [ -s "$out/$part.json" ]; then
    echo "gpu_day: $part is complete"
    continue
  fi
  if ! timeout "${entry#*:}" "$python" "$here/gpu_day.py" part "$part" "$out/$part.json" "$@" \
    2>&1 | tee "$out/$part.log"; then
    echo "gpu_day: $part gave no figures within ${entry#*:} s; see $out/$part.log" >&2
    missing=1
  fi
done
"$python" "$here/gpu_day.py" table "$out" || exit 1
exit $missing
