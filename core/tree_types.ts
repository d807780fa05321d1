/**
 * What becomes of the types of trees: values within a traced function, tensors out of a compiled one, arrays on the host.
 * `any` and `unknown` stay as they are, and what is no leaf (a string, a function) keeps its type.
 */
import type { Value } from "./ir/graph.ts";
import type { HostTensor, Operand, ScalarTensor, Tensor } from "./tensor.ts";

/** A {@link Value} that is known to have rank 0, such as a loss: `read` gives a number for it. */
export type Scalar = Value & { readonly shape: readonly [] };

/** What is known to have rank 0: a loss, a learning rate. */
export type ScalarOperand = Scalar | ScalarTensor | number;

/** A tree with each leaf (a Value, a Tensor, a number) replaced by L, or by S where it is known to have rank 0. */
export type WithLeaves<T, L, S = L> = 0 extends 1 & T ? T
  : T extends ScalarOperand ? S
  : T extends Value | Tensor ? L
  : T extends (...args: never[]) => unknown ? T
  : T extends object ? { [K in keyof T]: WithLeaves<T[K], L, S> }
  : T;

/** A tree as a traced function holds it: every leaf is a {@link Value}. */
export type Values<T> = WithLeaves<T, Value, Scalar>;

/** A tree as a compiled function returns it: every leaf is a {@link Tensor}. */
export type Tensors<T> = WithLeaves<T, Tensor, ScalarTensor>;

/** A tree as `read` gives it: a {@link HostTensor} for each leaf, but a number for one of rank 0. */
export type HostTree<T> = WithLeaves<T, HostTensor | number, number>;

/** What may be given where a traced function takes T: tensors, values or numbers in the places of its leaves. */
export type Given<T> = T | WithLeaves<T, Operand>;

/** The arguments of a transformed function. Those at the positions S are settings, which keep their types. */
export type Arguments<A extends readonly unknown[], S extends number = never> = {
  [I in keyof A]: I extends `${S}` ? A[I] : Given<A[I]>;
};
