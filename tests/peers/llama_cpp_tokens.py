"""Ids of real llama.cpp. Reads {models: [path, ...], texts: [text, ...]} as JSON from standard input; writes, for every
model, the ids of every text, or null where llama.cpp refuses the file. Special tokens in a text count as such, and those
that the model puts around a text are there."""

import ctypes
import json
import sys

import llama_cpp


def ids_of(vocab, text):
    data = text.encode()
    room = len(data) + 16
    out = (llama_cpp.llama_token * room)()
    count = llama_cpp.llama_tokenize(vocab, data, len(data), out, room, True, True)
    if count < 0:
        sys.exit(f"llama.cpp: {-count} ids do not fit")
    return list(out[:count])


def main():
    job = json.load(sys.stdin)
    logger = llama_cpp.llama_log_callback(lambda level, text, _: None)
    llama_cpp.llama_log_set(logger, ctypes.c_void_p(0))
    answers = []
    for path in job["models"]:
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        model = llama_cpp.llama_model_load_from_file(path.encode(), params)
        if not model:
            answers.append(None)
            continue
        vocab = llama_cpp.llama_model_get_vocab(model)
        answers.append([ids_of(vocab, text) for text in job["texts"]])
        llama_cpp.llama_model_free(model)
    json.dump(answers, sys.stdout)


main()
