"""The tokens of bench/decode.ts by llama.cpp (2 threads), for bench/against.ts: says `ready`, then makes 64 tokens after a
prompt of 32 for each line of standard input and answers with the milliseconds of the tokens.

python bench/llama_decode.py MODEL.gguf        (needs llama-cpp-python and numpy; no network)"""
import sys
import time

import llama_cpp
import numpy as np

defaults = llama_cpp.llama_cpp.llama_model_default_params


def parameters():
    params = defaults()
    params.use_extra_bufts = False  # repacked buffers need instructions that virtual machines may not have
    return params


llama_cpp.llama_cpp.llama_model_default_params = parameters
model = llama_cpp.Llama(sys.argv[1], n_ctx=512, n_threads=2, n_threads_batch=2, verbose=False)
prompt = [1 + (i * 37) % 40000 for i in range(32)]


def best():
    logits = llama_cpp.llama_get_logits_ith(model._ctx.ctx, -1)
    return int(np.argmax(np.ctypeslib.as_array(logits, shape=(model.n_vocab(),))))


def timed():
    model.reset()
    model.eval(prompt)
    token = best()
    began = time.perf_counter()
    for _ in range(64):
        batch = llama_cpp.llama_batch_get_one((llama_cpp.llama_token * 1)(token), 1)
        llama_cpp.llama_decode(model._ctx.ctx, batch)
        token = best()
    return (time.perf_counter() - began) * 1e3


timed()
print("ready", flush=True)
for _ in sys.stdin:
    print(timed(), flush=True)
