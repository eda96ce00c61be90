#!/usr/bin/env bash
# Everything that needs a GPU, in one go of under ten minutes: the CUDA tests, the speed table, where a step's time goes.
#
#     bash benchmarks/gpu.sh [PYTHON]
#
# PYTHON has skgcm with the extras "bench" and "dev". Writes benchmarks/results/*-cuda.*.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${1:-python}

if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "No GPU here that PyTorch can use: nothing measured, nothing written."
    exit 0
fi
"$python" -m pytest tests/test_cuda.py
"$python" benchmarks/profile_fit.py
"$python" benchmarks/speed.py
