"""Logits of mlx-lm with an adapter. Reads a list of {model, adapter, ids, out} as JSON from standard input and writes each
one's logits to its `out` as float32."""

import json
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import load_model



def read_base(place):
    """The model. mlx-lm knows older spellings of the rotary embedding alone, and GPT-2's weights as its hub repository has
    them, without the name of transformers' class in front."""
    config = json.loads((place / "config.json").read_text())
    if config["model_type"] == "gpt2":
        with tempfile.TemporaryDirectory() as folder:
            weights = mx.load(str(place / "model.safetensors"))
            mx.save_safetensors(f"{folder}/model.safetensors", {
                name.removeprefix("transformer."): weight for name, weight in weights.items() if name != "lm_head.weight"})
            (Path(folder) / "config.json").write_text(json.dumps({**config, "n_ctx": config["n_positions"]}))
            return load_model(Path(folder))[0]
    rope = config["rope_parameters"]
    scaling = None if rope["rope_type"] == "default" else rope
    return load_model(place, model_config={"rope_theta": rope["rope_theta"], "rope_scaling": scaling})[0]


for job in json.load(sys.stdin):
    model = load_adapters(read_base(Path(job["model"])), job["adapter"])
    model.eval()
    logits = model(mx.array([job["ids"]])).astype(mx.float32)
    np.array(logits).astype(np.float32).tofile(job["out"])
