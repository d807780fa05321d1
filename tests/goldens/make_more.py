#!/usr/bin/env python3
"""More golden cases, in the layout of the others (see cases/README.md): the architectures that are computed as a Llama is,
tiny and random, by torch, transformers and peft on the CPU in float32 with fixed seeds.

    python make_more.py OUT_DIR [--only CASE_PREFIX ...]
"""
import argparse, copy, importlib.metadata, json, os, platform, re, shutil, sys, warnings

if os.environ.get("PYTHONHASHSEED") != "0":  # peft keeps target_modules in a set: fix its order
    os.environ["PYTHONHASHSEED"] = "0"
    os.execv(sys.executable, [sys.executable] + sys.argv)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore")

import gguf
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config,
                          Qwen3ForCausalLM)

transformers.logging.set_verbosity_error()
torch.set_num_threads(1)

TOLERANCE = ("Compare per tensor: max|a-b| <= rtol * max|ref| + 1e-7 (the last term for gradients that are zero in theory). "
             "rtol 1e-4 is comfortable for float32 (gradients and long traces 5e-4); 'f32_vs_f64' gives, per quantity, how far "
             "this float32 run itself is from the same computation in float64, as max|a-b|/max|ref|.")


def versions():
    packages = ("torch", "transformers", "peft", "safetensors", "gguf")
    return {"python": platform.python_version(), **{p: importlib.metadata.version(p) for p in packages}}


def dump(obj, path):
    """JSON with short lists of scalars kept on one line."""
    text = json.dumps(obj, indent=1, ensure_ascii=False, allow_nan=False)
    scalar = r'(?:-?[0-9][0-9.eE+-]*|true|false|null|"(?:[^"\\]|\\.)*")'
    text = re.sub(r"\[\s*((?:%s,\s*)*%s)\s*\]" % (scalar, scalar), lambda m: "[" + re.sub(r",\s*\n\s*", ", ", m.group(1)) + "]", text)
    with open(path, "w") as f:
        f.write(text + "\n")


def save(path, tensors):
    as_stored = lambda t: t.detach().to(torch.int32 if t.dtype == torch.int64 else t.dtype).contiguous().clone()
    save_file({k: as_stored(v) for k, v in tensors.items()}, path, metadata={"format": "pt"})


def noise(generator, shape, std):
    return torch.randn(*shape, generator=generator) * std


def randomise(model, seed, std=0.1):
    """Norms about 1, embeddings wider than the rest: so that attention is sharp and every weight matters."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.copy_(1 + noise(g, p.shape, std))
            else:
                p.copy_(noise(g, p.shape, (4 if "embed" in name else 2 if "q_proj" in name or "k_proj" in name else 1) * std))
    return model.eval()


def batches(vocab, seed, length=24):
    """a: two rows whose labels are their ids; b: three rows padded at the right, by less than any window: no token sees none."""
    g = torch.Generator().manual_seed(seed)
    a = torch.randint(1, vocab, (2, length), generator=g)
    b = torch.randint(1, vocab, (3, 14), generator=g)
    mask = (torch.arange(14)[None] < torch.tensor([14, 11, 12])[:, None]).long()
    b = b * mask
    return {"a": dict(input_ids=a, labels=a.clone()),
            "b": dict(input_ids=b, attention_mask=mask, labels=torch.where(mask.bool(), b, -100))}


def apart(x, y):
    x, y = x.detach().double(), y.detach().double()
    return float((x - y).abs().max() / y.abs().max().clamp(min=1e-30))


def in_f64(model):
    model = copy.deepcopy(model).double()
    for module in model.modules():  # these norms compute in float32 whatever they are given
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = lambda x, m=module: m.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + m.variance_epsilon))
    return model


def run(model, batch, hidden=False):
    model.zero_grad(set_to_none=True)
    out = model(**batch, output_hidden_states=hidden)
    out.loss.backward()
    return out, {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad and p.grad is not None}


def run_all(model, data, hidden):
    """Inputs, logits and losses of both batches, gradients (and hidden states) of a, and how far all that is from float64."""
    io, losses, dev = {}, {}, {}
    exact = in_f64(model)
    for name, batch in data.items():
        out, found = run(model, batch, hidden and name == "a")
        out64, found64 = run(exact, batch)
        io.update({f"{name}.{k}": v for k, v in batch.items()})
        io[f"{name}.logits"] = out.logits
        losses[name] = out.loss.item()
        dev[f"{name}.logits"] = apart(out.logits, out64.logits)
        if name == "a":
            grads = found
            io.update({f"a.hidden_states.{i}": h for i, h in enumerate(out.hidden_states or [])})
            dev["a.grads"] = max(apart(found[k], found64[k]) for k in found if found64[k].abs().max() > 1e-9)
    return io, grads, losses, dev


def folder(root, case):
    print("==", case, flush=True)
    path = os.path.join(root, case)
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path


def tidy(path):
    """Model cards are left out."""
    for at, _, files in os.walk(path):
        for name in files:
            if name == "README.md":
                os.remove(os.path.join(at, name))


def write_gguf(path, model, arch):
    """The weights in float32 under the names that the gguf library gives them. Rows of q and k stay as they are: only
    models of the architecture llama have theirs put into another order."""
    config = model.config
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    w = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    w.add_context_length(config.max_position_embeddings)
    w.add_embedding_length(config.hidden_size)
    w.add_block_count(config.num_hidden_layers)
    w.add_feed_forward_length(config.intermediate_size)
    w.add_head_count(config.num_attention_heads)
    w.add_head_count_kv(config.num_key_value_heads)
    if getattr(config, "head_dim", None):
        w.add_key_length(config.head_dim)
        w.add_value_length(config.head_dim)
    w.add_rope_freq_base(config.rope_parameters["rope_theta"])
    w.add_layer_norm_rms_eps(config.rms_norm_eps)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        w.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), tensor.numpy())
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def without_windows(model):
    """The same weights where every token sees all before it: GGUF files of this architecture say nothing of windows."""
    config = copy.deepcopy(model.config)
    config.use_sliding_window, config.sliding_window = False, None
    config.layer_types = ["full_attention"] * config.num_hidden_layers
    plain = type(model)(config).eval()
    plain.load_state_dict(model.state_dict())
    return plain


def base_case(root, case, what, seed, model, data, arch=None):
    path = folder(root, case)
    model.save_pretrained(f"{path}/model")
    tidy(path)
    io, grads, losses, dev = run_all(model, data, hidden=True)
    prompt = data["a"]["input_ids"][:, :8]
    ids, gap = prompt, float("inf")
    with torch.no_grad():
        for _ in range(12):
            best = model(input_ids=ids).logits[:, -1].topk(2, dim=-1)
            gap = min(gap, (best.values[:, 0] - best.values[:, 1]).min().item())
            ids = torch.cat([ids, best.indices[:, :1]], dim=1)
    io.update({"greedy.prompt": prompt, "greedy.ids": ids})
    if arch is not None:
        write_gguf(f"{path}/model.gguf", model, arch)
        with torch.no_grad():
            io["gguf.a.logits"] = without_windows(model)(input_ids=data["a"]["input_ids"]).logits
    save(f"{path}/io.safetensors", io)
    save(f"{path}/grads.safetensors", grads)
    dump({"id": case, "what": what, "seed": seed, "precision": "float32 (CPU)", "losses": losses, "greedy_min_top2_gap": gap,
          "f32_vs_f64": dev, "tolerance": TOLERANCE, "n_params": sum(p.numel() for p in model.parameters()),
          "loss_definition": "mean cross-entropy of logits[:, :-1] against labels[:, 1:], over labels != -100",
          "versions": versions()}, f"{path}/case.json")


def lora_case(root, case, what, seed, base, base_path, config, data):
    path = folder(root, case)
    model = copy.deepcopy(base)
    model.name_or_path = base_path
    tuned = get_peft_model(model, config)
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in tuned.parameters():
            if p.requires_grad:
                p.copy_(noise(g, p.shape, 0.1))
    tuned.eval().save_pretrained(f"{path}/adapter")
    tidy(path)
    io, grads, losses, dev = run_all(tuned, data, hidden=False)
    merged = copy.deepcopy(tuned).merge_and_unload().eval()
    with torch.no_grad():
        io["a.merged_logits"] = merged(**data["a"]).logits
        again = PeftModel.from_pretrained(copy.deepcopy(base), f"{path}/adapter").eval()
        assert torch.equal(again(**data["a"]).logits, io["a.logits"])
    own = base.state_dict()
    save(f"{path}/merged.safetensors", {k: v for k, v in merged.state_dict().items() if not torch.equal(own[k], v)})
    save(f"{path}/io.safetensors", io)
    save(f"{path}/grads.safetensors", {k.replace(".default", ""): v for k, v in grads.items()})
    trainable, total = tuned.get_nb_trainable_parameters()
    scaling = sorted({(n, float(v)) for n, m in tuned.named_modules() if isinstance(getattr(m, "scaling", None), dict)
                      for v in m.scaling.values()})
    dump({"id": case, "what": what, "seed": seed, "precision": "float32 (CPU)", "losses": losses, "f32_vs_f64": dev,
          "tolerance": TOLERANCE, "base": base_path, "trainable_params": trainable, "all_params": total, "scaling": scaling,
          "adapter_keys": {k: list(v.shape) for k, v in load_file(f"{path}/adapter/adapter_model.safetensors").items()},
          "versions": versions()}, f"{path}/case.json")


def public(root, wanted):
    # Widths are chosen so that all matrices are of three shapes: kernels are compiled by shape, and tests are quicker so.
    common = dict(vocab_size=90, hidden_size=32, intermediate_size=64, num_attention_heads=4,
                  max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=None, attention_dropout=0.0)
    every = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    rows = [
        ("mistral", MistralConfig, MistralForCausalLM, 6001,
         dict(num_hidden_layers=2, num_key_value_heads=4, sliding_window=5, rope_theta=1e4, rope_scaling={"rope_type": "linear", "factor": 4.0}),
         "tiny Mistral: a window of 5 tokens, shorter than the rows, and linear rope scaling by 4", None),
        ("qwen2", Qwen2Config, Qwen2ForCausalLM, 6101,
         dict(num_hidden_layers=3, num_key_value_heads=4, use_sliding_window=True, sliding_window=6, max_window_layers=1, rope_theta=1e6, tie_word_embeddings=True),
         "tiny Qwen2: biases of q, k and v, tied head, a window of 6 tokens from layer 1 on", gguf.MODEL_ARCH.QWEN2),
        ("qwen3", Qwen3Config, Qwen3ForCausalLM, 6201,
         dict(num_hidden_layers=2, num_key_value_heads=2, head_dim=16, rope_theta=1e6),
         "tiny Qwen3: queries and keys normed head by head, heads of 16 where width / heads is 8", gguf.MODEL_ARCH.QWEN3),
    ]
    for name, config_class, model_class, seed, keys, what, arch in rows:
        config = config_class(**common, **keys)
        config._attn_implementation = "eager"
        model = randomise(model_class(config), seed)
        data = batches(90, seed + 1)
        if wanted(f"{name}-base"):
            base_case(root, f"{name}-base", what, seed, model, data, arch)
        if wanted(f"{name}-lora"):
            lora = LoraConfig(r=4, lora_alpha=8, target_modules=every, lora_dropout=0.0, task_type="CAUSAL_LM")
            lora_case(root, f"{name}-lora", f"LoRA on all seven linear layers of the {what}", seed + 2, model, f"{name}-base/model", lora, data)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--only", nargs="*", default=[])
    args = parser.parse_args()
    public(args.out, lambda case: not args.only or any(case.startswith(prefix) for prefix in args.only))
