"""Logits of transformers, with an adapter by real PEFT where one is named. Reads a list of {model, adapter?, kind, inputs,
text?, out} as JSON from standard input (kind: causal or classifier; inputs: lists by name) and writes each one's logits to
its `out` as float32. Prints what PEFT warned of, by `out`, as JSON."""

import json
import sys
import warnings

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

CLASSES = {"causal": AutoModelForCausalLM, "classifier": AutoModelForSequenceClassification}


def main():
    torch.set_num_threads(2)
    heard = {}
    for job in json.load(sys.stdin):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            kind = CLASSES[job["kind"]]
            model = kind.from_pretrained(job["model"], dtype=torch.float32, attn_implementation="eager")
            if job.get("adapter"):
                model = PeftModel.from_pretrained(model, job["adapter"])
            model.eval()
        if "text" in job:
            ids = AutoTokenizer.from_pretrained(job["model"])(job["text"])["input_ids"]
            assert [ids] == job["inputs"]["input_ids"], f"{job['text']!r} is {ids} to transformers"
        with torch.no_grad():
            inputs = {name: torch.tensor(values) for name, values in job["inputs"].items()}
            logits = model(**inputs).logits
        logits.to(torch.float32).numpy().astype(np.float32).tofile(job["out"])
        # PEFT advises against adapters on one use of a tied weight; what the file lacks or has too much is what counts.
        told = [str(w.message) for w in caught if "ensure_weight_tying" not in str(w.message)]
        heard[job["out"]] = [text for text in told if "adapter" in text or "missing" in text]
    json.dump(heard, sys.stdout)


main()
