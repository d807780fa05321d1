"""Logits of mlx-lm with an adapter. Reads a list of {model, adapter, ids, out} as JSON from standard input and writes each
one's logits to its `out` as float32."""

import json
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import load_model

for job in json.load(sys.stdin):
    place = Path(job["model"])
    # mlx-lm knows the older spelling of the rotary embedding's base alone.
    rope = json.loads((place / "config.json").read_text())["rope_parameters"]
    model, _ = load_model(place, model_config={"rope_theta": rope["rope_theta"]})
    model = load_adapters(model, job["adapter"])
    model.eval()
    logits = model(mx.array([job["ids"]])).astype(mx.float32)
    np.array(logits).astype(np.float32).tofile(job["out"])
