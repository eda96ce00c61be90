"""Which precision trains faster on this machine, and which one precision="auto" selects.

    python benchmarks/precision.py

Steps of the default network on 64 images of 32 × 32, in turn in float32 and under bfloat16 autocast, by CPU time (on
a GPU, wall time). Adds this machine's line to benchmarks/results/precision.md and .json.
"""

import json
import time

import torch
import torch.nn.functional as F
from _common import RESULTS, machine, spread, versions, write

from skgcm.network import GCM
from skgcm.training.build import resolve_precision

ROUNDS, WARM_UP = 30, 5


class Trained:
    def __init__(self, dtype, device):
        self.dtype, self.network = dtype, GCM(10).to(device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.01, momentum=0.9, nesterov=True, fused=True)

    def step(self, images, labels):
        """Seconds of a step."""
        on_gpu = images.is_cuda
        clock = time.perf_counter if on_gpu else time.process_time
        start = clock()
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            scores = self.network(images)
        self.optimizer.zero_grad()
        F.cross_entropy(scores, labels).backward()
        self.optimizer.step()
        if on_gpu:
            torch.cuda.synchronize()
        return clock() - start


def main():
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images, labels = torch.rand(64, 3, 32, 32, device=device), torch.randint(0, 10, (64,), device=device)
    both = [Trained(dtype, device) for dtype in (torch.float32, torch.bfloat16)]
    times = [[trained.step(images, labels) for trained in both] for _ in range(ROUNDS + WARM_UP)][WARM_UP:]
    auto = str(resolve_precision("auto", device)).removeprefix("torch.")
    ms = [1e3 * spread(column)[0] for column in zip(*times, strict=True)]
    found = {
        "float32_ms": ms[0],
        "bfloat16_ms": ms[1],
        "ratio": spread([one / two for one, two in times]),
        "auto": auto,
    }
    path = RESULTS / "precision.json"
    result = (
        json.loads(path.read_text()) if path.exists() else {"command": "python benchmarks/precision.py", "runs": {}}
    )
    result["runs"][machine()] = {**found, "versions": versions()}
    lines = ["# float32 or bfloat16", "", f"`{result['command']}`, each line on the machine that it names.", ""]
    lines += ["| machine | float32, ms a step | bfloat16 | float32 / bfloat16 | auto | torch |", "|---" * 6 + "|"]
    for name, run in result["runs"].items():
        median, low, high = run["ratio"]
        ratio = f"{median:.2f} ({low:.2f}, {high:.2f})"
        cells = [name, f"{run['float32_ms']:.1f}", f"{run['bfloat16_ms']:.1f}", ratio, run["auto"]]
        lines.append(f"| {' | '.join([*cells, run['versions']['torch']])} |")
    write("precision", lines, result)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
