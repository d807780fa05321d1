"""The products of bench/gpu.ts in PyTorch, f32, eager: says `ready`; answers each line `PART M K N R CALLS` with the milliseconds of
one of so many calls that share a wait. PART is product (x·W), forward (x·W + 2·(x·A)·B) or both (that, and the gradients of x, A, B).

python bench/torch_products.py cpu|cuda"""
import sys
import time
from functools import lru_cache

import torch
from torch_device import open_device, wait

device = open_device(sys.argv[1])


@lru_cache(1)
def operands(m, k, n, r):
    def random(*shape):
        return torch.randn(*shape, device=device)

    return random(m, k), random(k, n), random(k, r), random(r, n), random(m, n)


def run(part, x, w, a, b, ct):
    if part == "product":
        return x @ w
    if part == "forward":
        return x @ w + 2 * (x @ a) @ b
    leaves = [t.detach().requires_grad_() for t in (x, a, b)]
    x, a, b = leaves
    return torch.autograd.grad(x @ w + 2 * (x @ a) @ b, leaves, ct)


print("ready", flush=True)
for line in sys.stdin:
    part, *numbers = line.split()
    *shape, calls = map(int, numbers)
    values = operands(*shape)
    with torch.set_grad_enabled(part == "both"):
        run(part, *values)
        wait(device)
        began = time.perf_counter()
        for _ in range(calls):
            run(part, *values)
        wait(device)
    print((time.perf_counter() - began) * 1000 / calls, flush=True)
