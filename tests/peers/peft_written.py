"""Adapters that real PEFT writes. Reads a list of {model, method?, options, adapter, ids, out} as JSON from standard input:
each adapter, with random values, is saved to its folder `adapter`, read again, and its logits written to `out` as float32."""

import json
import sys

import numpy as np
import peft
import torch
from transformers import AutoModelForCausalLM


def main():
    torch.set_num_threads(2)
    for job in json.load(sys.stdin):
        torch.manual_seed(3)
        base = lambda: AutoModelForCausalLM.from_pretrained(
            job["model"], dtype=torch.float32, attn_implementation="eager")
        config = getattr(peft, job.get("method", "LoraConfig"))
        made = peft.get_peft_model(base(), config(task_type="CAUSAL_LM", **job["options"]))
        with torch.no_grad():
            for p in made.parameters():
                if p.requires_grad:
                    p.add_(torch.randn_like(p) * 0.2)
            made.save_pretrained(job["adapter"])
            again = peft.PeftModel.from_pretrained(base(), job["adapter"]).eval()
            logits = again(input_ids=torch.tensor([job["ids"]])).logits
        logits.numpy().astype(np.float32).tofile(job["out"])


main()
