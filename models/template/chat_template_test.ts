import { assert, assertEquals, assertThrows } from "@std/assert";
import { readChatTemplate } from "./chat_template.ts";
import { strftime } from "./strftime.ts";
import { Float } from "./values.ts";

const write = (template: string, variables: Record<string, unknown> = {}) => readChatTemplate(template)(variables).text;

Deno.test("templates mean what Python means by them", () => {
  const cases: [string, string][] = [
    ["{{ '\\n  x\\n'.lstrip('\\n') }}|{{ 'xxay'.strip('xy') }}|{{ ' a '.rstrip() }}|", "  x\n|a| a|"],
    [
      "{{ true }} {{ none }} {{ [1, 2.0, 'a', none, (1, 2)] }} {{ {'k': false} }}",
      "True None [1, 2.0, 'a', None, (1, 2)] {'k': False}",
    ],
    ["{{ 'abc' | first }}{{ 'abc' | last }}{{ ['b', 'a'] | map('upper') | join }}", "acBA"],
    ["{{ 1 == '1' }} {{ none == false }} {{ [1] == [1] }} {{ {'a': 1} == {'a': 1.0} }}", "False False True True"],
    [
      "{{ -7 // 2 }} {{ -7 % 3 }} {{ 6 / 2 }} {{ 2 ** 3 }}",
      "-4 2 3.0 8",
    ],
    [
      "{{ 6 is divisibleby(3) }} {{ 6 is not divisibleby 4 }} {{ 1 is in [1, 2] and 2 is eq 2 }} {{ 'a' is sameas 'a' }}",
      "True True True True",
    ],
    ["{{ {'a': '<é>', 'b': [1.0, none]} | tojson }}", '{"a": "<é>", "b": [1.0, null]}'],
    ["{{ missing }}|{{ {'a': none}.a }}|{{ {'a': 1}.b is defined }}", "|None|False"],
    [
      "{% for i in [1, 2, 3] if i != 2 %}{{ loop.index }}/{{ loop.length }}{{ ',' if not loop.last }}{% endfor %}",
      "1/2,2/2",
    ],
    ["{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{% endfor %}{{ x }}", "1"],
    ["{% macro m(a, b=none) %}{{ a }}{{ b }}{% endmacro %}{{ m('x') }}{{ m(none, 1) }}", "xNoneNone1"],
  ];
  for (const [template, text] of cases) {
    assertEquals(write(template), text, template);
  }
  assertEquals(
    write("{{ x | tojson }} {{ x }}", { x: [1, new Float(1), 1.5, null, "é"] }),
    "[1, 1.0, 1.5, null, \"é\"] [1, 1.0, 1.5, None, 'é']",
  );
  assertEquals(
    strftime(new Date(2024, 6, 4, 15, 5, 9), "%d %b %Y %A %B %I:%M %p %y %-d %j %%"),
    "04 Jul 2024 Thursday July 03:05 PM 24 4 186 %",
  );
});

Deno.test("what the assistant says is found where it is marked, and the marks write nothing", () => {
  const template =
    "{% for m in messages %}\n<{{ m }}>{% if m == 'b' %}{% generation %}\n{{ m }}!{% endgeneration %}{% endif %}\n{% endfor %}";
  const { text, generated } = readChatTemplate(template)({ messages: ["a", "b", "b"] });
  assertEquals(generated.map(({ start, end }) => text.slice(start, end)), ["b!", "b!"]);
});

Deno.test("a template can't change its values, run without end or reach what is outside", () => {
  for (
    const [template, sentence] of [
      ["{{ x.append(1) }}", "would change a list"],
      ["{{ range(10 ** 9) }}", "too long"],
      ["{% for i in range(99999) %}{% for j in range(99999) %}{{ i }}{% endfor %}{% endfor %}", "it "],
      ["{{ 'x' * 10 ** 9 }}", "too many"],
      ["{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", ""],
      ["{{ u.a }}", "u is undefined"],
      ["{{ x | nothing }}", "the filter nothing is not known"],
      ["{{ raise_exception('no system') }}", "no system"],
      ["{{ 1 + 'a' }}", "+ is not for int and str"],
    ] as const
  ) assertThrows(() => write(template, { x: [] }), Error, sentence);
  for (const name of ["constructor", "__proto__", "prototype", "toString", "hasOwnProperty"]) {
    assertEquals(
      write(`{{ x.${name} is defined }}{{ y.${name} is defined }}{{ 'a'.${name} is defined }}`, { x: {}, y: [] }),
      "FalseFalseFalse",
    );
    assertThrows(() => write(`{{ 'a' | ${name} }}`), Error, "is not known");
  }
  assert(!("polluted" in {}));
});
