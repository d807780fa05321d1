#!/usr/bin/env python3
"""Golden cases of options of LoRA on the tiny GPT-2 of cases/gpt2-base, in the layout of the others, by torch and peft.

    python make_variants.py CASES_DIR
"""
import copy, os, sys

from make_more import TOLERANCE, dump, folder, noise, run_all, save, tidy, versions  # first: it fixes the hash seed

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import GPT2LMHeadModel

BASE = "gpt2-base/model"
COMMON = dict(lora_dropout=0.0, task_type="CAUSAL_LM", fan_in_fan_out=True)


def batches(vocab, seed):
    g = torch.Generator().manual_seed(seed)
    a = torch.randint(1, vocab, (2, 16), generator=g)
    b = torch.randint(1, vocab, (3, 12), generator=g)
    mask = (torch.arange(12)[None] < torch.tensor([12, 7, 9])[:, None]).long()
    b = b * mask
    return {"a": dict(input_ids=a, labels=a.clone()),
            "b": dict(input_ids=b, attention_mask=mask, labels=torch.where(mask.bool(), b, -100))}


def plain_name(name):
    """A parameter's key as it is saved."""
    return name.replace(".default", "").replace(".modules_to_save", "").replace("lora_magnitude_vector.weight", "lora_magnitude_vector")


def randomise(model, seed):
    """Every trained tensor moved away from where it starts."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.requires_grad:
                moved = noise(g, p.shape, 0.1)
                p.copy_(p * (1 + moved) if "magnitude" in name else p + moved)


def adapter_case(root, case, what, seed, base, config, data):
    path = folder(root, case)
    model = copy.deepcopy(base)
    model.name_or_path = BASE
    torch.manual_seed(seed)
    tuned = get_peft_model(model, config).eval()
    randomise(tuned, seed + 1)
    tuned.save_pretrained(f"{path}/adapter")
    tidy(path)
    io, grads, losses, dev = run_all(tuned, data, hidden=False)
    merged = copy.deepcopy(tuned).merge_and_unload().eval()
    with torch.no_grad():
        io["a.merged_logits"] = merged(**data["a"]).logits
    before, after = base.state_dict(), merged.state_dict()
    changed = {k: v for k, v in after.items() if k != "lm_head.weight" and not torch.equal(before[k], v)}
    save(f"{path}/merged.safetensors", changed)
    save(f"{path}/io.safetensors", io)
    save(f"{path}/grads.safetensors", {plain_name(k): v for k, v in grads.items()})
    trainable, total = tuned.get_nb_trainable_parameters()
    scaling = sorted({(n, float(v)) for n, mod in tuned.named_modules()
                      if isinstance(getattr(mod, "scaling", None), dict) for v in mod.scaling.values()})
    dump({"id": case, "what": what, "seed": seed, "precision": "float32 (CPU)", "losses": losses, "f32_vs_f64": dev,
          "tolerance": TOLERANCE, "base": BASE, "trainable_params": trainable, "all_params": total, "scaling": scaling,
          "versions": versions()}, f"{path}/case.json")


def linear_case(root, case, what, seed, base, data, weights):
    """Two adapters of one rank, and their weighted combination `linear`."""
    path = folder(root, case)
    model = copy.deepcopy(base)
    model.name_or_path = BASE
    torch.manual_seed(seed)
    make = lambda alpha, rslora: LoraConfig(r=4, lora_alpha=alpha, target_modules=["c_attn", "wte"], use_rslora=rslora, **COMMON)
    tuned = get_peft_model(model, make(8, False), adapter_name="one").eval()
    tuned.add_adapter("two", make(3, True))
    g = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, p in tuned.named_parameters():
            if "lora_" in name:
                p.copy_(noise(g, p.shape, 0.1))
    io = dict(data["a"])
    io = {f"a.{k}": v for k, v in io.items()}
    with torch.no_grad():
        for name in ("one", "two"):
            tuned.set_adapter(name)
            io[f"{name}.a.logits"] = tuned(**data["a"]).logits
        tuned.base_model.set_adapter(["one", "two"])
        io["both_active.a.logits"] = tuned(**data["a"]).logits
        tuned.add_weighted_adapter(["one", "two"], weights, "linear", combination_type="linear")
        tuned.set_adapter("linear")
        io["linear.a.logits"] = tuned(**data["a"]).logits
    tuned.save_pretrained(f"{path}/adapters", selected_adapters=["one", "two", "linear"])
    tidy(path)
    save(f"{path}/io.safetensors", io)
    dump({"id": case, "what": what, "seed": seed, "precision": "float32 (CPU)", "tolerance": TOLERANCE, "base": BASE,
          "weights": weights, "versions": versions()}, f"{path}/case.json")


def main(root):
    base = GPT2LMHeadModel.from_pretrained(f"{root}/{BASE}", attn_implementation="eager").eval()
    data = batches(257, 31)
    # Rows that are trained must occur.
    data["a"]["input_ids"][0, :4] = torch.tensor([5, 11, 5, 200])
    data["a"]["labels"] = data["a"]["input_ids"].clone()
    lora = lambda **options: LoraConfig(r=4, lora_alpha=8, **COMMON, **options)
    adapter_case(root, "gpt2-lora-tokens", "trainable_token_indices=[5, 200, 11]: three rows of wte, and of the tied head", 4010,
                 base, lora(target_modules=["c_attn"], trainable_token_indices=[5, 200, 11]), data)
    adapter_case(root, "gpt2-lora-dora-embedding", "DoRA on the embedding wte and on c_attn", 4020,
                 base, lora(target_modules=["wte", "c_attn"], use_dora=True), data)
    adapter_case(root, "gpt2-lora-bias-all", "bias='all': every bias of the model trains, those of norms too", 4030,
                 base, lora(target_modules=["c_attn"], bias="all"), data)
    adapter_case(root, "gpt2-lora-exclude", "exclude_modules and layers_to_transform with two layer names", 4040,
                 base, lora(target_modules=["c_attn", "c_proj"], exclude_modules=r".*h\.0\.mlp.*", layers_to_transform=[0],
                            layers_pattern=["blocks", "h"]), data)
    linear_case(root, "gpt2-lora-linear", "two adapters of one rank, one with rsLoRA, and the weighted combination 'linear'", 4050,
                base, data, [0.7, -0.4])


if __name__ == "__main__":
    main(os.path.abspath(sys.argv[1]))
