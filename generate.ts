/** Continues a text with a saved adapter: `deno task generate --adapter out/adapter "Dear shop, …"`. */
import { parseArgs } from "node:util";
import { type DeviceChoice, openDevice, OptionError } from "./mod.ts";
import { loadModel } from "./models/mod.ts";
import { answerer, loadAdapter, mergeParams, readAdapter, reportErrors } from "./train/mod.ts";

await reportErrors(async () => {
  const { values: flags, positionals } = parseArgs({
    options: {
      adapter: { type: "string" }, // without one, the model alone answers
      model: { type: "string" }, // the one that the adapter names, if not given
      system: { type: "string" }, // what a chat model is told first
      device: { type: "string", default: "auto" },
      debug: { type: "boolean", default: false },
    },
    allowPositionals: true,
  });
  const path = flags.model ?? (flags.adapter && readAdapter(flags.adapter).config.base_model_name_or_path);
  if (!path) throw new OptionError("no model is named: give --model, or an --adapter that names one");
  if (positionals.length !== 1) throw new OptionError(`give one text to continue in quotes, not ${positionals.length}`);

  using device = await openDevice(flags.device as DeviceChoice);
  using model = await loadModel(path, { device });
  const tokenizer = model.tokenizer();
  const tuned = flags.adapter && loadAdapter(flags.adapter, model);
  const params = tuned ? mergeParams(tuned, tuned.trainable) : model.params;
  const user = { role: "user", content: positionals[0] };
  const messages = flags.system ? [{ role: "system", content: flags.system }, user] : [user];
  const prompt = tokenizer.hasChatTemplate
    ? tokenizer.encode(tokenizer.applyChatTemplate(messages, { addGenerationPrompt: true }), {
      addSpecialTokens: false,
    })
    : tokenizer.encode(positionals[0]);
  const [text] = await answerer(model, tokenizer, { maxNewTokens: 128 })(params, [prompt]);
  console.log(text);
});
