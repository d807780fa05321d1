"""Logits of real llama.cpp. Reads {model, lora?, prompts: [[id, ...]], out} as JSON from standard input; writes the
logits of every place of every prompt to `out`, float32 one after the other. With `greedy`, writes instead the ids that
follow each prompt, as JSON to standard output: {maxNewTokens, stopIds}."""

import ctypes
import json
import sys

import llama_cpp
import numpy as np

LLAMA_ERROR = 4


def fail(message):
    sys.exit(f"llama.cpp: {message}")


def quiet(level, text, _):
    if level >= LLAMA_ERROR:
        sys.stderr.write(text.decode(errors="replace"))


def open_context(model_path, lora_path, context):
    params = llama_cpp.llama_model_default_params()
    params.use_mmap = True
    model = llama_cpp.llama_model_load_from_file(model_path.encode(), params)
    if not model:
        fail(f"{model_path} can't be loaded")
    context_params = llama_cpp.llama_context_default_params()
    context_params.n_ctx = context
    context_params.n_batch = context
    context_params.n_ubatch = context
    context_params.n_threads = 1  # waiting threads spin: on a busy machine one is faster
    context_params.n_threads_batch = 1
    context_params.type_k = 0  # F32: the cache is not rounded
    context_params.type_v = 0
    context_params.flash_attn_type = 0
    made = llama_cpp.llama_init_from_model(model, context_params)
    if not made:
        fail(f"no context for {model_path}")
    if lora_path is not None:
        adapter = llama_cpp.llama_adapter_lora_init(model, lora_path.encode())
        if not adapter:
            fail(f"{lora_path} is refused as an adapter of {model_path}")
        adapters = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(adapter)
        scales = (ctypes.c_float * 1)(1.0)
        if llama_cpp.llama_set_adapters_lora(made, adapters, 1, scales) != 0:
            fail(f"{lora_path} can't be set")
    vocab = llama_cpp.llama_model_get_vocab(model)
    return made, llama_cpp.llama_vocab_n_tokens(vocab)


def decode(context, vocab, ids, first, every):
    """Logits [len(ids), vocab], or [1, vocab] of the last place."""
    batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for i, token in enumerate(ids):
        batch.token[i] = token
        batch.pos[i] = first + i
        batch.n_seq_id[i] = 1
        batch.seq_id[i][0] = 0
        batch.logits[i] = every or i == len(ids) - 1
    if llama_cpp.llama_decode(context, batch) != 0:
        fail("a batch can't be decoded")
    places = range(len(ids)) if every else [len(ids) - 1]
    rows = [np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, i), shape=(vocab,)).copy() for i in places]
    llama_cpp.llama_batch_free(batch)
    return np.stack(rows)


def main():
    job = json.load(sys.stdin)
    logger = llama_cpp.llama_log_callback(quiet)
    llama_cpp.llama_log_set(logger, ctypes.c_void_p(0))
    greedy = job.get("greedy")
    longest = max(len(p) for p in job["prompts"]) + (greedy["maxNewTokens"] if greedy else 0)
    context, vocab = open_context(job["model"], job.get("lora"), max(32, longest))
    memory = llama_cpp.llama_get_memory(context)
    if greedy:
        answers = []
        for ids in job["prompts"]:
            llama_cpp.llama_memory_clear(memory, True)
            made, place, step = [], 0, list(ids)
            while len(made) < greedy["maxNewTokens"]:
                token = int(decode(context, vocab, step, place, False)[-1].argmax())
                if token in greedy["stopIds"]:
                    break
                made.append(token)
                place += len(step)
                step = [token]
            answers.append(made)
        json.dump(answers, sys.stdout)
        return
    with open(job["out"], "wb") as out:
        for ids in job["prompts"]:
            llama_cpp.llama_memory_clear(memory, True)
            out.write(decode(context, vocab, ids, 0, True).astype(np.float32).tobytes())


main()
