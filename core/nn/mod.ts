/** Building blocks of networks: each a composite with a kernel of its own, or a short function of primitives. */
export * from "./activation.ts";
export * from "./attention.ts";
export * from "./loss.ts";
export * from "./norm.ts";
export * from "./rope.ts";
export * from "./softmax.ts";
