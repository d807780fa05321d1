/** Ways for A and B to start, as PEFT's init_lora_weights names them. */
export interface NamedStart {
  readonly name: string;
  readonly label: string;
  readonly pattern: RegExp;
  /** Whether it puts other weights in the place of the base's, so that the adapter belongs to those. */
  readonly changesBase: boolean;
  /** Whether `lora` computes it, which is waited for. */
  readonly waited?: true;
}

export const starts: readonly NamedStart[] = [
  { name: "pissa", label: "PiSSA", pattern: /^pissa(_niter_\d+)?$/, changesBase: true },
  { name: "olora", label: "OLoRA", pattern: /^olora$/i, changesBase: true, waited: true },
  { name: "corda", label: "CorDA", pattern: /^corda/, changesBase: true, waited: true },
  { name: "lora_ga", label: "LoRA-GA", pattern: /^lora_ga$/, changesBase: true },
  { name: "loftq", label: "LoftQ", pattern: /^loftq$/, changesBase: true },
  { name: "eva", label: "EVA", pattern: /^eva$/i, changesBase: false, waited: true },
  { name: "orthogonal", label: "orthogonal starts", pattern: /^orthogonal$/i, changesBase: false },
  { name: "mica", label: "MiCA", pattern: /^mica$/i, changesBase: false },
];

/** The way that a name means, where it is none of LoRA's own. */
export function startNamed(name: unknown): NamedStart | undefined {
  return typeof name === "string" ? starts.find(({ pattern }) => pattern.test(name)) : undefined;
}
