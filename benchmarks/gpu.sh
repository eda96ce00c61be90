#!/usr/bin/env bash
# Everything that needs a GPU, in one go of under ten minutes: the CUDA tests, the speed table, where a step's time goes,
# and, given the data, the paper's tables and figures.
#
#     bash benchmarks/gpu.sh [PYTHON [CIFAR10 SVHN]]
#
# PYTHON has skgcm with the extras "bench" and "dev"; CIFAR10 and SVHN are what benchmarks/paper.py takes. Writes
# benchmarks/results/*-cuda.* and paper-*.
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
if [ $# -ge 3 ]; then
    "$python" benchmarks/paper.py --cifar10 "$2" --svhn "$3"
fi
