"""What the peer scripts share: their arguments, the clock and the line they print."""

from __future__ import annotations

import argparse
import json
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

PROMPT = "The Federal Reserve said on Tuesday that"


def options(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("model", help="a Hugging Face folder")
    parser.add_argument("--particles", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeats", type=int, default=2, help="the best of so many runs counts")
    chosen = parser.parse_args()
    import torch

    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    return chosen


def report(name: str, chosen: argparse.Namespace, run) -> None:
    """Runs ``run`` a few times; it returns how many tokens it wrote, and in how many seconds."""
    speeds = []
    for _ in range(chosen.repeats):
        tokens, seconds = run()
        speeds.append(tokens / seconds)
    line = {
        "name": f"{name} ({chosen.dtype}, {chosen.threads} threads)",
        "particles": chosen.particles,
        "tokens": chosen.tokens,
        "tokens_per_second": round(max(speeds), 1),
    }
    print(json.dumps(line), flush=True)
