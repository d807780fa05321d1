"""The tokens of bench/decode.ts by PyTorch + transformers (f32, eager, 2 threads) on random weights of SmolLM2-135M's sizes,
for bench/against.ts: says `ready`, then makes 64 tokens after a prompt of 32 for each line of standard input and answers with
the milliseconds of the tokens.

python bench/torch_decode.py        (needs torch, transformers; no network)"""
import sys
import time

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

torch.set_num_threads(2)
model = LlamaForCausalLM(LlamaConfig(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
                                     num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True,
                                     max_position_embeddings=2048,
                                     rope_parameters={"rope_type": "default", "rope_theta": 100000.0})).eval()
prompt = torch.tensor([[1 + (i * 37) % 40000 for i in range(32)]])


@torch.no_grad()
def timed():
    cache = DynamicCache()
    out = model(input_ids=prompt, past_key_values=cache, use_cache=True, logits_to_keep=1)
    token = out.logits[:, -1].argmax(-1, keepdim=True)
    began = time.perf_counter()
    for _ in range(64):
        out = model(input_ids=token, past_key_values=cache, use_cache=True)
        token = out.logits[:, -1].argmax(-1, keepdim=True)
    return (time.perf_counter() - began) * 1e3


timed()
print("ready", flush=True)
for _ in sys.stdin:
    print(timed(), flush=True)
