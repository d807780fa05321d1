/**
 * The system's BLAS, for large matrix products: found, tried on a small product, and put behind one function that works in
 * place on the device's memory. docs/blas.md says how to add a library.
 */

/** A CBLAS that gave right results here; plain data, so that it can be sent to worker threads. */
export interface BlasLibrary {
  readonly path: string;
  /** `OpenBLAS 0.3.21`. */
  readonly name: string;
  /** Its function that sets the number of its own threads, which must be 1: the device's threads call it side by side. */
  readonly threads: { readonly symbol: string; readonly type: "i32" | "i64" } | null;
}

/**
 * c[m,n] = a·b + beta·c in row-major f32, where a is [m,k], or [k,m] if transposed, and b likewise. `a`, `b`, `c` are byte
 * addresses in the device's memory, `lda`, `ldb`, `ldc` elements from one row to the next.
 */
export type BlasProduct = (
  transposeA: number,
  transposeB: number,
  m: number,
  n: number,
  k: number,
  a: number,
  lda: number,
  b: number,
  ldb: number,
  beta: number,
  c: number,
  ldc: number,
) => void;

/** The makers whose libraries name themselves and can be limited to one thread. */
const makers: readonly {
  readonly version: keyof typeof versions;
  readonly threads: BlasLibrary["threads"];
  name(version: string): string;
}[] = [
  {
    version: "openblas_get_config",
    threads: { symbol: "openblas_set_num_threads", type: "i32" },
    // "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH …"
    name: (text) => text.split(" ").slice(0, 2).join(" "),
  },
  {
    version: "bli_info_get_version_str",
    threads: { symbol: "bli_thread_set_num_threads", type: "i64" },
    name: (text) => `BLIS ${text}`,
  },
  {
    version: "MKL_Get_Version_String",
    threads: { symbol: "MKL_Set_Num_Threads", type: "i32" },
    // "Intel(R) oneAPI Math Kernel Library Version 2025.0-Product Build …"
    name: (text) => `MKL ${/Version ([\d.]+)/.exec(text)?.[1] ?? ""}`.trim(),
  },
];

/** Their functions that name them: as the result, or written to a buffer. */
const versions = {
  openblas_get_config: { parameters: [], result: "pointer", optional: true },
  bli_info_get_version_str: { parameters: [], result: "pointer", optional: true },
  MKL_Get_Version_String: { parameters: ["buffer", "i32"], result: "void", optional: true },
} as const;

/** Where libraries are looked for, in order of preference. */
const candidates: Partial<Record<typeof Deno.build.os, readonly string[]>> = {
  linux: [
    "libopenblas.so.0",
    "libopenblas.so",
    "libblis.so.4",
    "libblis.so.3",
    "libblis.so",
    "libmkl_rt.so.2",
    "libmkl_rt.so.1",
    "libmkl_rt.so",
  ],
  darwin: [
    "libopenblas.dylib",
    "/opt/homebrew/opt/openblas/lib/libopenblas.dylib",
    "/usr/local/opt/openblas/lib/libopenblas.dylib",
    "libblis.dylib",
    "/opt/homebrew/opt/blis/lib/libblis.dylib",
  ],
  windows: ["libopenblas.dll", "openblas.dll", "mkl_rt.2.dll", "mkl_rt.1.dll"],
};

/** The environment's name of a library to take before all others. */
const variable = "LOWRANK_BLAS";

/**
 * The library to use: the one that `wanted` or LOWRANK_BLAS names, else the first of those that systems ship. `refusal`
 * says why there is none; it is empty where nobody permitted or asked for one.
 */
export function findBlas(wanted?: string): { library: BlasLibrary } | { refusal: string } {
  if (!isDeno()) return { refusal: wanted ? `${wanted} can only be called from Deno` : "" };
  const named = wanted ?? variableValue();
  if (Deno.permissions.querySync({ name: "ffi" }).state !== "granted") {
    return { refusal: named ? `${named} needs --allow-ffi` : "" };
  }
  const tried = named ? [named] : candidates[Deno.build.os] ?? [];
  const failures: string[] = [];
  for (const path of tried) {
    const found = tryLibrary(path);
    if (typeof found !== "string") return { library: found };
    failures.push(found);
  }
  return { refusal: named ? failures[0] : "no OpenBLAS, BLIS or MKL was found (docs/blas.md)" };
}

/** The library under a path, or a sentence that says what is wrong with it. */
function tryLibrary(path: string): BlasLibrary | string {
  try {
    const { symbols } = Deno.dlopen(path, versions);
    const maker = makers.find(({ version }) => symbols[version] !== null);
    const library: BlasLibrary = {
      path,
      name: maker ? maker.name(readVersion(symbols, maker.version)) : path,
      threads: maker?.threads ?? null,
    };
    return isRight(library) ? library : `${path} gives wrong products`;
  } catch (error) {
    return `${path} ${problemWith(error instanceof Error ? error.message : String(error))}`;
  }
}

/** What follows a library's path in a sentence. */
function problemWith(message: string): string {
  if (message.includes("undefined symbol: cblas_sgemm")) return "is not a CBLAS library: it has no cblas_sgemm";
  const reason = message.replaceAll("Could not open library: ", "").split("\n")[0];
  return `can't be loaded: ${reason}`;
}

type Versions = Deno.DynamicLibrary<typeof versions>["symbols"];

function readVersion(symbols: Versions, version: keyof typeof versions): string {
  if (version !== "MKL_Get_Version_String") {
    const text = symbols[version]!();
    return text === null ? "" : Deno.UnsafePointerView.getCString(text);
  }
  const text = new Uint8Array(256);
  symbols[version]!(text, text.length);
  return new TextDecoder().decode(text.subarray(0, text.indexOf(0)));
}

/** Whether a small product comes out exactly, in every form that kernels use: a library of 64-bit sizes would not. */
function isRight(library: BlasLibrary): boolean {
  const [m, n, k] = [5, 7, 3];
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
  const product = openProduct(memory, library);
  const part = (offset: number, length: number) => new Float32Array(memory.buffer, offset, length);
  const a = part(0, m * k), b = part(1024, k * n), c = part(2048, m * n);
  for (const transposeA of [0, 1]) {
    for (const transposeB of [0, 1]) {
      a.forEach((_, i) => a[i] = i % 5 - 2);
      b.forEach((_, i) => b[i] = i % 7 - 3);
      c.fill(NaN);
      const [lda, ldb] = [transposeA ? m : k, transposeB ? k : n];
      for (const beta of [0, 1]) product(transposeA, transposeB, m, n, k, 0, lda, 1024, ldb, beta, 2048, n);
      for (let i = 0; i < m; i++) {
        for (let j = 0; j < n; j++) {
          let sum = 0;
          for (let x = 0; x < k; x++) {
            sum += a[transposeA ? x * m + i : i * k + x] * b[transposeB ? j * k + x : x * n + j];
          }
          if (c[i * n + j] !== 2 * sum) return false;
        }
      }
    }
  }
  return true;
}

/**
 * The library's product on one thread of a memory, which must not move: a shared one. The same function runs on the main
 * thread and, as source text, in the workers: it names nothing outside itself but Deno.
 */
export function openProduct(memory: WebAssembly.Memory, library: BlasLibrary): BlasProduct {
  const [rowMajor, plain, transposed] = [101, 111, 112];
  const { cblas_sgemm: sgemm } = Deno.dlopen(
    library.path,
    {
      cblas_sgemm: {
        parameters: [
          "i32",
          "i32",
          "i32",
          "i32",
          "i32",
          "i32",
          "f32",
          "usize",
          "i32",
          "usize",
          "i32",
          "f32",
          "usize",
          "i32",
        ],
        result: "void",
      },
    } as const,
  ).symbols;
  if (library.threads) {
    const { symbol, type } = library.threads;
    const { symbols } = Deno.dlopen(library.path, { [symbol]: { parameters: [type], result: "void" } });
    (symbols[symbol] as (count: number | bigint) => void)(type === "i64" ? 1n : 1);
  }
  const view = new Uint8Array(memory.buffer) as unknown as Uint8Array<ArrayBuffer>;
  const base = Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(view)));
  return (transposeA, transposeB, m, n, k, a, lda, b, ldb, beta, c, ldc) => {
    const [formA, formB] = [transposeA ? transposed : plain, transposeB ? transposed : plain];
    const at = (address: number) => BigInt(base + (address >>> 0));
    sgemm(rowMajor, formA, formB, m, n, k, 1, at(a), lda, at(b), ldb, beta, at(c), ldc);
  };
}

function isDeno(): boolean {
  return (globalThis as { Deno?: { dlopen?: unknown } }).Deno?.dlopen !== undefined;
}

function variableValue(): string | undefined {
  if (Deno.permissions.querySync({ name: "env", variable }).state !== "granted") return undefined;
  return Deno.env.get(variable) || undefined;
}
