/** Models and adapters from the hub, with the progress of the download told. */
import { formatBytes } from "../core/host/format.ts";
import { download, type HubOptions } from "../models/load/hub/hub.ts";
import type { Terminal } from "./command.ts";

/** Tells of every tenth of a download. */
export function downloadProgress(name: string, terminal: Terminal): HubOptions {
  let told = -1;
  return {
    onWait: (seconds) => terminal.say(`waiting   ${Math.ceil(seconds)} seconds, as the hub asks`),
    onDownload: (received, total) => {
      const tenth = Math.floor(10 * received / Math.max(1, total));
      if (tenth === told) return;
      told = tenth;
      terminal.say(`fetching  ${name}: ${formatBytes(received)} of ${formatBytes(total)}`);
    },
  };
}

/** Where an adapter is: its folder or file, or what is brought from the hub for its name there. */
export async function downloadAdapter<N extends string | undefined>(named: N, terminal: Terminal): Promise<N> {
  return named === undefined ? named : await download(named, downloadProgress(named, terminal)) as N;
}
