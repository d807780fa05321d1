"""The step of bench/training_step.ts in PyTorch + PEFT (f32 with TF32 off, eager; 2 threads on a CPU): says `ready`, then answers
each line of standard input with the milliseconds of a step. A number on the line is that of steps that share one wait.

python bench/torch_step.py gpt2-small|gpt2-tiny|smollm2 [full] [cuda]        (needs torch, transformers, peft; no network)"""
import resource
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from torch_device import open_device, wait
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

device = open_device("cuda" if "cuda" in sys.argv else "cpu")


def gpt2(vocab, width, layers, heads):
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocab, n_positions=1024, n_embd=width, n_layer=layers, n_head=heads,
                                      resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0))


def smollm2():
    return LlamaForCausalLM(LlamaConfig(vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
                                        num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True,
                                        max_position_embeddings=2048,
                                        rope_parameters={"rope_type": "default", "rope_theta": 100000.0}))


MODELS = {
    "gpt2-small": (lambda: gpt2(50257, 768, 12, 12), ["c_attn"], 50257, (4, 128)),
    "gpt2-tiny": (lambda: gpt2(4096, 256, 4, 4), ["c_attn"], 4096, (8, 128)),
    "smollm2": (smollm2, ["q_proj", "v_proj"], 49152, (2, 128)),
}
make, targets, vocab, shape = MODELS[sys.argv[1]]
model = make()
if "full" not in sys.argv:
    model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=targets,
                                             fan_in_fan_out="c_attn" in targets, task_type="CAUSAL_LM"))
model.train().to(device)
trainable = [p for p in model.parameters() if p.requires_grad]
optimiser = torch.optim.AdamW(trainable, lr=2e-4)
ids = torch.randint(0, vocab, shape, device=device)


def step():
    optimiser.zero_grad(set_to_none=True)
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trainable, 1.0)
    optimiser.step()
    return loss


print("ready", flush=True)
for line in sys.stdin:
    steps = int(line.strip() or 1)
    wait(device)
    began = time.perf_counter()
    for _ in range(steps):
        loss = step()
    loss.item()
    wait(device)
    print((time.perf_counter() - began) * 1000 / steps, flush=True)
print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6:.0f} MB", file=sys.stderr)
