/** The signatures of the public surface, as they are recorded. */

/** The parameters of a function's signature, or none. */
export function parametersOf(signature: string): string[] {
  const found: string[] = [];
  let depth = 0;
  const name = /^(async )?function\*? \w+(<[^(]*>)?\(/.exec(signature);
  // An arrow is no bracket.
  for (const character of name === null ? "" : signature.slice(name[0].length).replaceAll("=>", "⇒")) {
    if (depth === 0 && character === ")") break;
    if ("([{<".includes(character)) depth++;
    if (")]}>".includes(character)) depth--;
    if (depth === 0 && character === ",") found.push("");
    else found.push((found.pop() ?? "") + character);
  }
  return found.map((parameter) => parameter.trim());
}

/** Whether a parameter holds options. */
export const isOptions = (parameter: string): boolean => /^(options\??:|\{)/.test(parameter);
