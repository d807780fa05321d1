export * from "./bert.ts";
export * from "./classifier.ts";
export * from "./generate.ts";
export * from "./gpt2.ts";
export * from "./language_model.ts";
export * from "./llama.ts";
export * from "./load_model.ts";
export * from "./loader.ts";
