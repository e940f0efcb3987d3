"""The peer of the vocabulary passes S and T: linear and cross_entropy, forward and backward, in bf16. Prints a line of JSON: microseconds
(median), and the peak of memory beyond what is there before: input, weight, targets and the gradients' own memory."""

import argparse
import json
import statistics

import torch
import torch.nn.functional as F


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--rows", type=int, default=32768)
    parser.add_argument("--times", type=int, default=30)
    options = parser.parse_args()
    torch.manual_seed(0)
    make = {"device": "cuda", "dtype": torch.bfloat16, "requires_grad": True}
    x = torch.randn(options.tokens, options.hidden, **make)
    weight = torch.randn(options.rows, options.hidden, **make)
    targets = torch.randint(options.rows, (options.tokens,), device="cuda")

    def passes():
        F.cross_entropy(F.linear(x, weight), targets).backward()

    for _ in range(5):
        passes()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    times = []
    for _ in range(options.times):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        passes()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e3)
    peak = torch.cuda.max_memory_allocated() - before
    print(json.dumps({"microseconds": statistics.median(times), "peak_bytes": peak, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
