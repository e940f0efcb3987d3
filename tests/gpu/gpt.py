"""The peer of one rank: the same GPT in PyTorch with torch.compile, scaled_dot_product_attention and fused Adam. Prints a line of JSON:
tokens/s (median step), operations/s by schedc's count, the peak of memory."""

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """A pre-norm layer of causal attention and a GELU MLP."""

    def __init__(self, hidden, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.qkv, self.out = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.up, self.down = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)

    def forward(self, x):
        batch, sequence, hidden = x.shape
        parts = self.qkv(self.norm1(x)).view(batch, sequence, 3, self.heads, hidden // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, sequence, hidden))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Gpt(nn.Module):
    """Learned positions, layers, a final norm, an output layer without bias."""

    def __init__(self, options):
        super().__init__()
        self.tokens = nn.Embedding(options.vocab, options.hidden)
        self.positions = nn.Embedding(options.seq, options.hidden)
        self.blocks = nn.ModuleList(Block(options.hidden, options.heads) for _ in range(options.layers))
        self.norm = nn.LayerNorm(options.hidden)
        self.head = nn.Linear(options.hidden, options.vocab, bias=False)

    def forward(self, inputs, targets):
        x = self.tokens(inputs) + self.positions.weight[: inputs.shape[1]]
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1), targets.flatten())


def main():
    parser = argparse.ArgumentParser()
    for name in ("layers", "hidden", "heads", "seq", "batch", "vocab", "microbatches", "steps"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = True
    with torch.device("cuda"):
        model = Gpt(options)
    # Master weights in f32, arithmetic in bf16, as schedc has it.
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.95), fused=True)
    compiled = torch.compile(model)
    shape = (options.microbatches, options.batch, options.seq)
    inputs = torch.randint(options.vocab, shape, device="cuda")
    targets = torch.randint(options.vocab, shape, device="cuda")

    def step():
        for index in range(options.microbatches):
            with torch.autocast("cuda", torch.bfloat16):
                loss = compiled(inputs[index], targets[index]) / options.microbatches
            loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    times = []
    for number in range(options.steps + 3):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        step()
        torch.cuda.synchronize()
        if number >= 3:
            times.append(time.perf_counter() - begin)
    rate = options.microbatches * options.batch * options.seq / statistics.median(times)
    weights = 12 * options.layers * options.hidden**2 + options.vocab * options.hidden
    operations = 6 * weights + 12 * options.layers * options.seq * options.hidden
    print(
        json.dumps(
            {
                "tokens_per_second": rate,
                "flops": rate * operations,
                "peak_bytes": torch.cuda.max_memory_allocated(),
                "torch": torch.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
