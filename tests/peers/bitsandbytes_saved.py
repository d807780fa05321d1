"""Models that transformers saves after bitsandbytes packed them. Reads {folder, ids, kinds: {name: options}} as JSON from
standard input; writes each model to folder/name and its float32 logits beside it. The weights are dequantised for those:
bitsandbytes' own product on a CPU rounds to bfloat16."""

import json
import sys

import bitsandbytes.functional as functional
import numpy as np
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

job = json.load(sys.stdin)
torch.manual_seed(0)
plain = f"{job['folder']}/plain"
LlamaForCausalLM(LlamaConfig(
    vocab_size=257, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, initializer_range=0.2, tie_word_embeddings=True)).save_pretrained(plain)
for name, options in job["kinds"].items():
    packing = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32, **options)
    model = AutoModelForCausalLM.from_pretrained(
        plain, dtype=torch.float32, attn_implementation="eager", quantization_config=packing, device_map="cpu")
    model.save_pretrained(f"{job['folder']}/{name}")
    for module in list(model.modules()):
        for child_name, child in list(module.named_children()):
            if type(child).__name__ == "Linear4bit":
                linear = torch.nn.Linear(child.in_features, child.out_features, bias=False)
                linear.weight.data = functional.dequantize_4bit(child.weight.data, child.weight.quant_state).float()
                setattr(module, child_name, linear)
    with torch.no_grad():
        logits = model(torch.tensor([job["ids"]])).logits
    logits.numpy().astype(np.float32).tofile(f"{job['folder']}/{name}.logits")
