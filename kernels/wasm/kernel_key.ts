/** A kernel's structure as a string: equal strings are equal kernels. Shared expressions are written once. */
import { exactText, Identities } from "../../core/identity.ts";
import type { Expr, Index, Store } from "../ir/expr.ts";
import type { Kernel } from "../ir/kernel.ts";

/** The key of a kernel. It names every field that an emitter reads, so two kernels with one key share code. */
export function kernelKey(kernel: Kernel): string {
  const writer = new KeyWriter();
  const operands = kernel.operands.map((o) => `${o.dtype}[${o.size}]${o.access}`).join();
  return `${kernel.kind}(${operands})${describe(kernel, writer)}{${writer.lines.join(";")}}`;
}

function describe(kernel: Kernel, writer: KeyWriter): string {
  switch (kernel.kind) {
    case "map":
      return `${kernel.shape}:${writer.stores(kernel.stores)}`;
    case "row": {
      const phases = kernel.phases.map((p) =>
        p.kind === "reduce" ? `${p.op} ${writer.expr(p.value)}` : `${p.kind} ${writer.stores(p.stores)}`
      );
      return `${kernel.rows}|${kernel.cols}:${phases.join("|")}`;
    }
    case "contract": {
      const side = (s: { operand: number; index: Index }) => `${s.operand}@${writer.index(s.index)}`;
      const segments = kernel.segments.map((s) => `${s.k}${s.rounded ? " rounded" : ""} ${side(s.a)} ${side(s.b)}`);
      return `${kernel.batch}|${kernel.m}|${kernel.n}:${segments.join("|")}:${writer.stores(kernel.stores)}`;
    }
    case "scatter":
      return `${kernel.count}|${kernel.cols}|${kernel.targets}`;
    case "attention": {
      const { operands: _, ...rest } = kernel;
      return exactText(rest, new Identities());
    }
  }
}

class KeyWriter {
  readonly lines: string[] = [];
  readonly #names = new Map<Expr, number>();

  expr(expr: Expr): number {
    const known = this.#names.get(expr);
    if (known !== undefined) return known;
    const line = this.#line(expr);
    this.lines.push(line);
    this.#names.set(expr, this.lines.length - 1);
    return this.lines.length - 1;
  }

  index(index: Index): string {
    const dynamic = (index.dynamic ?? []).map((d) => `+${d.stride}*${this.expr(d.value)}`);
    return `${index.offset}[${index.strides}]${dynamic.join("")}`;
  }

  stores(stores: readonly Store[]): string {
    return stores.map((s) => `${s.operand}@${this.index(s.index)}=${this.expr(s.value)}`).join();
  }

  #line(expr: Expr): string {
    switch (expr.kind) {
      case "const":
        return `${expr.type} ${Object.is(expr.value, -0) ? "-0" : expr.value}`;
      case "axis":
        return `axis ${expr.axis}`;
      case "load":
        return `${expr.type} ${expr.operand}@${this.index(expr.index)}`;
      case "result":
        return `${expr.type} result ${expr.phase}`;
      case "threefry":
        return `threefry${expr.lane} ${expr.args.map((arg) => this.expr(arg))}`;
      case "op":
        return `${expr.type} ${expr.op} ${expr.args.map((arg) => this.expr(arg))}`;
    }
  }
}
