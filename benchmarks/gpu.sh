#!/usr/bin/env bash
# Everything that needs a GPU, in one go: where a step's time goes, the speed table, the CUDA tests and, given the data, the
# tables and figures of the paper and of the evidence.
#
#     bash benchmarks/gpu.sh [PYTHON [CIFAR10 SVHN [ABOUT_SVHN]]]
#
# PYTHON has skgcm with the extras "bench" and "dev"; the others are what benchmarks/paper.py takes. Writes
# benchmarks/results/*-cuda.*, paper-* and evidence-*.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
python=${1:-python}

if [ "$("$python" -c 'import torch; print(torch.cuda.is_available())')" = False ]; then
    echo "No GPU here that PyTorch can use: nothing measured, nothing written."
    exit 0
fi
"$python" "$here/profile_fit.py"
"$python" "$here/speed.py"
if [ $# -ge 3 ]; then
    # fits side by side, since one alone is thought to leave a GPU idle, and kept: run again, what was cut off goes on
    # (of SVHN only what was fitted to its end)
    keep=$here/../.fits
    "$python" "$here/paper.py" --cifar10 "$2" --svhn "$3" --about-svhn "${4:-}" --long --epochs 100 --jobs 3 --keep "$keep"
    "$python" "$here/evidence.py" --cifar10 "$2" --only cifar10 --jobs 2 --keep "$keep"
fi
"$python" -m pytest "$here/../tests/test_cuda.py"  # last: a failure must not keep the measurements from being made
