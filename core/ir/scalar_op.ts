/** The scalar operations expressions are made of; each back end has one table that covers them all. */
export type ScalarOp = UnaryOp | BinaryOp | "select";
/** One operand. `isFinite` is a bit test; `not` is logical on bool, bitwise on u32 and i32. */
export type UnaryOp =
  | "neg"
  | "abs"
  | "sign"
  | "floor"
  | "exp"
  | "log"
  | "sqrt"
  | "rsqrt"
  | "recip"
  | "tanh"
  | "erf"
  | "sin"
  | "cos"
  | "isFinite"
  | "not"
  /** To the expression's own type: float to int truncates and saturates (NaN is 0), to bool is `!= 0`, from bool is 0 or 1. */
  | "convert"
  /** The same 32 bits read as the expression's own type. */
  | "bitcast";
/**
 * Two operands of one type. Comparisons give bool. `shr` is logical on u32, arithmetic on i32, and shifts count modulo 32.
 * Float `rem` is x - y*trunc(x/y). Of integers x / 0 is -1, x % 0 is x, and the least by -1 is itself, with remainder 0.
 */
export type BinaryOp =
  | "add"
  | "sub"
  | "mul"
  | "div"
  | "rem"
  | "pow"
  | "max"
  | "min"
  | "eq"
  | "ne"
  | "lt"
  | "le"
  | "gt"
  | "ge"
  | "and"
  | "or"
  | "xor"
  | "shl"
  | "shr";
