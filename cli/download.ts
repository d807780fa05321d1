/** Models and adapters from the hub, showing the progress of the download. */
import { formatBytes } from "../core/host/format.ts";
import { download, type HubOptions } from "../models/load/hub/hub.ts";
import type { Terminal } from "./command.ts";

/** Options that report every tenth of a download. */
export function downloadProgress(name: string, terminal: Terminal): HubOptions {
  let shown = -1;
  return {
    onWait: (seconds) => terminal.say(`waiting   ${Math.ceil(seconds)} seconds, as the hub asks`),
    onDownload: (received, total) => {
      const tenth = Math.floor(10 * received / Math.max(1, total));
      if (tenth === shown) return;
      shown = tenth;
      terminal.say(`fetching  ${name}: ${formatBytes(received)} of ${formatBytes(total)}`);
    },
  };
}

/** Where an adapter is: its folder or file, or what is downloaded from the hub for its name there. */
export async function downloadAdapter<N extends string | undefined>(named: N, terminal: Terminal): Promise<N> {
  return named === undefined ? named : await download(named, downloadProgress(named, terminal)) as N;
}
