// A file to where the browser keeps what is downloaded.

/** How long the address of a file has to last, ms: the browser has begun to read it by then. */
const LASTS_MS = 60_000;

export function saved(data: Blob, name: string): void {
  const address = URL.createObjectURL(data);
  const link = document.createElement("a");
  link.href = address;
  link.download = name.replace(/[/\\:*?"<>|\p{Cc}]/gu, "_");
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), LASTS_MS);
}
