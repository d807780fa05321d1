/** Writes docs/operations.md: every primitive of the registry, its rules, and shapes from the cases that the laws run. */
import { formatAval } from "../core/aval.ts";
import { bind, newInput, type Primitive } from "../core/ir/graph.ts";
import { bodyPrimitives, leafPrimitives, operations } from "../core/registry.ts";
import { primitiveCases } from "../tests/laws/primitive_cases.ts";

/** How each kind of lowering runs; both devices have every kind. */
const kernelOf: Readonly<Record<Primitive["lowering"]["kind"], string>> = {
  leaf: "none: it is data",
  constant: "written into the kernel",
  scalar: "fused",
  iota: "fused: a counter",
  random: "fused: threefry bits",
  view: "none: a window",
  alias: "none",
  concat: "map",
  pad: "map",
  reduce: "row",
  contract: "contract",
  gather: "fused: an index",
  scatter: "scatter",
  dynamicSlice: "fused: an index",
  dynamicUpdate: "map, in place where it can",
  row: "row",
  rounded: "by the product that reads it, else by its definition",
  attention: "attention",
  expand: "by its definition",
};

/** The page. */
export function operationsPage(): string {
  return `# Every operation

The primitives, as the registry has them (\`core/registry.ts\`); all else is made of these. The laws in \`tests/laws\`
run each one's rules against a float64 oracle, on the processor and on WebGPU, with the shapes shown here. Broadcasting
is explicit: an operand that is a number takes the other's shape. This page is written by \`deno task docs:operations\`.

| operation | shapes | gradient | \`vmap\` | kernel |
| --- | --- | --- | --- | --- |
${[...operations].map(row).join("\n")}

Leaves: ${names(leafPrimitives)}. With a traced body: ${names(bodyPrimitives)}.
`;
}

const names = (prims: readonly Primitive[]) => prims.map(({ name }) => `\`${name}\``).join(", ");

function row(prim: Primitive): string {
  const [{ inputs, params, unmapped }] = primitiveCases[prim.name];
  const outputs = bind(prim, inputs.map((spec) => newInput({ shape: spec.shape, dtype: spec.dtype })), params);
  const said = params === null ? "" : ` ${JSON.stringify(params).replaceAll('"', "").slice(1, -1)}`;
  const shapes = `${inputs.map(formatAval).join(", ")}${said} → ${outputs.map((v) => formatAval(v.aval)).join(", ")}`;
  const gradient = prim.vjp === "nondifferentiable" ? "—" : "yes";
  const batch = unmapped ? `not over inputs ${unmapped.join(", ")}` : "yes";
  return `| \`${prim.name}\` | ${shapes} | ${gradient} | ${batch} | ${kernelOf[prim.lowering.kind]} |`;
}

if (import.meta.main) await Deno.writeTextFile("docs/operations.md", operationsPage());
